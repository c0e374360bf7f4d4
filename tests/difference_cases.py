"""Finite differences of an implementation without float64, at one shape."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.measure.certificate import differences
from harness.measure.certificate.differences import compare_differences
from harness.measure.certificate.record import TOLERANCES, Certificate
from harness.measure.certificate.shapes import PAIRWISE
from harness.measure.subject import Subject
from harness.registry import Registry
from harness.trial import Trial


def dtype_of_differences(implementation: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Check the gradients; return the dtype of the finite differences."""
    (shape,) = [s for s in PAIRWISE if s.time_steps == 13 and s.padded and s.batch > 1]
    monkeypatch.setattr(differences, "PAIRWISE", (shape,))
    registry = Registry.discover()
    declared = registry.implementation(implementation)
    registry.implementations[implementation] = replace(declared, dtypes=("float32",))
    trial = Trial("parity", implementation, "gru")
    certificate = Certificate(TOLERANCES["float32", "highest"], 1)
    subject = Subject.of(registry, trial)
    dtype = compare_differences(certificate, subject)
    assert {"differences w_hh", "differences b", "differences inputs"} <= set(
        certificate.findings
    )
    assert certificate.broken == []
    return dtype
