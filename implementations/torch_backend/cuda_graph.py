"""Passes of torch's own layers, each recorded once as a CUDA graph and replayed.

A replay hands all kernels of a pass to the GPU at once: what the processor spends on
starting them one by one is gone. Recorded for each shape, without padding and from a
zero state; what is asked otherwise is computed as by `TorchNetwork`.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.contract import Array, Cell, Forward, Handle, NetworkSpec, State, Weights
from implementations.torch_backend.layer import LayerFactory
from implementations.torch_backend.native import layer as stock
from implementations.torch_backend.network import PlacedBatch, TorchNetwork

Body = Callable[[], list[Tensor]]
Record = Callable[[Body], Body]
"""Runs a body a few times, records it, and returns what replays it."""

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
        spec: As of a `TorchNetwork`.
        cell: As of a `TorchNetwork`.
        device: `cuda` or `cuda:N`.
        layer: As of a `TorchNetwork`.
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

    def load_weights(self, weights: Weights) -> None:
        """Take canonical weights and forget the moments, and the graphs with them."""
        super().load_weights(weights)
        self._recorded.clear()

    def load_optimizer_state(self, arrays: Mapping[str, Array]) -> None:
        """Take what `optimizer_state` returned; graphs hold the moments before."""
        super().load_optimizer_state(arrays)
        self._recorded.clear()
        for state in self._optimizer.state.values():
            if "step" in state:
                state["step"] = state["step"].to(self._device)

    def forward(
        self, placed: PlacedBatch, state: State | None = None
    ) -> Handle[Forward]:
        """Compute outputs [batch, readouts, output] and the final state."""
        if state is not None or placed.lengths is not None:
            return super().forward(placed, state)

        def body(static: PlacedBatch) -> list[Tensor]:
            with torch.no_grad():
                outputs, final = self._run(self._enter(static.x), None, None)
            return [outputs, *final]

        outputs, *final = self._replay("forward", placed, body)
        return self._forward_handle(outputs, final)

    def _loss_and_gradients(
        self, placed: PlacedBatch
    ) -> tuple[Tensor, dict[str, Tensor | None]]:
        if placed.lengths is not None:
            return super()._loss_and_gradients(placed)
        whole, trained = super()._loss_and_gradients, self._trained()

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
        if placed.lengths is not None:
            return super()._update(placed)
        whole = super()._update
        loss, norm = self._replay("update", placed, lambda static: [*whole(static)])
        return loss, norm

    def _replay(
        self,
        name: str,
        placed: PlacedBatch,
        body: Callable[[PlacedBatch], list[Tensor]],
    ) -> list[Tensor]:
        """Return copies of what a pass computes: the next replay writes there again."""
        key = (name, *placed.x.shape, *placed.targets.shape)
        if key not in self._recorded:
            static = PlacedBatch(
                placed.x.clone(), None, placed.targets.clone(), placed.weights.clone()
            )
            before = self._held()
            replay = self._record(lambda: body(static))
            self._restore(before)
            self._recorded[key] = (static, replay)
        static, replay = self._recorded[key]
        static.x.copy_(placed.x)
        static.targets.copy_(placed.targets)
        static.weights.copy_(placed.weights)
        return [tensor.clone() for tensor in replay()]

    # Recording runs a pass for its own sake: what an update then changed is put back,
    # in place, where the graph will look for it.

    def _held(self) -> tuple[dict[str, Tensor], dict[Any, dict[str, Tensor]]]:
        weights = {n: p.detach().clone() for n, p in self._parameters().items()}
        moments = {
            parameter: {name: tensor.clone() for name, tensor in _tensors(state)}
            for parameter, state in self._optimizer.state.items()
        }
        return weights, moments

    def _restore(
        self, held: tuple[dict[str, Tensor], dict[Any, dict[str, Tensor]]]
    ) -> None:
        weights, moments = held
        with torch.no_grad():
            for name, parameter in self._parameters().items():
                parameter.copy_(weights[name])
            for trained, state in self._optimizer.state.items():
                for name, tensor in _tensors(state):
                    before = moments.get(trained, {}).get(name)
                    tensor.zero_() if before is None else tensor.copy_(before)

    def kernel(self) -> str:
        """Say what really ran, and that it was replayed."""
        replayed = "CUDA graph of " if self._recorded else ""
        return f"{replayed}{super().kernel()}"


def _tensors(state: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    return [(name, v) for name, v in state.items() if isinstance(v, Tensor)]


def network(spec: NetworkSpec, cell: Cell, device: str) -> GraphNetwork:
    """Return torch's own layers, replayed."""
    return GraphNetwork(spec, cell, device)
