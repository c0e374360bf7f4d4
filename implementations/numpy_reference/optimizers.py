"""torch's optimiser steps, written out; every backend must take the same steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.contract import Array, Optimizer, Weights
from implementations.shared.optimizers import CLIP_EPSILON


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
        gradients: The gradients after clipping.
        moments: The tensors of each moment that `shared.optimizers.moments` names, zero
            before the first step.
        update: The step's number, counted from 1.
    """
    for name, gradient in gradients.items():
        own = {moment: tensors[name] for moment, tensors in moments.items()}
        change = _change(optimizer, gradient, own, update)
        weights[name] -= np.asarray(change, gradient.dtype)


def _change(
    optimizer: Optimizer, g: Array, moments: Mapping[str, Array], update: int
) -> Array:
    """Return the change to subtract from a tensor, and change its moments in place."""
    rate, epsilon = optimizer.learning_rate, optimizer.epsilon
    match optimizer.name:
        case "adam":
            # Kingma & Ba (2015), algorithm 1: bias correction first, then epsilon.
            beta1, beta2 = optimizer.beta1, optimizer.beta2
            first, second = moments["first"], moments["second"]
            first += (1 - beta1) * (g - first)
            second += (1 - beta2) * (g * g - second)
            corrected = first / (1 - beta1**update)
            root: Array = np.sqrt(second) / np.sqrt(1 - beta2**update)
            return rate * corrected / (root + epsilon)
        case "rmsprop":
            # Tieleman & Hinton (2012), uncentred; epsilon outside the root.
            second = moments["second"]
            second += (1 - optimizer.decay) * (g * g - second)
            return rate * g / (np.asarray(np.sqrt(second)) + epsilon)
        case "sgd":
            # Gradient descent with heavy-ball momentum, undamped.
            if optimizer.momentum == 0:
                return rate * g
            momentum = moments["momentum"]
            momentum *= optimizer.momentum
            momentum += g
            return rate * momentum
