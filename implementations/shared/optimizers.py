"""torch's optimiser steps, for frameworks whose own optimisers take other steps.

They are written with operators alone, so that they work on arrays of any framework.
Keras adds epsilon before Adam's bias correction and, in RMSprop, inside the root.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contract import Optimizer, Tensor

CLIP_EPSILON = 1e-6
"""torch's `clip_grad_norm_` divides by the norm plus this."""


def moments(optimizer: Optimizer) -> tuple[str, ...]:
    """Return the names of the moments an optimiser keeps of every tensor."""
    of_sgd = ("momentum",) if optimizer.momentum else ()
    kept = {"adam": ("first", "second"), "rmsprop": ("second",), "sgd": of_sgd}
    return kept[optimizer.name]


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
    """Return the change to subtract from a tensor, and its moments afterwards.

    Args:
        optimizer: The optimiser with its constants.
        gradient: The gradient after clipping.
        before: The moments by name, zero before the first step.
        corrections: What `corrections` returned for this update.
    """
    rate, epsilon, g = optimizer.learning_rate, optimizer.epsilon, gradient
    match optimizer.name:
        case "adam":
            # Kingma & Ba (2015), algorithm 1: bias correction first, then epsilon.
            first = before["first"] + (1 - optimizer.beta1) * (g - before["first"])
            old = before["second"]
            second = old + (1 - optimizer.beta2) * (g * g - old)
            root = second**0.5 / corrections[1] + epsilon
            change = rate * (first / corrections[0]) / root
            return change, {"first": first, "second": second}
        case "rmsprop":
            # Tieleman & Hinton (2012), uncentred; epsilon outside the root.
            old = before["second"]
            second = old + (1 - optimizer.decay) * (g * g - old)
            return rate * g / (second**0.5 + epsilon), {"second": second}
        case "sgd":
            # Gradient descent with heavy-ball momentum, undamped.
            if not optimizer.momentum:
                return rate * g, {}
            momentum = optimizer.momentum * before["momentum"] + g
            return rate * momentum, {"momentum": momentum}
