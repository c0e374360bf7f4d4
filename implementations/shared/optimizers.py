"""torch's optimiser steps, for the frameworks whose own are different ones.

Written with operators alone, so that arrays of any framework can take them. Keras adds
epsilon before Adam's bias correction and, in RMSprop, inside the root.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contract import Optimizer, Tensor

CLIP_EPSILON = 1e-6
"""torch's `clip_grad_norm_` divides by the norm plus this."""


def moments(optimizer: Optimizer) -> tuple[str, ...]:
    """Return the names of the moments an optimiser keeps of every tensor."""
    match optimizer.name:
        case "adam":
            return ("first", "second")
        case "rmsprop":
            return ("second",)
        case "sgd":
            return ("momentum",) if optimizer.momentum else ()


def corrections(optimizer: Optimizer, update: int) -> tuple[float, float]:
    """Return Adam's bias corrections of an update, counted from 1.

    They are computed on the host: in float32 1 - 0.999 has lost four digits.
    """
    return 1 - optimizer.beta1**update, (1 - optimizer.beta2**update) ** 0.5


def step(
    optimizer: Optimizer,
    gradient: Tensor,
    before: Mapping[str, Tensor],
    corrections: tuple[Any, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what to subtract from a tensor, and its moments afterwards.

    Args:
        optimizer: The optimiser with its constants.
        gradient: After clipping.
        before: The moments by name, zero before the first step.
        corrections: What `corrections` returned for this update.
    """
    match optimizer.name:
        case "adam":
            return _adam(optimizer, gradient, before, corrections)
        case "rmsprop":
            return _rmsprop(optimizer, gradient, before)
        case "sgd":
            return _sgd(optimizer, gradient, before)


def _adam(
    optimizer: Optimizer,
    g: Tensor,
    before: Mapping[str, Tensor],
    corrections: tuple[Any, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Kingma & Ba (2015), algorithm 1: bias correction first, then epsilon."""
    first = before["first"] + (1 - optimizer.beta1) * (g - before["first"])
    second = before["second"] + (1 - optimizer.beta2) * (g * g - before["second"])
    root = second**0.5 / corrections[1] + optimizer.epsilon
    change = optimizer.learning_rate * (first / corrections[0]) / root
    return change, {"first": first, "second": second}


def _rmsprop(
    optimizer: Optimizer, g: Tensor, before: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Tieleman & Hinton (2012), uncentred; epsilon outside the root."""
    second = before["second"] + (1 - optimizer.decay) * (g * g - before["second"])
    change = optimizer.learning_rate * g / (second**0.5 + optimizer.epsilon)
    return change, {"second": second}


def _sgd(
    optimizer: Optimizer, g: Tensor, before: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradient descent with heavy-ball momentum, undamped."""
    if not optimizer.momentum:
        return optimizer.learning_rate * g, {}
    momentum = optimizer.momentum * before["momentum"] + g
    return optimizer.learning_rate * momentum, {"momentum": momentum}
