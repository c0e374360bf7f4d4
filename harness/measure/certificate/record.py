"""What a certificate records: relative errors beside their tolerances."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.contract import Array
from harness.measure.certificate.distance import UNDERFLOW, norm, relative_error
from harness.measure.certificate.rounding import allowed
from harness.reading import Reading


@dataclass(frozen=True)
class Tolerance:
    """An error up to `certified` is certified; one above `warned` is suspicious."""

    certified: float
    warned: float

    @property
    def doubled(self) -> Tolerance:
        """Twice the tolerance, for two results that may both be off."""
        return Tolerance(2 * self.certified, 2 * self.warned)

    def widened(self, allowed: float) -> Tolerance:
        """Return the tolerance with a larger error certified, but still suspicious."""
        return Tolerance(max(allowed, self.certified), self.warned)


TOLERANCES = {
    # At length 100 correct float32 code stays under 4e-6 in every tensor. Float64 code
    # is as far below as its unit roundoff is smaller: 2^-52 against 2^-23.
    ("float32", "highest"): Tolerance(1e-5, 3e-6),
    ("float64", "highest"): Tolerance(2e-13, 6e-14),
    # Products in bfloat16 have 8 significant bits: in a gradient over 100 time steps
    # correct code was seen up to 0.18 from the reference (with relu 0.46, but a bound
    # above that would show no mistake). TF32 has 11 bits: an eighth of these errors.
    ("float32", "bf16"): Tolerance(0.25, 0.1),
    ("float32", "tf32"): Tolerance(0.03, 0.01),
}

EXACT = Tolerance(0.0, 0.0)
"""For tensors that must come back bit for bit."""

MOST = 0.25
"""No error above this is allowed for rounding: half a gradient is 0.5 from the whole.
Products in bfloat16 are allowed as much, and a bound above it would show no mistake."""


@dataclass(frozen=True)
class Finding:
    """The worst comparison of one check.

    Attributes:
        error: None if the reference underflowed and nothing was compared.
        tolerance: What is allowed there.
        usual: The tolerance that `tolerance` widens because rounding alone makes a
            larger error there, or None.
        where: Tensor and shape.
        expected: Norm of the reference.
        found: Norm of what was found; None if it had another shape, infinite if it was
            not finite.
    """

    error: float | None
    tolerance: Tolerance
    where: str = ""
    usual: float | None = None
    expected: float | None = None
    found: float | None = None

    @property
    def broken(self) -> bool:
        """Whether the error is beyond the tolerance."""
        return self.error is not None and not self.error <= self.tolerance.certified

    @property
    def warned(self) -> bool:
        """Whether the error is suspicious."""
        return self.error is not None and self.error > self.tolerance.warned

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """What makes it worse than another: broken, then widened, then its share."""
        if self.error is None:
            return False, False, -1.0
        share = self.error / (self.tolerance.certified or UNDERFLOW)
        if math.isnan(share):
            share = math.inf
        return self.broken, self.usual is not None, share

    def values(self) -> dict[str, float]:
        """Return the numbers of a reading, all finite, since JSON has no infinity."""
        values = {
            "tolerance": self.tolerance.certified,
            "usual_tolerance": self.usual,
            "warned_above": self.tolerance.warned,
            "error": self.error,
            "expected_norm": self.expected,
            "found_norm": self.found,
        }
        # No correct value is near 1e300.
        return {n: min(v, 1e300) for n, v in values.items() if v is not None}


@dataclass
class Certificate:
    """The worst error of each check over all shapes, weights and cotangents.

    Attributes:
        remarks: What was compared less closely than usual, and why.
    """

    tolerance: Tolerance
    shapes: int
    findings: dict[str, Finding] = field(default_factory=dict)
    underflowed: int = 0
    causes: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def compare(
        self,
        check: str,
        found: Array,
        reference: Array,
        where: str = "",
        tolerance: Tolerance | None = None,
        changes: Iterable[float] = (),
    ) -> None:
        """Record one comparison."""
        reference = np.asarray(reference, np.float64)
        size = norm(found) if np.isfinite(found).all() else float("inf")
        self.record(
            check,
            relative_error(found, reference),
            where,
            tolerance,
            changes,
            expected=norm(reference),
            found=size if found.shape == reference.shape else None,
        )

    def require_equal(
        self, check: str, found: Array, reference: Array, where: str = ""
    ) -> None:
        """Record the share of an array that differs from the reference in any bit."""
        error = float("inf")
        if found.shape == reference.shape and found.dtype == reference.dtype:
            error = float(np.mean(found != reference))
        self.record(check, error, where, EXACT)

    def record(
        self,
        check: str,
        error: float | None,
        where: str = "",
        tolerance: Tolerance | None = None,
        changes: Iterable[float] = (),
        **norms: float | None,
    ) -> None:
        """Record an error, or None if the reference underflowed.

        Args:
            check: The name of the check.
            error: The relative error.
            where: Tensor and shape.
            tolerance: What is allowed, by default the certificate's tolerance.
            changes: How much the result changes at each nudge; see `rounding`.
            norms: Of the reference and of what was found.
        """
        tolerance, usual = tolerance or self.tolerance, None
        if error is not None:
            most = allowed(error, tolerance.certified, changes, MOST)
            if most > tolerance.certified:
                usual, tolerance = tolerance.certified, tolerance.widened(most)
        finding = Finding(error, tolerance, where, usual, **norms)
        worst = self.findings.get(check)
        if error is None:
            self.underflowed += 1
            self.findings.setdefault(check, finding)
        elif worst is None or finding.rank > worst.rank:
            self.findings[check] = finding

    @property
    def broken(self) -> list[str]:
        """Names of the checks beyond their tolerance."""
        return [check for check, f in self.findings.items() if f.broken]

    def readings(self) -> list[Reading]:
        """Return the verdict and every check's worst error."""
        verdict = {
            "certified": int(not self.broken),
            "checks": len(self.findings),
            "broken": len(self.broken),
            "warned": sum(f.warned for f in self.findings.values()),
            "underflowed": self.underflowed,
            "shapes": self.shapes,
        }
        return [
            Reading("certificate", verdict),
            *(Reading(c, f.values()) for c, f in self.findings.items()),
        ]

    def facts(self) -> Mapping[str, Any]:
        """Return where each worst error was, and the likely cause of each broken check.

        `where` names tensor and shape of each check. `causes` holds only those broken
        checks whose likely cause was found.
        """
        where = {c: f.where for c, f in self.findings.items() if f.where}
        return {"where": where, "causes": self.causes, "remarks": self.remarks}


def listed(names: Sequence[str], most: int | None = None) -> str:
    """Return names as text: "a, b and c", or "a, b and 4 more" beyond `most`."""
    if most is not None and len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def in_layer(name: str) -> str:
    """Return a tensor's name in its cell: "w_hh" for "layer0.w_hh"; else the name."""
    return name.partition(".")[2] if name.startswith("layer") else name
