"""The key of a certificate, and numbers without a certificate."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from harness.run.plan import fingerprint as sources
from harness.run.plan.derived import certificate_trial
from harness.run.plan.fingerprint import source_hashes
from harness.run.plan.todo import planned
from harness.store import RunFolder
from harness.trial import Trial
from tests import helpers
from tests.helpers import REGISTRY

PARITY = Trial("parity", "numpy-reference", "gru")


def identity(trial: Trial = PARITY) -> str:
    return trial.identity(source_hashes(REGISTRY, trial))


def test_a_different_library_version_or_processor_needs_another_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = identity()
    with monkeypatch.context() as changed:
        changed.setattr("harness.registry.framework_versions", lambda *_: "numpy 1.0")
        assert identity() != before
    with monkeypatch.context() as changed:
        changed.setattr(sources, "processor", lambda: "Z80")
        assert identity() != before
    assert identity() == before


@pytest.mark.parametrize(
    "change",
    [
        {"device": "cuda:0"},
        {"dtype": "float64"},
        {"precision": "tf32"},
        {"threads": 2},
        {"biases": "native"},
    ],
)
def test_a_certificate_holds_for_its_device_dtype_precision_threads_and_biases(
    change: dict[str, object],
) -> None:
    assert identity(replace(PARITY, **change)) != identity()
    # Each trial needs the certificate of its own settings.
    speed = replace(PARITY, measure="speed", batch=4, **change)
    assert certificate_trial(speed) == replace(PARITY, **change)


def test_other_measures_are_not_repeated_for_a_new_library_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = Trial("speed", "numpy-reference", "gru", batch=4)
    before = identity(trial)
    monkeypatch.setattr("harness.registry.framework_versions", lambda *_: "numpy 1.0")
    assert identity(trial) == before


def test_why_says_that_a_new_version_invalidated_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tmp_path / "run")
    first = planned(PARITY, REGISTRY, run)
    run.begin(PARITY, first.id, first.sources).commit({"outcome": "ok", "reason": None})
    assert planned(PARITY, REGISTRY, run).why == "done (ok)"
    monkeypatch.setattr("harness.registry.framework_versions", lambda *_: "numpy 1.0")
    again = planned(PARITY, REGISTRY, run)
    assert (again.runs, again.why) == (True, "library versions changed")


SUITE = helpers.suite(
    helpers.learning(
        length=5, hidden_size=4, batch=4, updates=20, evaluate_every=10, seeds=[0]
    ),
    helpers.speed("numpy-reference", phases=["forward", "train_step"]),
)


@pytest.mark.slow
def test_uncertified_numbers_are_kept_and_marked_until_they_are_certified(
    tmp_path: Path,
) -> None:
    helpers.write(tmp_path / "bare.toml", SUITE)
    go = ("run", "bare.toml", "-o", "out")
    code, _, err = helpers.run(*go, "--no-certify", cwd=tmp_path)
    assert (code, "nothing is compared with the reference" in err) == (0, True)
    records = RunFolder.open(tmp_path / "out").records()
    assert {r.trial.measure for r in records} == {"learning", "speed"}
    assert {r.outcome for r in records} == {"ok"}
    code, shown, _ = helpers.read("show", "out", cwd=tmp_path)
    assert code == 0
    rows = [a + b for a, b in pairwise(shown.splitlines()) if " train step " in a]
    assert sum("NO: not checked" in row for row in rows) == 2
    # The mark is shown beside each of their other numbers, perhaps wrapped.
    numbers = [row for row in rows if " openblas " in row]
    assert len(numbers) == 6
    assert sum("uncertified" in row for row in numbers) == 4
    _, table, _ = helpers.read("export", "out", "--format", "csv", cwd=tmp_path)
    assert {r["certified"] for r in csv.DictReader(io.StringIO(table))} == {"False"}
    _, document, _ = helpers.read("show", "out", "--json", cwd=tmp_path)
    assert not any(row["certified"] for row in json.loads(document)["speed"])

    code, _, _ = helpers.run(
        *go, cwd=tmp_path
    )  # now it certifies, without measuring again
    assert code == 0
    assert len(RunFolder.open(tmp_path / "out").records()) == len(records) + 1
    _, shown, _ = helpers.read("show", "out", cwd=tmp_path)
    lines = [line for line in shown.splitlines() if " train step " in line]
    timings = [line for line in lines if line.split()[-1] == "yes"]
    assert len(timings) == 2
    assert "NO:" not in shown
    assert "uncertified" not in shown
