"""What every torch implementation shares: readout, loss, optimiser, conversion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.contract import (
    Array,
    Batch,
    Cell,
    Forward,
    Gradients,
    Handle,
    LossAndGradients,
    NetworkSpec,
    Optimizer,
    Readout,
    State,
    Target,
    Updates,
    Weights,
)
from harness.errors import UnavailableError
from implementations.shared.batches import (
    check_cotangents,
    check_state,
    check_step,
    check_weights,
    encode,
    host_batch,
)
from implementations.shared.layout import NetworkLayout
from implementations.torch_backend.kernel import kernel_of
from implementations.torch_backend.layer import (
    LayerFactory,
    RecurrentLayer,
    checked_module,
)
from implementations.torch_backend.precision import Precision


@dataclass(frozen=True)
class PlacedBatch:
    """A batch on the device with time first; `lengths` is None where none is padded."""

    x: Tensor
    lengths: Tensor | None
    targets: Tensor
    weights: Tensor
    """[batch, readouts]: 1 / (number of scored positions) where scored, else 0."""


_Pass = tuple[Tensor, Tensor | None, list[Tensor] | None]
"""What entered the first layer, the lengths and the state before."""


class TorchNetwork:
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
        RefusedError: If the precision means nothing for the device or dtype.
        PluginError: If the layer is of another form or its parameters are laid out
            otherwise.
    """

    def __init__(
        self, spec: NetworkSpec, cell: Cell, device: str, layer: LayerFactory
    ) -> None:
        _check_device(device)
        self._spec = spec
        self._parts = len(cell.info.state_parts)
        self._shapes = spec.weight_shapes(cell)
        self._device = torch.device(device)
        self._precision = Precision(spec, self._device)
        self._dtype = getattr(torch, spec.dtype)
        widths, hidden_size = spec.layer_input_sizes, spec.hidden_size
        modules = [
            checked_module(layer(spec.cell, width, hidden_size)).to(
                self._device, self._dtype
            )
            for width in widths
        ]
        self._precision.check(modules)
        self._layers = [
            RecurrentLayer(module, cell, width, spec)
            for module, width in zip(modules, widths, strict=True)
        ]
        self._layout = NetworkLayout(self._shapes, [x.layout for x in self._layers])
        self._outside = {
            name: nn.Parameter(self._zeros(shape))
            for name, shape in self._layout.outside.items()
        }
        if spec.biases == "canonical":
            self._freeze_redundant_biases()
        self._optimizer = _optimizer(spec.optimizer, list(self._trained().values()))
        self._updates = 0
        self._asked: dict[bool, _Pass] = {}

    def _tensor(self, array: Array) -> Tensor:
        return torch.as_tensor(array, dtype=self._dtype, device=self._device)

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=self._dtype, device=self._device)

    # --- weights ---------------------------------------------------------------------

    def _freeze_redundant_biases(self) -> None:
        parameters = self._parameters()
        for name, needed in self._layout.needed.items():
            if not needed.any():
                parameters[name].requires_grad_(False)
            else:
                mask = self._tensor(needed)
                parameters[name].register_hook(  # type: ignore[no-untyped-call]
                    lambda gradient, mask=mask: gradient * mask
                )

    def _parameters(self) -> dict[str, nn.Parameter]:
        """Return every parameter: `layer0.weight_ih_l0`, `readout.w`."""
        return self._outside | {
            f"layer{i}.{name}": parameter
            for i, layer in enumerate(self._layers)
            for name, parameter in layer.module.named_parameters()
        }

    def _trained(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self._parameters().items() if p.requires_grad}

    def _canonical(
        self, tensors: Mapping[str, Tensor | None], *, values: bool
    ) -> Weights:
        """Convert tensors laid out as the parameters; None counts as zero."""
        arrays = {
            name: np.zeros(tuple(parameter.shape), self._spec.dtype)
            if (tensor := tensors.get(name)) is None
            else tensor.detach().cpu().numpy()
            for name, parameter in self._parameters().items()
        }
        if values:
            return self._layout.values(arrays)
        return self._layout.gradients(arrays)

    def load_weights(self, weights: Weights) -> None:
        """Take canonical weights and forget the optimiser's moments.

        Raises:
            InputError: If a tensor is missing, misshapen or not finite.
        """
        check_weights(self._shapes, weights, self._spec.dtype)
        parameters = self._parameters()
        with torch.no_grad():
            for name, array in self._layout.from_canonical(weights).items():
                parameters[name].copy_(self._tensor(array))
        self._optimizer.state.clear()
        self._updates = 0

    def weights(self) -> Weights:
        """Return the canonical weights."""
        return self._canonical(self._parameters(), values=True)

    # --- forward ---------------------------------------------------------------------

    def place(self, batch: Batch) -> PlacedBatch:
        """Bring a batch to the device with time first.

        Raises:
            InputError: If the batch does not fit the network.
        """
        host = host_batch(self._spec, batch)
        lengths = host.lengths
        return PlacedBatch(
            torch.as_tensor(host.x, device=self._device),
            None if lengths is None else torch.as_tensor(lengths),
            torch.as_tensor(host.targets, device=self._device),
            self._tensor(host.weights),
        )

    def forward(
        self, placed: PlacedBatch, state: State | None = None
    ) -> Handle[Forward]:
        """Compute outputs [batch, readouts, output] and the final state."""
        with torch.no_grad():
            x = self._enter(placed.x)
            before = self._state(state, placed.x.shape[1])
            outputs, final = self._run(x, placed.lengths, before)
        return self._forward_handle(outputs, final)

    def step(self, x: Array, state: State | Any) -> Handle[Forward]:
        """Advance one time step and answer, whatever the readout."""
        check_step(self._spec, x)
        encoded = torch.as_tensor(encode(self._spec, x), device=self._device)
        with torch.no_grad():
            before = self._state(state, len(x))
            outputs, final = self._run(self._enter(encoded)[None], None, before)
        return self._forward_handle(outputs, final)

    def _forward_handle(self, outputs: Tensor, final: list[Tensor]) -> Handle[Forward]:
        def read() -> Forward:
            return Forward(outputs.cpu().numpy(), tuple(p.cpu().numpy() for p in final))

        return Handle(self._wait, read, carry=final)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _enter(self, x: Tensor) -> Tensor:
        if self._spec.inputs.embedded:
            return nn.functional.embedding(x, self._outside["embedding"])
        return x

    def _state(self, state: State | Any, batch: int) -> list[Tensor] | None:
        if state is None:
            return None
        if isinstance(state[0], Tensor):  # carried from the step before
            return list(state)
        check_state(self._spec, self._parts, state, batch)
        return [self._tensor(part) for part in state]

    def _run(
        self, x: Tensor, lengths: Tensor | None, state: list[Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run every layer and the readout over x [time, batch, input].

        The state is one tensor [layers, batch, hidden] a part. What comes out is in the
        network's dtype, whatever it was computed in.
        """
        self._asked[torch.is_grad_enabled()] = (x, lengths, state)
        self._precision.set()
        with self._precision.forward():
            outputs, final = self._run_layers(x, lengths, state)
        return outputs.to(self._dtype), [part.to(self._dtype) for part in final]

    def _run_layers(
        self, x: Tensor, lengths: Tensor | None, state: list[Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        time_steps, finals = len(x), []
        for i, layer in enumerate(self._layers):
            before = None if state is None else [part[i : i + 1] for part in state]
            x, final = layer(x, lengths, before)
            finals.append(final)
        last = self._spec.readout is Readout.LAST or time_steps == 1
        top = finals[-1][0][0][:, None] if last else x.transpose(0, 1)
        outputs = nn.functional.linear(
            top, self._outside["readout.w"], self._outside["readout.b"]
        )
        return outputs, [torch.cat(parts) for parts in zip(*finals, strict=True)]

    # --- gradients -------------------------------------------------------------------

    def vjp(
        self,
        placed: PlacedBatch,
        state: State | None,
        d_outputs: Array,
        d_final: State,
    ) -> Gradients:
        """Pull cotangents of outputs and final state back to all that entered."""
        time_steps = len(placed.x)
        check_cotangents(self._spec, self._parts, d_outputs, d_final, time_steps)
        shape = (self._spec.num_layers, placed.x.shape[1], self._spec.hidden_size)
        initial = self._state(state, shape[1])
        if initial is None:
            initial = [self._zeros(shape) for _ in range(self._parts)]
        entered = self._enter(placed.x)
        if not entered.requires_grad:
            entered = entered.detach().requires_grad_()
        for part in initial:
            part.requires_grad_()
        outputs, final = self._run(entered, placed.lengths, initial)
        trained = self._trained()
        cotangents = [self._tensor(d) for d in (d_outputs, *d_final)]
        found = torch.autograd.grad(
            [outputs, *final],
            [entered, *initial, *trained.values()],
            cotangents,
            materialize_grads=True,
        )
        d_x, d_initial = found[0], found[1 : 1 + self._parts]
        d_trained = dict(zip(trained, found[1 + self._parts :], strict=True))
        return Gradients(
            self._canonical(d_trained, values=False),
            d_x.transpose(0, 1).cpu().numpy(),
            tuple(d.cpu().numpy() for d in d_initial),
        )

    def _loss(self, placed: PlacedBatch) -> Tensor:
        outputs, _ = self._run(self._enter(placed.x), placed.lengths, None)
        if self._spec.target is Target.CLASS:
            losses = nn.functional.cross_entropy(
                outputs.transpose(1, 2), placed.targets, reduction="none"
            )
        else:
            losses = ((outputs - placed.targets) ** 2).mean(dim=-1)
        return (losses * placed.weights).sum()

    def _backward(self, placed: PlacedBatch) -> Tensor:
        self._optimizer.zero_grad()
        loss = self._loss(placed)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return loss.detach()

    def _loss_and_gradients(
        self, placed: PlacedBatch
    ) -> tuple[Tensor, dict[str, Tensor | None]]:
        loss = self._backward(placed)
        return loss, {name: p.grad for name, p in self._trained().items()}

    def loss_and_gradients(self, placed: PlacedBatch) -> Handle[LossAndGradients]:
        """Compute the mean loss over scored positions and every weight's gradient."""
        loss, gradients = self._loss_and_gradients(placed)

        def read() -> LossAndGradients:
            return LossAndGradients(
                loss.item(), self._canonical(gradients, values=False)
            )

        return Handle(self._wait, read)

    # --- training --------------------------------------------------------------------

    def _update(self, placed: PlacedBatch) -> tuple[Tensor, Tensor]:
        """Take an update; return the loss before it, and the norm before clipping."""
        clip_norm = self._spec.optimizer.clip_norm
        loss = self._backward(placed)
        norm = nn.utils.clip_grad_norm_(
            list(self._trained().values()),
            float("inf") if clip_norm is None else clip_norm,
        )
        self._optimizer.step()
        return loss, norm

    def train_steps(self, placed: Sequence[PlacedBatch]) -> Handle[Updates]:
        """Take one optimiser update on each batch."""
        done = [self._update(batch) for batch in placed]
        losses, norms = zip(*done, strict=True)
        self._updates += len(placed)

        def read() -> Updates:
            return Updates(*(torch.stack(v).cpu().numpy() for v in (losses, norms)))

        return Handle(self._wait, read)

    def optimizer_state(self) -> dict[str, Array]:
        """Return `updates` and the moments of every tensor, in canonical layout."""
        if self._updates == 0:
            return {}
        arrays: dict[str, Array] = {"updates": np.asarray(self._updates, np.int64)}
        states = self._optimizer.state
        for name, key in self._moments.items():
            # A parameter that no gradient has reached has no moments in torch.
            moments = {
                n: states.get(p, {}).get(key) for n, p in self._trained().items()
            }
            for tensor, array in self._canonical(moments, values=False).items():
                arrays[f"{name}/{tensor}"] = array
        return arrays

    def load_optimizer_state(self, arrays: Mapping[str, Array]) -> None:
        """Take what `optimizer_state` returned."""
        self._optimizer.state.clear()
        self._updates = int(arrays.get("updates", 0))
        if self._updates == 0:
            return
        for name, key in self._moments.items():
            moments = {tensor: arrays[f"{name}/{tensor}"] for tensor in self._shapes}
            laid_out = self._layout.from_canonical(moments)
            for tensor, parameter in self._trained().items():
                state = self._optimizer.state[parameter]
                state["step"] = torch.tensor(float(self._updates))
                state[key] = self._tensor(laid_out[tensor]).clone()

    @property
    def _moments(self) -> dict[str, str]:
        """Canonical names of the optimiser's moments, and torch's."""
        if self._spec.optimizer.name == "sgd" and self._spec.optimizer.momentum == 0:
            return {}
        return _MOMENTS[self._spec.optimizer.name]

    # --- what ran --------------------------------------------------------------------

    def kernel(self) -> str:
        """Name the recurrent kernels of the calls last made, as the profiler sees them.

        They are the last one that computed gradients and the last one that did not:
        each is run once more, on what it was given. Where they differ both are named.
        """
        seen = {gradients: self._kernel(gradients) for gradients in self._asked}
        if not seen:
            return "nothing has run"
        if len(set(seen.values())) == 1:
            return next(iter(seen.values()))
        return f"{seen[False]}; with gradients {seen[True]}"

    def _kernel(self, gradients: bool) -> str:
        x, lengths, state = self._asked[gradients]
        # The graph of the call itself is gone: what entered is a leaf of its own.
        x = x.detach().requires_grad_(x.requires_grad)
        trained = list(self._trained().values())

        def forward() -> Tensor:
            return self._run(x, lengths, state)[0]

        def backward(outputs: Tensor) -> object:
            return torch.autograd.grad(outputs.sum(), trained, allow_unused=True)

        with torch.set_grad_enabled(gradients), self._marked():
            return kernel_of(forward, backward if gradients else None)

    @contextmanager
    def _marked(self) -> Iterator[None]:
        """Mark the calls of layers for the profiler."""
        for layer in self._layers:
            layer.marked = True
        try:
            yield
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


def _check_device(device: str) -> None:
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            "torch",
            f"torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices, "
            f"so {device} is not there",
        )
