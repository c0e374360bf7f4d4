"""Which kind of cause to look for: the first broken kind of check explains the rest."""

from __future__ import annotations

from harness.measure.certificate.diagnosis.gradients import (
    GradientCause,
    gradient_cause,
)
from harness.measure.certificate.diagnosis.loss import loss_cause
from harness.measure.certificate.diagnosis.optimizers import optimizer_cause
from harness.measure.certificate.diagnosis.outputs import output_cause
from harness.measure.certificate.record import Certificate
from harness.measure.certificate.trajectories import NAMES
from harness.measure.subject import Basis, Subject

FORWARD = ("outputs", "final state", "one time step")
LOSS = ("loss", "grad of loss")

TELLING = 1e-3
"""With a wider tolerance, which products in bfloat16 need, mistakes cannot be
distinguished: too many of them agree with what was found."""


def diagnose(certificate: Certificate, subject: Subject, *, trains: bool) -> None:
    """Write the likely cause of every broken check into the certificate."""
    tolerance = certificate.tolerance.certified
    broken = set(certificate.broken)
    if not broken or subject.basis is Basis.OWN_STEPS or tolerance > TELLING:
        return
    if broken & set(FORWARD):
        # Wrong outputs make wrong gradients, losses and updates.
        _write(certificate, broken, output_cause(subject, tolerance))
        return
    if not trains:
        return
    if any(c.startswith("grad ") and c not in LOSS for c in broken):
        cause = gradient_cause(subject, tolerance)
        if cause is not None:
            _write(certificate, _explained(broken, cause), cause.words)
        return
    if broken & set(LOSS):
        _write(certificate, broken, loss_cause(subject, tolerance))
        return
    for name in NAMES:
        affected = {c for c in broken if c.startswith(f"{name} ")}
        if affected:
            _write(certificate, affected, optimizer_cause(subject, name))


def _explained(broken: set[str], cause: GradientCause) -> set[str]:
    """Return the checks that wrong gradients break, directly or by what follows."""
    explained = set(cause.checks)
    if "grad initial state" in explained:
        explained.add("grad state at split")
    if "grad inputs" in explained:  # their sums are the embedding's gradient
        explained.add("grad embedding")
    if cause.of_weights:
        explained |= {c for c in broken if not c.startswith("grad ") or c in LOSS}
    return broken & explained


def _write(certificate: Certificate, checks: set[str], cause: str | None) -> None:
    if cause is not None:
        certificate.causes |= {
            check: cause for check in certificate.broken if check in checks
        }
