"""Copies of built-in implementations, each with one planted mistake."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
)

from harness import declare_implementation
from harness.contract import Handle, Updates
from implementations.cells.gru import GruResetBefore
from implementations.numpy_reference import optimizers
from implementations.numpy_reference.network import NumpyNetwork
from implementations.torch_backend import native
from implementations.torch_backend.network import TorchNetwork

for mistake, cells in {
    "gates-swapped": ["gru"],
    "reset-before": ["gru"],
    "truncated": ["rnn", "gru", "lstm"],
}.items():
    function = mistake.replace("-", "_")
    declare_implementation(
        f"torch-{mistake}",
        framework="torch",
        cells=cells,
        layer=f"sabotage:torch_{function}",
    )
    declare_implementation(
        f"numpy-{mistake}",
        framework="numpy",
        cells=cells,
        factory=f"sabotage:numpy_{function}",
    )

for framework in ("torch", "numpy"):
    declare_implementation(
        f"{framework}-clipped-per-tensor",
        framework=framework,
        cells=["gru"],
        factory=f"sabotage:{framework}_clipped_per_tensor",
    )

for mistake in (
    "bias-forgotten",
    "update-gate-negated",
    "wrong-bias-gradient",
    "loss-over-every-position",
    "epsilon-inside",
    "padding-leaks",
    "trains-nothing",
):
    function = mistake.replace("-", "_")
    declare_implementation(
        f"torch-{mistake}",
        framework="torch",
        cells=["gru"],
        factory=f"sabotage:torch_{function}",
    )

TRUNCATE_EVERY = 50
SWAPPED = [1, 0, 2]


# --- torch ---------------------------------------------------------------------------


class _SwappedGru(nn.GRU):
    """Exchanges the weights of the reset gate and the update gate."""

    def forward(self, x, state=None):
        plain = nn.GRU(self.input_size, self.hidden_size).to(self.weight_ih_l0)
        swapped = {
            name: parameter.reshape(3, self.hidden_size, -1)[SWAPPED].reshape(
                parameter.shape
            )
            for name, parameter in self.named_parameters()
        }
        return torch.func.functional_call(plain, swapped, (x, state))


def torch_gates_swapped(cell, input_size, hidden_size):
    return _SwappedGru(input_size, hidden_size)


class _ResetBeforeGru(nn.GRU):
    """Applies the reset gate before the recurrent product."""

    def forward(self, x, state=None):
        packed = isinstance(x, PackedSequence)
        lengths = None
        if packed:
            x, lengths = pad_packed_sequence(x)
        h = x.new_zeros(x.shape[1], self.hidden_size) if state is None else state[0]
        w, u = self.weight_ih_l0.chunk(3), self.weight_hh_l0.chunk(3)
        b, c = self.bias_ih_l0.chunk(3), self.bias_hh_l0.chunk(3)
        outputs = []
        for t, x_t in enumerate(x):
            r, z = (
                torch.sigmoid(x_t @ w[i].T + h @ u[i].T + b[i] + c[i]) for i in (0, 1)
            )
            n = torch.tanh(x_t @ w[2].T + b[2] + (r * h) @ u[2].T + c[2])
            new = z * h + (1 - z) * n
            h = new if lengths is None else torch.where((t < lengths)[:, None], new, h)
            outputs.append(h)
        y = torch.stack(outputs)
        if packed:
            y = pack_padded_sequence(y, lengths, enforce_sorted=False)
        return y, h[None]


def torch_reset_before(cell, input_size, hidden_size):
    return _ResetBeforeGru(input_size, hidden_size)


def torch_truncated(cell, input_size, hidden_size):
    """Cuts the gradient through time every `TRUNCATE_EVERY` time steps."""
    stock = type(native.layer(cell, 1, 1))

    class Truncated(stock):
        def forward(self, x, state=None):
            if isinstance(x, PackedSequence):
                return super().forward(x, state)
            outputs = []
            for chunk in x.split(TRUNCATE_EVERY):
                y, state = super().forward(chunk, state)
                outputs.append(y)
                last = state
                state = (
                    tuple(part.detach() for part in state)
                    if isinstance(state, tuple)
                    else state.detach()
                )
            return torch.cat(outputs), last

    return Truncated(input_size, hidden_size)


def torch_clipped_per_tensor(spec, cell, device):
    """Clips the norm of each tensor by itself."""

    class PerTensor(TorchNetwork):
        def train_steps(self, placed):
            clip = torch.nn.utils.clip_grad_norm_

            def per_tensor(parameters, max_norm):
                total = clip(parameters, float("inf"))
                for parameter in parameters:
                    clip([parameter], max_norm)
                return total

            with mock.patch.object(torch.nn.utils, "clip_grad_norm_", per_tensor):
                return super().train_steps(placed)

    return PerTensor(spec, cell, device, native.layer)


def _of_changed_parameters(spec, cell, device, change):
    """Build a network whose layers compute with changed parameters."""

    class Changed(nn.GRU):
        def forward(self, x, state=None):
            plain = nn.GRU(self.input_size, self.hidden_size).to(self.weight_ih_l0)
            changed = {n: change(n, p) for n, p in self.named_parameters()}
            return torch.func.functional_call(plain, changed, (x, state))

    return TorchNetwork(spec, cell, device, lambda _, i, h: Changed(i, h))


def torch_bias_forgotten(spec, cell, device):
    """Leaves out the bias inside the reset product."""

    def change(name, parameter):
        return parameter * 0 if name == "bias_hh_l0" else parameter

    return _of_changed_parameters(spec, cell, device, change)


def torch_update_gate_negated(spec, cell, device):
    """Uses z in place of 1 - z."""

    def change(name, parameter):
        r, z, n = parameter.chunk(3)
        return torch.cat([r, -z, n])

    return _of_changed_parameters(spec, cell, device, change)


class _HalfGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, bias):
        return bias.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient / 2


def torch_wrong_bias_gradient(spec, cell, device):
    """Computes the right outputs and half the gradient of a bias."""

    def change(name, parameter):
        return _HalfGradient.apply(parameter) if name == "bias_ih_l0" else parameter

    return _of_changed_parameters(spec, cell, device, change)


def torch_loss_over_every_position(spec, cell, device):
    """Averages the loss also over positions that are not scored."""

    class EveryPosition(TorchNetwork):
        def place(self, batch):
            scored = np.ones_like(batch.scored)
            return super().place(replace(batch, scored=scored))

    return EveryPosition(spec, cell, device, native.layer)


def torch_epsilon_inside(spec, cell, device):
    """Adds RMSprop's epsilon inside the root, as Keras does."""

    network = TorchNetwork(spec, cell, device, native.layer)
    if spec.optimizer.name == "rmsprop":
        network._optimizer = _RmspropInside(
            list(network._trained().values()), spec.optimizer
        )
    return network


