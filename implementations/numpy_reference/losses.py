"""Mean losses over scored positions, with their gradients."""

from __future__ import annotations

import numpy as np

from harness.contract import Array, Target


def loss_and_gradient(
    target: Target, outputs: Array, targets: Array, scored: Array
) -> tuple[float, Array]:
    """Return the mean loss over scored positions and its gradient for the outputs.

    Args:
        target: CLASS for cross-entropy in nats, REAL for mean squared error.
        outputs: [batch, readouts, output].
        targets: int [batch, readouts] or float [batch, readouts, output].
        scored: bool [batch, readouts].
    """
    per_output = _cross_entropy if target is Target.CLASS else _squared_error
    losses, gradients = per_output(outputs, targets)
    count = scored.sum()
    mean = float(np.sum(losses * scored, dtype=np.float64) / count)
    return mean, (gradients * (scored[..., None] / count)).astype(outputs.dtype)


def _cross_entropy(outputs: Array, targets: Array) -> tuple[Array, Array]:
    shifted = outputs - outputs.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    chosen = targets[..., None]
    losses = -np.take_along_axis(log_p, chosen, axis=-1)[..., 0]
    gradients = np.exp(log_p)
    hot = np.take_along_axis(gradients, chosen, axis=-1) - 1
    np.put_along_axis(gradients, chosen, hot, axis=-1)
    return losses, gradients


def _squared_error(outputs: Array, targets: Array) -> tuple[Array, Array]:
    error = outputs - targets.astype(outputs.dtype)
    return np.mean(error**2, axis=-1), 2 * error / outputs.shape[-1]
