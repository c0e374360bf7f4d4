"""The optimiser steps every backend must take: torch's, written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from harness.contract import Array, Optimizer, Weights
from implementations.shared.optimizers import CLIP_EPSILON

Moments = Mapping[str, Array]
"""What an optimiser keeps of one tensor by name; changed in place."""


def global_norm(gradients: Weights) -> float:
    """Return the norm over all tensors together."""
    return float(np.sqrt(sum(np.vdot(g, g).real for g in gradients.values())))


def clip(gradients: Weights, clip_norm: float | None) -> tuple[Weights, float]:
    """Scale gradients to a global norm; return them with the norm before."""
    norm = global_norm(gradients)
    if clip_norm is None:
        return gradients, norm
    factor = min(1.0, clip_norm / (norm + CLIP_EPSILON))
    return {name: g * g.dtype.type(factor) for name, g in gradients.items()}, norm


def step(
    optimizer: Optimizer,
    weights: Weights,
    gradients: Weights,
    moments: Mapping[str, Weights],
    update: int,
) -> None:
    """Take one step, changing `weights` and `moments` in place.

    Args:
        optimizer: The optimiser with its constants.
        weights: Every tensor by name.
        gradients: After clipping.
        moments: The tensors of each moment that `shared.optimizers.moments` names, zero
            before the first step.
        update: The step's number, counted from 1.
    """
    take = _STEPS[optimizer.name]
    for name, gradient in gradients.items():
        own = {moment: tensors[name] for moment, tensors in moments.items()}
        change = take(optimizer, gradient, own, update)
        weights[name] -= np.asarray(change, gradient.dtype)


def _adam(optimizer: Optimizer, g: Array, moments: Moments, update: int) -> Array:
    """Kingma & Ba (2015), algorithm 1: bias correction first, then epsilon."""
    beta1, beta2 = optimizer.beta1, optimizer.beta2
    first, second = moments["first"], moments["second"]
    first += (1 - beta1) * (g - first)
    second += (1 - beta2) * (g * g - second)
    corrected = first / (1 - beta1**update)
    root: Array = np.sqrt(second) / np.sqrt(1 - beta2**update)
    return optimizer.learning_rate * corrected / (root + optimizer.epsilon)


def _rmsprop(optimizer: Optimizer, g: Array, moments: Moments, update: int) -> Array:
    """Tieleman & Hinton (2012), uncentred; epsilon outside the root."""
    second = moments["second"]
    second += (1 - optimizer.decay) * (g * g - second)
    root: Array = np.sqrt(second)
    return optimizer.learning_rate * g / (root + optimizer.epsilon)


def _sgd(optimizer: Optimizer, g: Array, moments: Moments, update: int) -> Array:
    """Gradient descent with heavy-ball momentum, undamped."""
    if optimizer.momentum == 0:
        return optimizer.learning_rate * g
    momentum = moments["momentum"]
    momentum *= optimizer.momentum
    momentum += g
    return optimizer.learning_rate * momentum


_STEPS: dict[str, Callable[[Optimizer, Array, Moments, int], Array]] = {
    "adam": _adam,
    "rmsprop": _rmsprop,
    "sgd": _sgd,
}
