"""What was found beside what a hypothesis gives: agreement, NaN, chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.contract import Array
from harness.measure.certificate.record import relative_error
from harness.measure.certificate.shapes import Shape

Found = Mapping[str, Array]
"""Arrays by the words for them: "outputs", "layer0.w_hh", "the initial state"."""


def agrees(found: Array, reference: Array, tolerance: float) -> bool:
    """Say whether an array is the reference's within a relative error."""
    error = relative_error(found, np.asarray(reference, np.float64))
    return error is None or error <= tolerance


def disagreeing(found: Found, reference: Found, tolerance: float) -> list[str]:
    """Return the names of what does not agree."""
    return [n for n, r in reference.items() if not agrees(found[n], r, tolerance)]


def without_hypothesis(
    first: Found, second: Found, tolerance: float, of: str = ""
) -> str | None:
    """Return what two equal calls show by themselves: NaN, or chance.

    Args:
        first: What the first call found.
        second: What the second call found.
        tolerance: How far apart two equal calls may be.
        of: What comes before a name, such as "the gradient of ".
    """
    for name, array in first.items():
        lost = int(np.sum(~np.isfinite(array)))
        if lost:
            kind = "NaN" if np.isnan(array).any() else "infinite"
            return f"{lost} of {array.size} values of {of}{name} are {kind}"
    changing = disagreeing(first, second, tolerance)
    if changing:
        return (
            f"two equal calls differ in {of}{listed(changing)}: dropout or other "
            "chance, or a state kept from call to call"
        )
    return None


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return names for people: "a, b and c", and how many more."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def most_telling(shapes: Sequence[Shape], *, long: bool = False) -> list[Shape]:
    """Order shapes: unpadded, one layer, reals, short (or long) ones first."""
    sign = -1 if long else 1
    return sorted(
        shapes,
        key=lambda s: (s.padded, s.num_layers, s.inputs.kind, sign * s.time_steps),
    )


def common_factor(
    pairs: Sequence[tuple[Array, Array]], tolerance: float
) -> float | None:
    """Return c where every found tensor is c times the reference, else None."""
    norms = [float(np.vdot(r, r)) for _, r in pairs]
    if not pairs or min(norms) == 0:
        return None
    factor = float(np.vdot(pairs[0][0], pairs[0][1])) / norms[0]
    if all(agrees(f, factor * r, tolerance) for f, r in pairs):
        return factor
    return None
