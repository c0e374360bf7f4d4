from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.doubts import doubts, words
from harness.store import TrialRecord
from tests import fake_runs

HERE = {"processor": "AMD EPYC 1a2b3c4d", "framework": "torch 2.13.0"}


@pytest.fixture
def measured(tmp_path: Path) -> list[TrialRecord]:
    """Return the records of a certificate and a timing."""
    writer = fake_runs.Writer.create(tmp_path / "run")
    fake_runs.parity(writer, "torch-native", "gru")
    fake_runs.speed(writer, fake_runs.speed_trial("torch-native", "gru"), 1e-3)
    return writer.run.records()


def _with(record: TrialRecord, facts: Mapping[str, str]) -> TrialRecord:
    return replace(record, result={**record.result, **facts})


def _doubts(records: list[TrialRecord], there: Mapping[str, str]) -> str | None:
    """Return the doubt of a timing whose certificate has the facts `there`."""
    found = [_with(r, there if r.trial.measure == "parity" else HERE) for r in records]
    (timing,) = [r for r in found if r.trial.measure == "speed"]
    return words([doubts(found)[timing.id]])


def test_a_certificate_of_the_same_conditions_leaves_no_doubt(
    measured: list[TrialRecord],
) -> None:
    assert _doubts(measured, HERE) is None


@pytest.mark.parametrize(
    ("name", "value", "doubt"),
    [
        (
            "processor",
            "Intel Xeon 5e6f7a8b",
            "certified on Intel Xeon 5e6f7a8b, not AMD EPYC 1a2b3c4d",
        ),
        ("framework", "torch 2.14.0", "certified with torch 2.14.0, not torch 2.13.0"),
    ],
)
def test_a_certificate_of_other_conditions_is_a_doubt(
    measured: list[TrialRecord], name: str, value: str, doubt: str
) -> None:
    assert _doubts(measured, {**HERE, name: value}) == doubt
