"""Implementations with mistakes that look like another one at some shapes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from harness import declare_implementation
from harness.contract import Handle, Target
from implementations.numpy_reference.network import NumpyNetwork
from implementations.torch_backend.network import TorchNetwork

for mistake in (
    "bias-over-batch",
    "bias-over-time",
    "bias-scaled-when-long",
    "loss-gradient-over-batch",
    "loss-summed-of-classes",
    "cut-40-before-the-end",
    "cut-60-before-the-end",
    "cut-at-60",
    "state-ignored-when-padded",
    "state-ignored-in-stacks",
    "gradient-missing-when-padded",
):
    declare_implementation(
        f"torch-{mistake}",
        framework="torch",
        cells=["lstm"],
        factory=f"seems_known:{mistake.replace('-', '_')}",
    )
for mistake in (
    "beta2-is-099",
    "beta2-is-0995",
    "rate-is-000101",
    "rate-is-capped",
    "rate-is-floored",
    "hardly-any-epsilon",
):
    declare_implementation(
        f"numpy-{mistake}",
        framework="numpy",
        cells=["rnn"],
        factory=f"seems_known:{mistake.replace('-', '_')}",
    )


class _Layer(nn.LSTM):
    pass


def _torch(spec, cell, device, network=TorchNetwork, layer=_Layer):
    return network(spec, cell, device, lambda _, i, h: layer(i, h))


# --- factors -------------------------------------------------------------------------


def _multiplied(factor, *, of_bias=True):
    """Return a factory; `factor(time_steps, batch)` multiplies some gradients."""

    def changed(weights, placed):
        by = factor(*placed.x.shape[:2])
        return {
            n: by * w
            if (n.startswith("layer") and n.endswith(".b")) or not of_bias
            else w
            for n, w in weights.items()
        }

    class Multiplied(TorchNetwork):
        def vjp(self, placed, state, d_outputs, d_final):
            found = super().vjp(placed, state, d_outputs, d_final)
            if not of_bias:
                return found
            return replace(found, weights=changed(found.weights, placed))

        def loss_and_gradients(self, placed):
            handle = super().loss_and_gradients(placed)

            def read():
                found = handle.read()
                return replace(found, gradients=changed(found.gradients, placed))

            return Handle(handle.wait, read)

    return lambda spec, cell, device: _torch(spec, cell, device, Multiplied)


bias_over_batch = _multiplied(lambda time_steps, batch: 1 / batch)
bias_over_time = _multiplied(lambda time_steps, batch: 1 / time_steps)
bias_scaled_when_long = _multiplied(lambda time_steps, batch: 0.5 + (time_steps < 50))
loss_gradient_over_batch = _multiplied(
    lambda time_steps, batch: 1 / batch, of_bias=False
)


def _loss_multiplied(factor):
    """Return a factory; `factor(target, placed)` multiplies the loss."""

    def factory(spec, cell, device):
        class Multiplied(TorchNetwork):
            def _loss(self, placed):
                return super()._loss(placed) * factor(spec.target, placed)

        return _torch(spec, cell, device, Multiplied)

    return factory


loss_summed_of_classes = _loss_multiplied(
    lambda target, placed: (
        int((placed.weights > 0).sum()) if target is Target.CLASS else 1
    )
)


# --- time ----------------------------------------------------------------------------


def _cut(at):
    """Return a factory of LSTMs whose gradient is cut at `at(time_steps)`."""

    class Layer(nn.LSTM):
        def forward(self, x, state=None):
            if isinstance(x, PackedSequence) or not 0 < at(len(x)) < len(x):
                return super().forward(x, state)
            first, state = super().forward(x[: at(len(x))], state)
            detached = tuple(part.detach() for part in state)
            second, state = super().forward(x[at(len(x)) :], detached)
            return torch.cat([first, second]), state

    return lambda spec, cell, device: _torch(spec, cell, device, layer=Layer)


cut_40_before_the_end = _cut(lambda time_steps: time_steps - 40)
cut_60_before_the_end = _cut(lambda time_steps: time_steps - 60)
cut_at_60 = _cut(lambda time_steps: 60)


# --- states --------------------------------------------------------------------------


def state_ignored_when_padded(spec, cell, device):
    class Layer(nn.LSTM):
        def forward(self, x, state=None):
            return super().forward(x, None if isinstance(x, PackedSequence) else state)

    return _torch(spec, cell, device, layer=Layer)


def state_ignored_in_stacks(spec, cell, device):
    class Layer(nn.LSTM):
        def forward(self, x, state=None):
            return super().forward(x, None if spec.num_layers > 1 else state)

    return _torch(spec, cell, device, layer=Layer)


def gradient_missing_when_padded(spec, cell, device):
    class Layer(nn.LSTM):
        def forward(self, x, state=None):
            if isinstance(x, PackedSequence) and state is not None:
                state = tuple(0 * part + part.detach() for part in state)
            return super().forward(x, state)

    return _torch(spec, cell, device, layer=Layer)


# --- optimisers ----------------------------------------------------------------------


def _with_constant(name, taken):
    """Return a factory; `taken(asked)` is the constant that the optimiser uses."""

    def factory(spec, cell, device):
        constant = taken(getattr(spec.optimizer, name))
        optimizer = replace(spec.optimizer, **{name: constant})
        return NumpyNetwork(replace(spec, optimizer=optimizer), cell, device)

    return factory


beta2_is_099 = _with_constant("beta2", lambda asked: 0.99)
beta2_is_0995 = _with_constant("beta2", lambda asked: 0.995)
rate_is_000101 = _with_constant("learning_rate", lambda asked: 1.01e-3)
rate_is_capped = _with_constant("learning_rate", lambda asked: min(asked, 1e-3))
rate_is_floored = _with_constant("learning_rate", lambda asked: max(asked, 1e-2))
hardly_any_epsilon = _with_constant("epsilon", lambda asked: 1e-12)
