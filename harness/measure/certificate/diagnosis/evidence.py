"""Whether a hypothesis agrees with what was found, and causes without a hypothesis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from harness.contract import Array
from harness.measure.certificate.distance import relative_error
from harness.measure.certificate.record import listed
from harness.measure.certificate.shapes import Shape

Found = Mapping[str, Array]
"""Arrays by name: "the outputs", "layer0.w_hh", "the initial state h"."""


def agrees(found: Array, reference: Array, tolerance: float) -> bool:
    """Say whether an array equals the reference's within a relative error."""
    error = relative_error(found, np.asarray(reference, np.float64))
    return error is None or error <= tolerance


def disagreeing(found: Found, reference: Found, tolerance: float) -> list[str]:
    """Return the names of the arrays that do not agree."""
    return [n for n, r in reference.items() if not agrees(found[n], r, tolerance)]


def first_match(
    hypotheses: Iterable[tuple[str, Found]], found: Found, tolerance: float
) -> str | None:
    """Return the words of the first hypothesis that gives what was found, or None."""
    for words, expected in hypotheses:
        if not disagreeing(found, expected, tolerance):
            return words
    return None


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
    changing = disagreeing(first, second, tolerance)
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
