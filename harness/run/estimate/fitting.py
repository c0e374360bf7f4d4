"""Fit times to what they are made of, starting from what is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_TRUST = 0.02
"""Weight of what is believed, against one observation."""


@dataclass(frozen=True)
class Point:
    """One observed time and what it is made of.

    Attributes:
        parts: Seconds or counts, in the order of the factors.
    """

    weight: float
    parts: tuple[float, ...]
    time_s: float


def fit(points: Sequence[Point], believed: Sequence[float]) -> list[float]:
    """Fit time = sum of factor x part by least squares of relative errors.

    A factor whose part no observation has much of stays as believed; factors whose
    parts the observations cannot tell apart are scaled alike.

    Args:
        points: What was observed.
        believed: The factors before any observation.

    Returns:
        The factors, none below zero.
    """
    from scipy.optimize import nnls

    factors = np.asarray(believed, dtype=float)
    if not points:
        return list(believed)
    weights = np.array([point.weight for point in points])
    weights *= len(points) / weights.sum()
    parts = np.array([point.parts for point in points]) * factors
    beliefs = parts.sum(axis=1)
    shares = parts / beliefs[:, None]
    ratios = np.array([point.time_s for point in points]) / beliefs
    seen = np.average(shares, axis=0, weights=weights)
    expected = 1 + (np.average(ratios, weights=weights) - 1) * seen / seen.max()
    root = np.sqrt(weights)
    rows = np.vstack([shares * root[:, None], np.sqrt(_TRUST) * np.eye(len(factors))])
    found, _ = nnls(rows, np.concatenate([ratios * root, np.sqrt(_TRUST) * expected]))
    return [float(factor) for factor in found * factors]
