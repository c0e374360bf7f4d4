"""A flipped bit of a stored file changes no number: it is found, or says nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import MisuseError
from harness.files.text import read_sealed, sealed, to_json
from harness.measure.work import Work
from harness.run.estimate.history import Observation, append, observations
from harness.store import Reading, RunFolder
from harness.trial import LearningSettings
from tests import helpers

EACH = 500
"""Flipped bits of each file."""

TRIAL = replace(helpers.LEARNING, settings=LearningSettings(updates=20))
SOURCES = {"cell gru": "0"}
ARRAYS = {"weights/w": np.arange(3.0), "optimizer/w.exp_avg": np.ones(2, np.float32)}
CURVE = Reading("train", {"loss": [0.5, 0.25]}, [1, 2], "updates")
WHOLE = Reading("outcome", {"solved": 1, "updates_to_solve": 2})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run with a finished trial, and one that left a checkpoint."""
    run = RunFolder.create(tmp_path_factory.mktemp("flips") / "run")
    run.write_info({"suite": {"name": "tiny"}, "wall_time_s": 312.5})
    attempt = run.begin(TRIAL, "one", SOURCES)
    attempt.write(CURVE)
    facts = {"kernel": "aten::gru", "parameters": {"canonical": 281}}
    attempt.commit({"outcome": "ok", "reason": None, **facts}, [WHOLE], ARRAYS)
    begun = run.begin(replace(TRIAL, seed=1), "two", SOURCES)
    begun.write(CURVE)
    begun.checkpoint({"updates": 12}, ARRAYS)
    begun.write(CURVE)
    begun.abandon()
    return run


def flips(file: Path) -> Iterator[str]:
    """Flip one bit after the other; yield which, and give the file its content back."""
    content = file.read_bytes()
    rng = random.Random(0)
    for bit in rng.sample(range(8 * len(content)), min(EACH, 8 * len(content))):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        yield f"bit {bit}"
    file.write_bytes(content)


def finished(run: RunFolder) -> Any:
    found = run.contents()
    if found.records:
        (record,) = found.records
        assert not found.left_out
        return asdict(record), {k: v.tolist() for k, v in run.arrays("one").items()}
    (why,) = found.left_out.values()
    assert why.what
    return None


def checkpoint(run: RunFolder) -> Any:
    found = run.checkpoint("two")
    if found is None:
        return None
    arrays = {k: (v.dtype.str, v.tolist()) for k, v in found.arrays.items()}
    return {**asdict(found), "arrays": arrays}


def info(run: RunFolder) -> Any:
    try:
        return RunFolder.open(run.path).info()
    except MisuseError:
        return None


@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("trials/one/result.json", finished),
        ("trials/one/spec.json", finished),
        ("trials/one/attempt-001/events.jsonl", finished),
        ("trials/one/attempt-001/arrays.npz", finished),
        ("trials/two/attempt-001/checkpoint.npz", checkpoint),
        ("trials/two/attempt-001/events.jsonl", checkpoint),
        ("run.json", info),
    ],
)
def test_a_flipped_bit_in_a_run_gives_the_same_numbers_or_none(
    run: RunFolder, file: str, read: Callable[[RunFolder], Any]
) -> None:
    right = read(run)
    assert right is not None
    found = 0
    for bit in flips(run.path / file):
        value = read(run)
        assert value in (None, right), bit
        found += value is None
    assert found > 0.2 * EACH


def test_a_flipped_bit_of_a_begun_trial_gives_no_other_trial(run: RunFolder) -> None:
    def begun() -> Any:
        return RunFolder(run.path).begun(replace(TRIAL, seed=1))

    (right,) = begun()
    for bit in flips(run.trials / "two" / "spec.json"):
        assert begun() in ([], [right]), bit


def test_a_flipped_bit_of_the_cost_history_gives_no_other_cost(tmp_path: Path) -> None:
    file = tmp_path / "costs.jsonl"
    seen = [Observation("AMD EPYC", ("a",), Work(time_steps=3.0), 0.5, 40.0 + n)
            for n in range(3)]  # fmt: skip
    append(file, seen)
    assert observations(file) == seen
    for bit in flips(file):
        assert all(one in seen for one in observations(file)), bit


def test_a_flipped_bit_of_a_cached_document_is_found(tmp_path: Path) -> None:
    """A cached certificate and the peaks of a machine are stored in this form."""
    file = tmp_path / "certificate.json"
    right = {"id": "parity-gru", "readings": [WHOLE.to_json()], "by": {"numpy": "2.4"}}
    file.write_text(sealed(to_json(right)))
    for bit in flips(file):
        try:
            assert read_sealed(file) == right, bit
        except ValueError:
            continue
