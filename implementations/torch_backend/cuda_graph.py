"""Passes of torch's own layers, each recorded once as a CUDA graph and replayed.

A replay gives all kernels of a pass to the GPU at once, so that the processor does not
start them one by one. A pass is recorded for each shape, without padding and from a
zero state. Every other pass is computed as in `TorchNetwork`.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.contract import Cell, NetworkSpec, Weights
from implementations.shared.network import Parts, PlacedBatch, Start
from implementations.torch_backend.layer import LayerFactory
from implementations.torch_backend.native import layer as stock
from implementations.torch_backend.network import TorchNetwork

Body = Callable[[], list[Tensor]]
Record = Callable[[Body], Body]
"""Runs a body a few times, records it, and returns a function that replays it."""

WARM_UP = 3
"""Runs before a recording: libraries choose their kernels and allocate."""


def record_on_gpu(body: Body) -> Body:
    """Record a body that allocates nothing outside torch and waits for nothing."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            body()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = body()

    def replay() -> list[Tensor]:
        graph.replay()
        return found

    return replay


class GraphNetwork(TorchNetwork):
    """A `TorchNetwork` whose passes are replayed.

    Args:
        spec: As in `TorchNetwork`.
        cell: As in `TorchNetwork`.
        device: `cuda` or `cuda:N`.
        layer: As in `TorchNetwork`.
        record: Records a pass.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        cell: Cell,
        device: str,
        layer: LayerFactory = stock,
        record: Record = record_on_gpu,
    ) -> None:
        super().__init__(spec, cell, device, layer)
        self._record = record
        self._recorded: dict[tuple[Any, ...], tuple[PlacedBatch, Body]] = {}
        if self._device.type == "cuda":
            for group in self._optimizer.param_groups:
                if "capturable" in group:  # its count of updates is on the GPU too
                    group["capturable"] = True

    def _assign_moments(self, moments: Mapping[str, Weights]) -> None:
        super()._assign_moments(moments)
        self._recorded.clear()  # graphs use the replaced moments
        for state in self._optimizer.state.values():
            if "step" in state:
                state["step"] = state["step"].to(self._device)

    def _forward(
        self, x: Tensor, padding: Tensor | None, state: Start
    ) -> tuple[Tensor, Parts]:
        whole = super()._forward
        if state is not None or padding is not None:
            return whole(x, padding, state)

        def body(static: PlacedBatch) -> list[Tensor]:
            outputs, final = whole(static.x, None, None)
            return [outputs, *final]

        placed = PlacedBatch(x, None, None, None)
        outputs, *final = self._replay("forward", placed, body)
        return outputs, tuple(final)

    def _loss_and_gradients(
        self, placed: PlacedBatch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        whole, trained = super()._loss_and_gradients, self._trained()
        if placed.padding is not None:
            return whole(placed)

        def body(static: PlacedBatch) -> list[Tensor]:
            loss, gradients = whole(static)
            found = [
                torch.zeros_like(parameter) if (g := gradients[name]) is None else g
                for name, parameter in trained.items()
            ]
            return [loss, *found]

        loss, *gradients = self._replay("loss and gradients", placed, body)
        return loss, dict(zip(trained, gradients, strict=True))

    def _update(self, placed: PlacedBatch) -> tuple[Tensor, Tensor]:
        whole = super()._update
        if placed.padding is not None:
            return whole(placed)
        loss, norm = self._replay("update", placed, lambda static: [*whole(static)])
        return loss, norm

    def _replay(
        self,
        name: str,
        placed: PlacedBatch,
        body: Callable[[PlacedBatch], list[Tensor]],
    ) -> list[Tensor]:
        """Return copies of a pass's results: the next replay overwrites the results."""
        key = (name, *(None if tensor is None else tensor.shape for tensor in placed))
        if key not in self._recorded:
            static = PlacedBatch(*(t if t is None else t.clone() for t in placed))
            # Recording also runs the pass. What an update has changed is restored in
            # place, because the graph uses the same memory.
            before = {at: tensor.clone() for at, tensor in self._changing().items()}
            replay = self._record(lambda: body(static))
            for at, tensor in self._changing().items():
                tensor.zero_() if at not in before else tensor.copy_(before[at])
            self._recorded[key] = (static, replay)
        static, replay = self._recorded[key]
        for kept, entering in zip(static, placed, strict=True):
            if entering is not None:
                kept.copy_(entering)
        return [tensor.clone() for tensor in replay()]

    def _changing(self) -> dict[Any, Tensor]:
        """Return the weights by name, and the moments by parameter and name."""
        weights = {name: weight.detach() for name, weight in self._weights.items()}
        moments = {
            (parameter, name): tensor
            for parameter, state in self._optimizer.state.items()
            for name, tensor in state.items()
            if isinstance(tensor, Tensor)
        }
        return weights | moments

    def kernel(self) -> str:
        """Return the kernels that ran, and whether they were replayed."""
        replayed = "CUDA graph of " if self._recorded else ""
        return f"{replayed}{super().kernel()}"
