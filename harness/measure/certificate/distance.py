"""How far a result is from another: the relative error in the 2-norm."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

from harness.contract import Array

UNDERFLOW = 1e-30
"""A reference with a smaller norm underflows in float32 and is not compared."""

K = TypeVar("K", bound=Hashable)


def relative_error(found: Array, reference: Array) -> float | None:
    """Return |found - reference| / |reference| in the 2-norm.

    It is None if the norm of the reference is below `UNDERFLOW`. It is infinite if
    `found` has another shape or is not finite.
    """
    if found.shape != reference.shape or not np.isfinite(found).all():
        return float("inf")
    size = norm(reference)
    if size < UNDERFLOW:
        return None
    return norm(found.astype(np.float64) - reference) / size


def errors(found: Mapping[K, Array], expected: Mapping[K, Array]) -> dict[K, float]:
    """Return each result's relative error; it is infinite for a missing result.

    It is 0 where the expected result underflows.
    """
    missing = np.empty(0)
    return {
        name: relative_error(
            np.asarray(found.get(name, missing)), np.asarray(tensor, np.float64)
        )
        or 0.0
        for name, tensor in expected.items()
    }


def norm(array: Array) -> float:
    """Return the 2-norm of all numbers of an array, in float64."""
    return float(np.linalg.norm(np.asarray(array, np.float64).ravel()))
