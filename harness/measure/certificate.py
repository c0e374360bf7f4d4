"""What counts as the same: relative errors, tolerances and their record."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from harness.contract import Array, Quantity
from harness.store import Reading

UNDERFLOW = 1e-30
"""A reference with a smaller norm is lost in float32 and not compared."""


@dataclass(frozen=True)
class Tolerance:
    """Certified up to `certified`; worth a look above `warned`."""

    certified: float
    warned: float


TOLERANCES = {
    # At length 100 correct float32 code stays under 4e-6 in every tensor. Float64 code
    # is as far below as its unit roundoff is smaller: 2^-52 against 2^-23.
    ("float32", "highest"): Tolerance(1e-5, 3e-6),
    ("float64", "highest"): Tolerance(2e-13, 6e-14),
}

QUANTITIES = {
    "error": Quantity("relative error", "lower"),
    "tolerance": Quantity("relative error", "neither"),
    "warned_above": Quantity("relative error", "neither"),
    "certified": Quantity("yes or no", "higher"),
    "checks": Quantity("checks", "neither"),
    "broken": Quantity("checks", "lower"),
    "warned": Quantity("checks", "lower"),
    "underflowed": Quantity("tensors", "neither"),
    "shapes": Quantity("shapes", "neither"),
}


def relative_error(found: Array, reference: Array) -> float | None:
    """Return |found - reference| / |reference| in the 2-norm.

    None where the reference is below 1e-30: it underflows in float32 and is not
    compared. Infinite where `found` has another shape or is not finite.
    """
    if found.shape != reference.shape or not np.isfinite(found).all():
        return float("inf")
    norm = float(np.linalg.norm(reference.ravel()))
    if norm < UNDERFLOW:
        return None
    difference = found.astype(np.float64) - reference
    return float(np.linalg.norm(difference.ravel())) / norm


@dataclass
class Certificate:
    """The worst error of each check over all shapes, weights and cotangents."""

    tolerance: Tolerance
    shapes: int
    errors: dict[str, float | None] = field(default_factory=dict)
    underflowed: int = 0

    def compare(self, check: str, found: Array, reference: Array) -> None:
        """Record one comparison."""
        self.record(check, relative_error(found, np.asarray(reference, np.float64)))

    def record(self, check: str, error: float | None) -> None:
        """Record an error, or None for one that underflowed."""
        worst = self.errors.get(check)
        if error is None:
            self.underflowed += 1
            self.errors.setdefault(check, None)
        else:
            self.errors[check] = error if worst is None else max(worst, error)

    @property
    def broken(self) -> list[str]:
        """Names of the checks beyond the tolerance."""
        return [
            c
            for c, e in self.errors.items()
            if e is not None and not e <= self.tolerance.certified
        ]

    def readings(self) -> list[Reading]:
        """Return the verdict and every check's worst error."""
        warned = [
            c
            for c, e in self.errors.items()
            if e is not None and e > self.tolerance.warned
        ]
        verdict = {
            "certified": int(not self.broken),
            "checks": len(self.errors),
            "broken": len(self.broken),
            "warned": len(warned),
            "underflowed": self.underflowed,
            "shapes": self.shapes,
        }
        readings = [Reading("certificate", verdict)]
        for check, error in self.errors.items():
            values = {
                "tolerance": self.tolerance.certified,
                "warned_above": self.tolerance.warned,
            }
            if error is not None:
                # JSON knows no infinity; nothing correct is anywhere near this.
                values["error"] = min(error, 1e300)
            readings.append(Reading(check, values))
        return readings
