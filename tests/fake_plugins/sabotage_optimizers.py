"""Copies of built-in implementations with one planted mistake in the optimiser."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import torch

from harness import declare_implementation
from implementations.numpy_reference import optimizers
from implementations.numpy_reference.network import NumpyNetwork
from implementations.torch_backend import native
from implementations.torch_backend.network import TorchNetwork

for mistake in (
    "always-rescaled",
    "fixed-learning-rate",
    "fixed-betas",
    "fixed-decay",
    "fixed-momentum",
):
    for framework in ("numpy", "torch"):
        declare_implementation(
            f"{framework}-{mistake}",
            framework=framework,
            cells=["rnn"],
            factory=f"sabotage_optimizers:{framework}_{mistake.replace('-', '_')}",
        )


def _torch(spec, cell, device):
    return TorchNetwork(spec, cell, device, native.layer)


def _with_constants(network, **constants):
    """Build a network whose optimiser has other constants."""

    def factory(spec, cell, device):
        optimizer = replace(spec.optimizer, **constants)
        return network(replace(spec, optimizer=optimizer), cell, device)

    return factory


numpy_fixed_learning_rate = _with_constants(NumpyNetwork, learning_rate=1e-3)
torch_fixed_learning_rate = _with_constants(_torch, learning_rate=1e-3)
numpy_fixed_betas = _with_constants(NumpyNetwork, beta1=0.9, beta2=0.999)
torch_fixed_betas = _with_constants(_torch, beta1=0.9, beta2=0.999)
numpy_fixed_decay = _with_constants(NumpyNetwork, decay=0.99)
torch_fixed_decay = _with_constants(_torch, decay=0.99)
numpy_fixed_momentum = _with_constants(NumpyNetwork, momentum=0.9)
torch_fixed_momentum = _with_constants(_torch, momentum=0.9)


class _NumpyRescaled(NumpyNetwork):
    """Scales every gradient to the clip norm, a smaller one too."""

    def train_steps(self, placed):
        def rescale(gradients, clip_norm):
            norm = optimizers.global_norm(gradients)
            if clip_norm is None:
                return gradients, norm
            factor = clip_norm / (norm + 1e-6)
            return {n: g * g.dtype.type(factor) for n, g in gradients.items()}, norm

        with mock.patch.object(optimizers, "clip", rescale):
            return super().train_steps(placed)


def numpy_always_rescaled(spec, cell, device):
    return _NumpyRescaled(spec, cell, device)


class _TorchRescaled(TorchNetwork):
    """Scales every gradient to the clip norm, a smaller one too."""

    def train_steps(self, placed):
        clip = torch.nn.utils.clip_grad_norm_

        def rescale(parameters, max_norm):
            norm = clip(parameters, float("inf"))
            if max_norm != float("inf"):
                for parameter in parameters:
                    parameter.grad *= max_norm / (norm + 1e-6)
            return norm

        with mock.patch.object(torch.nn.utils, "clip_grad_norm_", rescale):
            return super().train_steps(placed)


def torch_always_rescaled(spec, cell, device):
    return _TorchRescaled(spec, cell, device, native.layer)


class _MomentsNotLoaded(TorchNetwork):
    """Stores loaded moments and returns them, but does not use them."""

    kept = None

    def load_weights(self, weights):
        self.kept = None
        super().load_weights(weights)

    def train_steps(self, placed):
        self.kept = None
        return super().train_steps(placed)

    def optimizer_state(self):
        return super().optimizer_state() if self.kept is None else self.kept

    def load_optimizer_state(self, arrays):
        self.kept = dict(arrays)


class _MomentsReset(TorchNetwork):
    """Resets the moments between two calls, but not the number of updates."""

    def train_steps(self, placed):
        state = self.optimizer_state()
        zero = {n: a if n == "updates" else a * 0 for n, a in state.items()}
        self.load_optimizer_state(zero)
        return super().train_steps(placed)


def torch_moments_not_loaded(spec, cell, device):
    return _MomentsNotLoaded(spec, cell, device, native.layer)


def torch_moments_reset(spec, cell, device):
    return _MomentsReset(spec, cell, device, native.layer)


def torch_capped_learning_rate(spec, cell, device):
    rate = min(spec.optimizer.learning_rate, 4e-3)
    return _with_constants(_torch, learning_rate=rate)(spec, cell, device)


def torch_floored_epsilon(spec, cell, device):
    epsilon = max(spec.optimizer.epsilon, 1e-3)
    return _with_constants(_torch, epsilon=epsilon)(spec, cell, device)


def torch_loose_clip_ignored(spec, cell, device):
    clip_norm = spec.optimizer.clip_norm
    if clip_norm is not None and clip_norm >= 1:
        clip_norm = None
    return _with_constants(_torch, clip_norm=clip_norm)(spec, cell, device)


for mistake in (
    "moments-not-loaded",
    "moments-reset",
    "capped-learning-rate",
    "floored-epsilon",
    "loose-clip-ignored",
):
    declare_implementation(
        f"torch-{mistake}",
        framework="torch",
        cells=["rnn", "gru", "lstm"],
        factory=f"sabotage_optimizers:torch_{mistake.replace('-', '_')}",
    )
