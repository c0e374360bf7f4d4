"""Which cause to look for: what is computed first explains what is computed from it."""

from __future__ import annotations

from harness.measure.certificate.diagnosis.gradients import gradient_cause
from harness.measure.certificate.diagnosis.loss import loss_cause
from harness.measure.certificate.diagnosis.optimizers import optimizer_cause
from harness.measure.certificate.diagnosis.outputs import output_cause
from harness.measure.certificate.record import Certificate
from harness.measure.certificate.trajectories import NAMES
from harness.measure.subject import Basis, Subject

FORWARD = ("outputs", "final state", "one time step")
LOSS = ("loss", "grad of loss")

COARSEST = 1e-3
"""No cause is looked for at a wider tolerance, as of products in bfloat16: too many
mistakes agree with what was found."""


def diagnose(certificate: Certificate, subject: Subject, *, trains: bool) -> None:
    """Write the likely cause of every broken check into the certificate."""
    tolerance = certificate.tolerance.certified
    broken = set(certificate.broken)
    if not broken or subject.basis is Basis.OWN_STEPS or tolerance > COARSEST:
        return
    if broken & set(FORWARD):
        # Wrong outputs make wrong gradients, losses and updates.
        _write(certificate, broken, output_cause(subject, tolerance))
        return
    if not trains:
        return
    if any(c.startswith("grad ") and c not in LOSS for c in broken):
        cause, checks = gradient_cause(subject, tolerance)
        _write(certificate, _explained(broken, checks), cause)
        return
    if broken & set(LOSS):
        _write(certificate, broken, loss_cause(subject, tolerance))
        return
    for name in NAMES:
        affected = {c for c in broken if c.startswith(f"{name} ")}
        if affected:
            _write(certificate, affected, optimizer_cause(subject, name, tolerance))


def _explained(broken: set[str], checks: set[str]) -> set[str]:
    """Return the broken checks that wrong gradients explain.

    Args:
        broken: All broken checks.
        checks: The checks of the wrong gradients.
    """
    explained = set(checks)
    if "grad initial state" in checks:
        explained.add("grad state at split")
    if "grad inputs" in checks:  # their sums are the embedding's gradient
        explained.add("grad embedding")
    if checks - {"grad inputs", "grad initial state"}:
        # A weight's gradient is wrong, and with it losses and updates.
        explained |= {c for c in broken if not c.startswith("grad ") or c in LOSS}
    return broken & explained


def _write(certificate: Certificate, checks: set[str], cause: str | None) -> None:
    if cause is not None:
        certificate.causes |= {
            check: cause for check in certificate.broken if check in checks
        }
