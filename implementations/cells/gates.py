"""The operations of every cell: the sigmoid, and products with all gates at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.contract import Array


def sigmoid(a: Array) -> Array:
    """Compute σ(a) = 1 / (1 + exp(-a)) in the dtype of `a`, without overflow.

    Its derivative is σ(a) (1 - σ(a)), so that the cells save their gates and not what
    the gates were computed from.
    """
    # exp sees no positive number, so it cannot overflow.
    e = np.exp(-np.abs(a))
    values: Array = np.where(a >= 0, 1, e) / (1 + e)
    return values


def products(w: Array, v: Array) -> Array:
    """Multiply a batch of vectors by the matrix of every gate.

    Args:
        w: [gates, hidden, size].
        v: [batch, size].

    Returns:
        [gates, batch, hidden]: W v for every gate and every sequence.
    """
    per_gate: Array = v @ w.transpose(0, 2, 1)
    return per_gate


def side_by_side(d_a: Sequence[Array]) -> Array:
    """Return gradients [batch, hidden] of several gates as [batch, gates, hidden]."""
    batch, hidden = d_a[0].shape
    return np.concatenate(d_a, axis=1).reshape(batch, -1, hidden)


def products_backward(d_a: Array, w: Array, v: Array) -> tuple[Array, Array]:
    """Pull gradients back through `products`.

    With a = W v, dL/dW = dL/da v^T, summed over the batch, and dL/dv = W^T dL/da,
    summed over the gates.

    Args:
        d_a: dL/da [batch, gates, hidden].
        w: [gates, hidden, size].
        v: [batch, size].

    Returns:
        dL/dW [gates, hidden, size] and dL/dv [batch, size].
    """
    d = d_a.reshape(len(d_a), -1)
    return (d.T @ v).reshape(w.shape), d @ w.reshape(-1, w.shape[-1])
