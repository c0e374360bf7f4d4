"""torch's optimiser steps in numpy; every backend must take the same steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.contract import Optimizer, Weights
from implementations.shared import optimizers as shared


def global_norm(gradients: Weights) -> float:
    """Return the norm over all tensors together."""
    return float(np.sqrt(sum(np.vdot(g, g).real for g in gradients.values())))


def clip(gradients: Weights, clip_norm: float | None) -> tuple[Weights, float]:
    """Scale gradients to a global norm; return them with the norm before."""
    norm = global_norm(gradients)
    if clip_norm is None:
        return gradients, norm
    factor = min(1.0, clip_norm / (norm + shared.CLIP_EPSILON))
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
    # The root by numpy, so that a float32 step is rounded only at its end.
    first, second = 1 - optimizer.beta1**update, np.sqrt(1 - optimizer.beta2**update)
    for name, gradient in gradients.items():
        before = {moment: tensors[name] for moment, tensors in moments.items()}
        change, after = shared.step(optimizer, gradient, before, (first, second))
        weights[name] -= np.asarray(change, gradient.dtype)
        for moment, array in after.items():
            moments[moment][name] = array