class _RmspropInside(torch.optim.RMSprop):
    def __init__(self, parameters, constants):
        super().__init__(
            parameters, constants.learning_rate, constants.decay, constants.epsilon
        )

    @torch.no_grad()
    def step(self):
        (group,) = self.param_groups
        for parameter in group["params"]:
            g = parameter.grad
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["square_avg"] = torch.zeros_like(parameter)
            square = state["square_avg"]
            square.mul_(group["alpha"]).addcmul_(g, g, value=1 - group["alpha"])
            parameter -= group["lr"] * g / (square + group["eps"]).sqrt()


def torch_padding_leaks(spec, cell, device):
    """Continues every sequence beyond its end."""

    class Leaks(TorchNetwork):
        def place(self, batch):
            return super().place(batch)._replace(padding=None)

    return Leaks(spec, cell, device, native.layer)


def torch_trains_nothing(spec, cell, device):
    """Returns from an update without computing it, as if a timed call did nothing."""

    class Nothing(TorchNetwork):
        def train_steps(self, placed):
            with torch.no_grad():
                losses = [self._loss(batch) for batch in placed]
            found = Updates(
                torch.stack(losses).numpy(), np.ones(len(placed), np.float32)
            )
            return Handle(lambda: None, lambda: found)

    return Nothing(spec, cell, device, native.layer)


# --- numpy ---------------------------------------------------------------------------


class _BrokenCell:
    """A cell that passes every call on; each mistake overrides one method."""

    def __init__(self, cell):
        self.cell = cell

    def __getattr__(self, name):
        return getattr(self.cell, name)


class _SwappedCell(_BrokenCell):
    def step(self, weights, x, state):
        swapped = {n: w[SWAPPED] if w.ndim > 1 else w for n, w in weights.items()}
        return self.cell.step(swapped, x, state)


def numpy_gates_swapped(spec, cell, device):
    return NumpyNetwork(spec, _SwappedCell(cell), device)


class _ResetBeforeCell(_BrokenCell):
    def step(self, weights, x, state):
        return GruResetBefore().step(self._without(weights), x, state)

    def step_backward(self, weights, saved, d_state):
        d_weights, d_x, before = GruResetBefore().step_backward(
            self._without(weights), saved, d_state
        )
        return {**d_weights, "b_hn": np.zeros_like(weights["b_hn"])}, d_x, before

    def _without(self, weights):
        return {name: w for name, w in weights.items() if name != "b_hn"}


def numpy_reset_before(spec, cell, device):
    return NumpyNetwork(spec, _ResetBeforeCell(cell), device)


class _TruncatedCell(_BrokenCell):
    count = 0

    def step(self, weights, x, state):
        cut = self.count > 0 and self.count % TRUNCATE_EVERY == 0
        self.count += 1
        state, saved = self.cell.step(weights, x, state)
        return state, (cut, saved)

    def step_backward(self, weights, saved, d_state):
        cut, saved = saved
        d_weights, d_x, before = self.cell.step_backward(weights, saved, d_state)
        if cut:
            before = tuple(np.zeros_like(part) for part in before)
        return d_weights, d_x, before


def numpy_truncated(spec, cell, device):
    return NumpyNetwork(spec, _TruncatedCell(cell), device)


def numpy_clipped_per_tensor(spec, cell, device):
    class PerTensor(NumpyNetwork):
        def train_steps(self, placed):
            clip = optimizers.clip

            def per_tensor(gradients, clip_norm):
                parts = [clip({n: g}, clip_norm)[0] for n, g in gradients.items()]
                clipped = {n: g for part in parts for n, g in part.items()}
                return clipped, optimizers.global_norm(gradients)

            with mock.patch.object(optimizers, "clip", per_tensor):
                return super().train_steps(placed)

    return PerTensor(spec, cell, device)
