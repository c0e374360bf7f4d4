"""The optimiser steps every backend must take: torch's, written out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.contract import Array, Optimizer, Weights

CLIP_EPSILON = 1e-6
"""torch's `clip_grad_norm_` divides by the norm plus this."""


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
    optimizer: Optimizer, weights: Weights, gradients: Weights, state: dict[str, Array]
) -> None:
    """Take one step, changing `weights` and `state` in place.

    `state` holds `updates` and one array a tensor and moment, such as
    `first/layer0.w_hh`; it may be empty before the first step.
    """
    updates = int(state.get("updates", np.zeros((), np.int64))) + 1
    state["updates"] = np.asarray(updates, np.int64)
    take = _STEPS[optimizer.name]
    for name, gradient in gradients.items():
        weights[name] -= take(optimizer, gradient, state, name, updates)


def _moment(state: dict[str, Array], key: str, like: Array) -> Array:
    return state.setdefault(key, np.zeros_like(like))


def _adam(
    optimizer: Optimizer, g: Array, state: dict[str, Array], name: str, updates: int
) -> Array:
    """Kingma & Ba (2015), algorithm 1: bias correction first, then epsilon."""
    beta1, beta2 = optimizer.beta1, optimizer.beta2
    first = _moment(state, f"first/{name}", g)
    second = _moment(state, f"second/{name}", g)
    first += (1 - beta1) * (g - first)
    second += (1 - beta2) * (g * g - second)
    corrected = first / (1 - beta1**updates)
    root = np.sqrt(second) / np.sqrt(1 - beta2**updates)
    return np.asarray(
        optimizer.learning_rate * corrected / (root + optimizer.epsilon), g.dtype
    )


def _rmsprop(
    optimizer: Optimizer, g: Array, state: dict[str, Array], name: str, _: int
) -> Array:
    """Tieleman & Hinton (2012), uncentred; epsilon outside the root."""
    second = _moment(state, f"second/{name}", g)
    second += (1 - optimizer.decay) * (g * g - second)
    return np.asarray(
        optimizer.learning_rate * g / (np.sqrt(second) + optimizer.epsilon), g.dtype
    )


def _sgd(
    optimizer: Optimizer, g: Array, state: dict[str, Array], name: str, _: int
) -> Array:
    """Gradient descent with heavy-ball momentum, undamped."""
    if optimizer.momentum == 0:
        return np.asarray(optimizer.learning_rate * g, g.dtype)
    momentum = _moment(state, f"momentum/{name}", g)
    momentum *= optimizer.momentum
    momentum += g
    return np.asarray(optimizer.learning_rate * momentum, g.dtype)


_STEPS: dict[str, Callable[[Optimizer, Array, dict[str, Array], str, int], Array]] = {
    "adam": _adam,
    "rmsprop": _rmsprop,
    "sgd": _sgd,
}
