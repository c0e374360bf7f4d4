"""Copies of built-in implementations whose optimiser has one mistake planted in it."""

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
    """Build a network whose optimiser has constants of its own."""

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
