"""What rounding alone does to a result: an error that no code can avoid is allowed.

Code of any dtype rounds the weights before it uses them. Gradients of a chaotic network
or sums whose terms cancel then lose many digits, whoever computes them. So an error
above the tolerance may be up to `ROOM` times the change of the reference's own result
when the last digits of the weights change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

import numpy as np

from harness.contract import Array, Weights
from harness.measure.certificate.distance import errors

ROOM = 10
"""An error may be this many times the change of the result when the last digits of the
weights change. Of 1600 results of correct float32 code 7 were above 1e-5, up to 1.5e-4.
All of them were sums whose terms cancel, and none was above 5.5 times that change."""

NUDGES = 4
"""How often the last digits are changed: by chance a result may not depend on them."""

_UNIT = {"tf32": 2.0**-11, "bf16": 2.0**-8}
"""Relative distance of two neighbouring numbers, if the dtype does not determine it."""

_HOPELESS = 100
"""If one nudge leaves an error this many times too large, others are not tried."""

K = TypeVar("K", bound=Hashable)


def unit_of(dtype: str, precision: str) -> float:
    """Return the relative distance of two neighbouring numbers of an arithmetic."""
    return _UNIT.get(precision, float(np.finfo(dtype).eps))


def nudged(weights: Weights, unit: float, nudge: int) -> Weights:
    """Return weights with every last digit changed, up or down at random.

    Args:
        weights: By name.
        unit: The relative size of the change, from `unit_of`.
        nudge: The seed of the changes.
    """
    rng = np.random.default_rng(nudge)
    return {
        name: w * (1 + unit * rng.choice([-1, 1], w.shape))
        for name, w in weights.items()
    }


class Responses(Generic[K]):
    """How much each of some results changes when the weights are nudged.

    The results are computed again only as often as changes are asked for.

    Args:
        expected: Computes the results with weights that are `nudged` with a seed.
        right: The results with the weights themselves.
    """

    def __init__(
        self, expected: Callable[[int], Mapping[K, Array]], right: Mapping[K, Array]
    ) -> None:
        self._expected, self._right = expected, right
        self._changes: list[dict[K, float]] = []

    def of(self, name: K) -> Iterator[float]:
        """Yield the relative change of a result at each nudge."""
        for nudge in range(NUDGES):
            if nudge == len(self._changes):
                self._changes.append(errors(self._expected(nudge), self._right))
            yield self._changes[nudge][name]


def allowed(
    error: float, tolerance: float, changes: Iterable[float], most: float = math.inf
) -> float:
    """Return the largest error that is allowed: the tolerance, or what rounding does.

    Args:
        error: An error. Changes are taken only until they explain it, and none if it is
            within the tolerance or too large to be explained.
        tolerance: The largest error of numbers that have many correct digits.
        changes: How much the result changes at each nudge of the weights.
        most: No error above this is allowed for rounding.
    """
    found = tolerance
    if not tolerance < error <= most:
        return found
    for change in changes:
        if not math.isfinite(change):  # what overflows shows nothing
            return tolerance
        found = max(found, min(ROOM * change, most))
        if error <= found or error > _HOPELESS * ROOM * change > 0:
            break
    return found
