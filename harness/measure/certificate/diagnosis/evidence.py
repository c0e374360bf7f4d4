"""Whether a hypothesis agrees with what was found, and causes without a hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from harness.contract import Array, Batch
from harness.measure.certificate.distance import UNDERFLOW, norm, relative_error
from harness.measure.certificate.record import listed
from harness.measure.certificate.shapes import Shape

Found = Mapping[str, Array]
"""Arrays by name: "the outputs", "layer0.w_hh", "the initial state h"."""

Hypothesis = tuple[str, Callable[[], Found | None]]
"""A mistake as text, and what it would give; None for anything but what was found.
Hypotheses with the same text are forms of one mistake."""

ROUNDING = 1e-6
"""Smaller errors are those of float32, and say nothing of a hypothesis."""

AS_WELL = 10
"""Another mistake explains the numbers as well if its error is at most this many times
the smallest."""

SAME = 1e-3
"""Two mistakes are one if what they give differs by less than this share of the
tolerance everywhere, such as an exchange of gates and an order of gates."""


PADDED = "where sequences are padded"


def agrees(found: Array, reference: Array, tolerance: float) -> bool:
    """Say whether an array equals the reference's within a relative error."""
    error = relative_error(found, np.asarray(reference, np.float64))
    return error is None or error <= tolerance


def disagreeing(found: Found, reference: Found, tolerance: float) -> list[str]:
    """Return the names of the arrays that do not agree."""
    return [n for n, r in reference.items() if not agrees(found[n], r, tolerance)]


class Suspects:
    """The hypotheses that explain all cases so far, of which one may remain.

    Args:
        tolerance: The largest relative error of a hypothesis that explains a case.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._refuted: set[str] = set()
        self._error: dict[str, float] = {}
        self._given: dict[str, dict[int, Found]] = {}  # by the number of the case
        self._cases = 0

    def weigh(
        self, hypotheses: Iterable[Hypothesis], found: Found, right: Found | None = None
    ) -> None:
        """Refute the hypotheses that do not give what was found in a case.

        Args:
            hypotheses: Those that say anything about the case, simple ones first.
            found: What was found.
            right: What the reference gives. If this was found, the case supports no
                hypothesis, but refutes those that would give anything else. None if
                something else is known to be found.
        """
        shows = right is None or bool(disagreeing(found, right, self._tolerance))
        self._cases += shows
        best: dict[str, tuple[float, Found]] = {}
        for words, gives in hypotheses:
            if words not in self._refuted:
                given = gives() or {}
                error = _largest_error(found, given)
                if words not in best or error < best[words][0]:
                    best[words] = error, given
        for words, (error, given) in best.items():
            if not error <= self._tolerance:
                self._refuted.add(words)
            elif shows:
                self._given.setdefault(words, {})[self._cases] = given
                self._error[words] = max(error, self._error.get(words, 0.0))

    @property
    def remain(self) -> bool:
        """Whether any is left, so that a further case could refute it."""
        return bool(self._left())

    @property
    def decided(self) -> bool:
        """Whether one is left, so that further cases are not needed."""
        return len(self._left()) == 1

    def cause(self) -> str | None:
        """Return the hypothesis that is left; None if another explains as much."""
        left = self._left()
        if not left:
            return None
        least = max(min(self._error[words] for words in left), ROUNDING)
        rivals = [w for w in left if self._error[w] <= AS_WELL * least]
        return rivals[0] if self._are_one(rivals) else None

    def _left(self) -> list[str]:
        """Return the hypotheses that explain the most cases and fail in none."""
        left = [words for words in self._given if words not in self._refuted]
        most = max((len(self._given[words]) for words in left), default=0)
        return [words for words in left if len(self._given[words]) == most]

    def _are_one(self, words: Sequence[str]) -> bool:
        """Say whether all of these give the same numbers in every case."""
        first, *others = (self._given[w] for w in words)
        return all(
            other.keys() == first.keys()
            and not any(
                disagreeing(other[case], first[case], SAME * self._tolerance)
                for case in first
            )
            for other in others
        )


def contradicted(
    words: str, hypotheses: Iterable[Hypothesis], found: Found, tolerance: float
) -> bool:
    """Say whether a mistake would give something else than was found in a case.

    It is False if no hypothesis of that text says anything about the case.
    """
    errors = [_largest_error(found, g() or {}) for w, g in hypotheses if w == words]
    return bool(errors) and not min(errors) <= tolerance


def _largest_error(found: Found, given: Found) -> float:
    errors = (_error(found[n], a) for n, a in given.items())
    return max(errors, default=float("inf"))


def _error(found: Array, given: Array) -> float:
    """Return the relative error of a hypothesis; zeros explain only zeros."""
    error = relative_error(found, np.asarray(given, np.float64))
    if error is None:
        return 0.0 if norm(found) < 10 * UNDERFLOW else float("inf")
    return error


def without_hypothesis(
    first: Found, second: Found, tolerance: float, of: str = ""
) -> str | None:
    """Return a cause that two equal calls show: values not finite, or randomness.

    Args:
        first: Results of the first call.
        second: Results of the second call.
        tolerance: The largest relative error between two equal calls.
        of: Text before a name, such as "the gradient of ".
    """
    for name, array in first.items():
        lost = int(np.sum(~np.isfinite(array)))
        if lost:
            kind = "NaN" if np.isnan(array).any() else "infinite"
            return f"{lost} of {array.size} values of {of}{name} are {kind}"
    changing = disagreeing(second, first, tolerance)
    if changing:
        return (
            f"two equal calls differ in {of}{listed(changing, 3)}: dropout or other "
            "chance, or a state kept from call to call"
        )
    return None


def clearest_first(shapes: Sequence[Shape], *, long: bool = False) -> list[Shape]:
    """Sort shapes: unpadded, one layer, reals and short (or long) sequences first."""
    sign = -1 if long else 1
    return sorted(
        shapes,
        key=lambda s: (s.padded, s.num_layers, s.inputs.kind, sign * s.time_steps),
    )


def shortest_first(shapes: Sequence[Shape]) -> list[Shape]:
    """Sort shapes: unpadded, short and of one layer first.

    Most hypotheses are refuted there in little time.
    """
    return sorted(shapes, key=lambda s: (s.padded, s.time_steps, s.num_layers))


def factors(batch: Batch, factor: float) -> dict[str, float]:
    """Return by what a wrong gradient may be multiplied at a shape, by words.

    Args:
        batch: The batch of that shape.
        factor: What was found at one shape. It may depend on the shape.
    """
    return {
        f"{factor:.4g} times the reference": factor,
        "averaged over the batch, not summed": 1 / batch.size,
        "averaged over time, not summed": 1 / batch.time_steps,
        "averaged over batch and time, not summed": 1 / batch.size / batch.time_steps,
    }


def common_factor(
    pairs: Sequence[tuple[Array, Array]], tolerance: float
) -> float | None:
    """Return c if every found tensor is c times the reference, else None."""
    norms = [float(np.vdot(r, r)) for _, r in pairs]
    if not pairs or min(norms) == 0:
        return None
    factor = float(np.vdot(pairs[0][0], pairs[0][1])) / norms[0]
    if all(agrees(f, factor * r, tolerance) for f, r in pairs):
        return factor
    return None
