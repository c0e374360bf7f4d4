"""The network of every torch implementation: readout, loss, optimiser, conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.contract import (
    Array,
    Batch,
    Cell,
    NetworkSpec,
    Optimizer,
    Readout,
    Target,
    Weights,
)
from implementations.shared.device import check_device
from implementations.shared.layout import with_layer_names
from implementations.shared.network import (
    Parts,
    PlacedBatch,
    SharedNetwork,
    Start,
    Tensors,
)
from implementations.shared.optimizers import moments
from implementations.torch_backend.kernel import kernel_of
from implementations.torch_backend.layer import (
    LayerFactory,
    RecurrentLayer,
    checked_module,
)
from implementations.torch_backend.precision import Precision

_Pass = tuple[Tensor, Tensor | None, Start]
"""What entered the first layer, the lengths and the state before."""


class TorchNetwork(SharedNetwork):
    """Stacked layers with a linear readout.

    Args:
        spec: Sizes, readout, loss, optimiser.
        cell: Names the canonical tensors and the state parts.
        device: `cpu`, `cuda` or `cuda:N`.
        layer: Called with (cell, input_size, hidden_size) for a module; see
            `LayerFactory`.

    Raises:
        UnavailableError: If torch sees no such device, or has no kernel for the
            precision there.
        RefusedError: If the precision is not one of the device or dtype.
        PluginError: If the layer has another form or another layout of its parameters.
    """

    def __init__(
        self, spec: NetworkSpec, cell: Cell, device: str, layer: LayerFactory
    ) -> None:
        check_device("torch", torch.__version__, device, torch.cuda.device_count())
        self._device = torch.device(device)
        self._precision = Precision(spec, self._device)
        self._dtype = getattr(torch, spec.dtype)
        widths, hidden_size = spec.layer_input_sizes, spec.hidden_size
        self._layers = []
        for width in widths:
            module = checked_module(layer(spec.cell, width, hidden_size))
            module.to(self._device, self._dtype)
            self._precision.check(module)
            self._layers.append(RecurrentLayer(module, cell, width, spec))
        super().__init__(spec, cell, [layer.layout for layer in self._layers])
        zeros = self._zero_tensors()
        self._weights = {
            name: nn.Parameter(zeros[name]) for name in self._layout.outside
        } | with_layer_names(dict(x.module.named_parameters()) for x in self._layers)
        for name, needed in self._needed.items():
            self._train_only(self._weights[name], needed)
        self._optimizer = _optimizer(spec.optimizer, list(self._trained().values()))
        self._asked: dict[bool, _Pass] = {}

    def _train_only(self, parameter: nn.Parameter, needed: Array) -> None:
        """Keep the entries of a parameter that are not needed as they are."""
        if not needed.any():
            parameter.requires_grad_(False)
            return
        mask = self._real(needed)
        parameter.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: gradient * mask
        )

    def _trained(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self._weights.items() if p.requires_grad}

    # --- tensors ---------------------------------------------------------------------

    def _put(self, array: Array) -> Tensor:
        return torch.as_tensor(array, device=self._device)

    def _on_host(self, tensors: Any) -> Any:
        """Return tensors as arrays; a missing tensor of the network is zero."""
        if isinstance(tensors, Tensor):
            return tensors.detach().cpu().numpy()
        if not isinstance(tensors, Mapping):
            return tuple(map(self._on_host, tensors))
        return {
            name: np.zeros(tuple(parameter.shape), self._spec.dtype)
            if (tensor := tensors.get(name)) is None
            else self._on_host(tensor)
            for name, parameter in self._weights.items()
        }

    def _scalars(self, values: Sequence[Tensor]) -> Array:
        return self._on_host(torch.stack(list(values)))  # type: ignore[no-any-return]

    def _wait(self, tensors: Any) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _assign(self, held: dict[str, Any], arrays: Weights) -> None:
        with torch.no_grad():
            for name, array in arrays.items():
                held[name].copy_(self._real(array))

    def _padding(self, batch: Batch) -> Tensor:
        return torch.as_tensor(batch.lengths)

    def _zero_state(self, batch: int) -> None:
        """Return None, which means zero to the layers of torch."""

    # --- forward ---------------------------------------------------------------------

    def _forward(
        self, x: Tensor, padding: Tensor | None, state: Start
    ) -> tuple[Tensor, Parts]:
        with torch.no_grad():
            return self._run(self._enter(x), padding, state)

    def _enter(self, x: Tensor) -> Tensor:
        if self._spec.inputs.embedded:
            return nn.functional.embedding(x, self._weights["embedding"])
        return x

    def _run(
        self, x: Tensor, lengths: Tensor | None, state: Start
    ) -> tuple[Tensor, Parts]:
        """Run every layer and the readout over x [time, batch, input].

        The state is one tensor [layers, batch, hidden] for each part. The results are
        in the network's dtype, whatever they were computed in.
        """
        self._asked[torch.is_grad_enabled()] = (x, lengths, state)
        with self._precision.forward():
            outputs, final = self._run_layers(x, lengths, state)
        return outputs.to(self._dtype), tuple(part.to(self._dtype) for part in final)

    def _run_layers(
        self, x: Tensor, lengths: Tensor | None, state: Start
    ) -> tuple[Tensor, list[Tensor]]:
        time_steps, finals = len(x), []
        for i, layer in enumerate(self._layers):
            before = None if state is None else [part[i : i + 1] for part in state]
            x, final = layer(x, lengths, before)
            finals.append(final)
        last = self._spec.readout is Readout.LAST or time_steps == 1
        top = finals[-1][0][0][:, None] if last else x.transpose(0, 1)
        outputs = nn.functional.linear(
            top, self._weights["readout.w"], self._weights["readout.b"]
        )
        return outputs, [torch.cat(parts) for parts in zip(*finals, strict=True)]

    # --- gradients -------------------------------------------------------------------

    def _pull(
        self, placed: PlacedBatch, state: Start, d_outputs: Tensor, d_final: Parts
    ) -> tuple[Tensors, Tensor, Parts]:
        zero = super()._zero_state(placed.x.shape[1])
        initial = state or [part.clone() for part in zero]
        entered = self._enter(placed.x)
        if not entered.requires_grad:
            entered = entered.detach().requires_grad_()
        for part in initial:
            part.requires_grad_()
        outputs, final = self._run(entered, placed.padding, initial)
        trained = self._trained()
        found = torch.autograd.grad(
            [outputs, *final],
            [entered, *initial, *trained.values()],
            [d_outputs, *d_final],
            materialize_grads=True,
        )
        d_x, d_initial = found[0], found[1 : 1 + self._parts]
        return dict(zip(trained, found[1 + self._parts :], strict=True)), d_x, d_initial

    def _loss(self, placed: PlacedBatch) -> Tensor:
        outputs, _ = self._run(self._enter(placed.x), placed.padding, None)
        if self._spec.target is Target.CLASS:
            losses = nn.functional.cross_entropy(
                outputs.transpose(1, 2), placed.targets, reduction="none"
            )
        else:
            losses = ((outputs - placed.targets) ** 2).mean(dim=-1)
        loss: Tensor = (losses * placed.weights).sum()
        return loss

    def _backward(self, placed: PlacedBatch) -> Tensor:
        self._optimizer.zero_grad()
        loss = self._loss(placed)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return loss.detach()

    def _loss_and_gradients(self, placed: PlacedBatch) -> tuple[Tensor, Tensors]:
        loss = self._backward(placed)
        return loss, {name: p.grad for name, p in self._trained().items()}

    # --- training --------------------------------------------------------------------

    def _update(self, placed: PlacedBatch) -> tuple[Tensor, Tensor]:
        clip_norm = self._spec.optimizer.clip_norm
        loss = self._backward(placed)
        norm = nn.utils.clip_grad_norm_(
            list(self._trained().values()),
            float("inf") if clip_norm is None else clip_norm,
        )
        self._optimizer.step()
        return loss, norm

    @property
    def _moments(self) -> Mapping[str, dict[str, Any]]:  # type: ignore[override]
        """The moments as torch keeps them; None for weights without a gradient yet."""
        states = self._optimizer.state
        return {
            moment: {
                n: states.get(p, {}).get(_MOMENTS[self._spec.optimizer.name][moment])
                for n, p in self._trained().items()
            }
            for moment in moments(self._spec.optimizer)
        }

    def _assign_moments(self, moments: Mapping[str, Weights]) -> None:
        self._optimizer.state.clear()
        for moment, arrays in moments.items():
            for name, parameter in self._trained().items():
                state = self._optimizer.state[parameter]
                state["step"] = torch.tensor(float(self._updates))
                key = _MOMENTS[self._spec.optimizer.name][moment]
                state[key] = self._real(arrays[name]).clone()

    # --- what ran --------------------------------------------------------------------

    def kernel(self) -> str:
        """Name the recurrent kernels of the last calls, as the profiler sees them.

        The last call with gradients and the last one without are run once more, on the
        same input. If their kernels differ, both are named.
        """
        seen = {gradients: self._kernel(gradients) for gradients in self._asked}
        if not seen:
            return "nothing has run"
        if len(set(seen.values())) == 1:
            return next(iter(seen.values()))
        return f"{seen[False]}; with gradients {seen[True]}"

    def _kernel(self, gradients: bool) -> str:
        x, lengths, state = self._asked[gradients]
        # The graph of the earlier call is freed, so x becomes a leaf.
        x = x.detach().requires_grad_(x.requires_grad)
        trained = list(self._trained().values())

        def backward(outputs: Tensor) -> object:
            return torch.autograd.grad(outputs.sum(), trained, allow_unused=True)

        for layer in self._layers:
            layer.marked = True
        try:
            with torch.set_grad_enabled(gradients):
                return kernel_of(
                    lambda: self._run(x, lengths, state)[0],
                    backward if gradients else None,
                )
        finally:
            for layer in self._layers:
                layer.marked = False


_MOMENTS = {
    "adam": {"first": "exp_avg", "second": "exp_avg_sq"},
    "rmsprop": {"second": "square_avg"},
    "sgd": {"momentum": "momentum_buffer"},
}


def _optimizer(
    optimizer: Optimizer, parameters: Sequence[nn.Parameter]
) -> torch.optim.Optimizer:
    rate, epsilon = optimizer.learning_rate, optimizer.epsilon
    match optimizer.name:
        case "adam":
            betas = (optimizer.beta1, optimizer.beta2)
            return torch.optim.Adam(parameters, rate, betas, epsilon)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, rate, optimizer.decay, epsilon)
        case "sgd":
            return torch.optim.SGD(parameters, rate, optimizer.momentum)
