"""What every torch implementation shares: readout, loss, optimiser, conversion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.conformance import check_call
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
from harness.errors import PluginError, UnavailableError
from implementations.shared.batches import (
    check_cotangents,
    check_state,
    check_step,
    check_weights,
    encode,
    host_batch,
)
from implementations.shared.layout import NetworkLayout, TorchLayout, layout_of
from implementations.torch_backend.kernel import kernel_of
from implementations.torch_backend.precision import Precision

LayerFactory = Callable[[str, int, int], nn.Module]


@dataclass(frozen=True)
class PlacedBatch:
    """A batch on the device with time first; `lengths` is None where none is padded."""

    x: Tensor
    lengths: Tensor | None
    targets: Tensor
    weights: Tensor
    """[batch, readouts]: 1 / (number of scored positions) where scored, else 0."""


class TorchNetwork:
    """Stacked layers with a linear readout.

    Args:
        spec: Sizes, readout, loss, optimiser.
        cell: Names the canonical tensors and the state parts.
        device: `cpu`, `cuda` or `cuda:N`.
        layer: Called with (cell, input_size, hidden_size); returns a module that is
            called as `nn.GRU`: (x [time, batch, input], state) to (outputs, state),
            where a state of two parts is a tuple. Its parameters are the canonical
            ones or `nn.GRU`'s.

    Raises:
        UnavailableError: If torch sees no such device, or has no kernel for the
            precision there.
        RefusedError: If the precision means nothing for the device or dtype.
        PluginError: If the layer's parameters are laid out otherwise.
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
        self._layers = [
            _checked(layer(spec.cell, width, hidden_size)).to(self._device, self._dtype)
            for width in widths
        ]
        self._precision.check(self._layers)
        layouts = [
            layout_of(
                {n: tuple(p.shape) for n, p in module.named_parameters()},
                TorchLayout,
                cell,
                width,
                hidden_size,
                type(module).__name__,
            )
            for module, width in zip(self._layers, widths, strict=True)
        ]
        self._layout = NetworkLayout(self._shapes, layouts)
        self._outside = {
            name: nn.Parameter(self._zeros(shape))
            for name, shape in self._layout.outside.items()
        }
        if spec.biases == "canonical":
            self._freeze_redundant_biases()
        self._optimizer = _optimizer(spec.optimizer, list(self._trained().values()))
        self._updates = 0

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
            for i, module in enumerate(self._layers)
            for name, parameter in module.named_parameters()
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
        check_weights(self._shapes, weights)
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

    def step(self, x: Array, state: State) -> Handle[Forward]:
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

        return Handle(self._wait, read)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _enter(self, x: Tensor) -> Tensor:
        if self._spec.inputs.embedded:
            return nn.functional.embedding(x, self._outside["embedding"])
        return x

    def _state(self, state: State | None, batch: int) -> list[Tensor] | None:
        if state is None:
            return None
        check_state(self._spec, self._parts, state, batch)
        return [self._tensor(part) for part in state]

    def _run(
        self, x: Tensor, lengths: Tensor | None, state: list[Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run every layer and the readout over x [time, batch, input].

        The state is one tensor [layers, batch, hidden] a part. What comes out is in the
        network's dtype, whatever it was computed in.
        """
        self._precision.set()
        with self._precision.forward():
            outputs, final = self._run_layers(x, lengths, state)
        return outputs.to(self._dtype), [part.to(self._dtype) for part in final]

    def _run_layers(
        self, x: Tensor, lengths: Tensor | None, state: list[Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        time_steps, finals = len(x), []
        for i, module in enumerate(self._layers):
            before = None if state is None else [part[i : i + 1] for part in state]
            x, final = self._run_layer(module, x, lengths, before)
            finals.append(final)
        last = self._spec.readout is Readout.LAST or time_steps == 1
        top = finals[-1][0][0][:, None] if last else x.transpose(0, 1)
        outputs = nn.functional.linear(
            top, self._outside["readout.w"], self._outside["readout.b"]
        )
        return outputs, [torch.cat(parts) for parts in zip(*finals, strict=True)]

    def _run_layer(
        self,
        module: nn.Module,
        x: Tensor,
        lengths: Tensor | None,
        state: list[Tensor] | None,
    ) -> tuple[Tensor, list[Tensor]]:
        if lengths is None:
            return self._call(module, x, state)
        if not isinstance(module, nn.RNNBase):
            return self._run_in_segments(module, x, lengths, state)
        rnn = nn.utils.rnn
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        outputs, final = self._call(module, packed, state)
        outputs, _ = rnn.pad_packed_sequence(outputs, total_length=len(x))
        return outputs, final

    def _call(
        self, module: nn.Module, x: Any, state: list[Tensor] | None
    ) -> tuple[Any, list[Tensor]]:
        argument = None
        if state is not None:
            argument = state[0] if self._parts == 1 else tuple(state)
        outputs, final = _pair(module(x, argument))
        return outputs, [final] if self._parts == 1 else list(final)

    def _run_in_segments(
        self,
        module: nn.Module,
        x: Tensor,
        lengths: Tensor,
        state: list[Tensor] | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run a layer that knows no padding: from end to end of a sequence.

        Between two ends the sequences that have not ended run alone, from the states
        they had. A sequence that has ended holds its state and answers zero.
        """
        size = (1, x.shape[1], self._spec.hidden_size)
        final = state or [x.new_zeros(size) for _ in range(self._parts)]
        outputs = x.new_zeros(len(x), x.shape[1], self._spec.hidden_size)
        start = 0
        for end in sorted(set(lengths.tolist())):
            (running,) = torch.nonzero(lengths > start, as_tuple=True)
            running = running.to(x.device)
            before = [part.index_select(1, running) for part in final]
            segment = x[start:end].index_select(1, running)
            answered, after = self._call(module, segment, before)
            padding = (0, 0, 0, 0, start, len(x) - end)
            in_time = nn.functional.pad(answered, padding).to(outputs.dtype)
            outputs = outputs.index_add(1, running, in_time)
            final = [
                part.index_copy(1, running, new.to(part.dtype))
                for part, new in zip(final, after, strict=True)
            ]
            start = end
        return outputs, final

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

    def loss_and_gradients(self, placed: PlacedBatch) -> Handle[LossAndGradients]:
        """Compute the mean loss over scored positions and every weight's gradient."""
        loss = self._backward(placed)
        gradients = {name: p.grad for name, p in self._trained().items()}

        def read() -> LossAndGradients:
            return LossAndGradients(
                loss.item(), self._canonical(gradients, values=False)
            )

        return Handle(self._wait, read)

    # --- training --------------------------------------------------------------------

    def train_steps(self, placed: Sequence[PlacedBatch]) -> Handle[Updates]:
        """Take one optimiser update on each batch."""
        clip_norm = self._spec.optimizer.clip_norm
        trained = list(self._trained().values())
        losses, norms = [], []
        for batch in placed:
            losses.append(self._backward(batch))
            norms.append(
                nn.utils.clip_grad_norm_(
                    trained, float("inf") if clip_norm is None else clip_norm
                )
            )
            self._optimizer.step()
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
            moments = {n: states[p][key] for n, p in self._trained().items()}
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

    def kernel(self) -> str:
        """Name the recurrent kernel that the profiler saw in a training pass."""
        x = self._zeros((4, 2, self._spec.input_size))
        trained = list(self._trained().values())

        def forward() -> Tensor:
            return self._run(x, None, None)[0]

        def backward(outputs: Tensor) -> object:
            return torch.autograd.grad(outputs.sum(), trained, allow_unused=True)

        return kernel_of(forward, backward, len(self._layers), self._device)


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


def _checked(layer: object) -> nn.Module:
    if not isinstance(layer, nn.Module):
        raise PluginError(
            "layer",
            f"returned {type(layer).__name__}; expected a torch.nn.Module that is "
            "called and laid out as nn.GRU",
        )
    name = type(layer).__name__
    if isinstance(layer, nn.RNNBase):
        for refused, words in (
            (layer.bidirectional, "is bidirectional; networks run forward in time"),
            (layer.num_layers != 1, "stacks layers; each layer is asked for by itself"),
            (layer.batch_first, "takes the batch first; expected [time, batch, input]"),
            (layer.proj_size, "projects its state; expected none, proj_size=0"),
        ):
            if refused:
                raise PluginError(name, words)
    check_call(layer.forward, ("x", "state"), name, by_place=True)
    return layer


def _pair(found: object) -> tuple[Any, Any]:
    if not isinstance(found, tuple) or len(found) != 2:
        raise PluginError(
            "layer",
            f"answered {type(found).__name__}; expected (outputs, state), as nn.GRU",
        )
    return found


def _check_device(device: str) -> None:
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            "torch",
            f"torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices, "
            f"so {device} is not there",
        )
