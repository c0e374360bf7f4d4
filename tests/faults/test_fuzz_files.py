"""Thousands of odd files: no traceback, no hang, no growth of memory.

The inputs are the same in each run; `RNN_HARNESS_FUZZ=100000` tries ten times as many.
"""

from __future__ import annotations

import io
import os
import random
import resource
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli.exits import DONE, MISUSE, NO, NOTHING
from harness.errors import MisuseError
from harness.files.arrays import arrays_in
from harness.files.text import read_sealed, sealed, to_json
from harness.measure.work import Work
from harness.run.estimate.history import Observation, append, observations
from harness.store import RunFolder
from harness.suite import load_suite
from harness.trial import LearningSettings
from tests import fuzz, helpers

pytestmark = pytest.mark.slow

USUAL = 9500
"""The inputs of all tests here together."""

TIMES = int(os.environ.get("RNN_HARNESS_FUZZ", USUAL)) / USUAL
MOST_S = 10.0
MOST_GROWTH_KB = 300_000

SUITE = helpers.suite(
    helpers.learning(task_options={"a": 1}),
    helpers.speed("numpy-reference", threads=[1, 2]),
    "[environments]\n# torch = '~/bin/python'\n",
)
WORDS = (
    *("-1", "0", "1e999", "nan", "-inf", "9" * 400, "0x" + "f" * 99, "true", '""'),
    *("'''x'''", "[]", "{}", "[[1]]", "{a.b.c = 1}", "1979-05-27", "07:32:00"),
    *('"' + "x" * 400 + '"', '["gru", 1]', "[" * 50 + "]" * 50, "\ufeff", "[["),
    *('"\\u0000"', "a.b = 1\n"),
)  # fmt: skip
"""Values that a key of a suite might have."""


def inputs(count: int, seed: int, most_s: float = MOST_S) -> Iterator[random.Random]:
    """Yield a source of random numbers for each input; watch the time and memory."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(round(count * TIMES)):
        began_s = time.monotonic()
        yield random.Random(seed * 1_000_000 + number)
        assert time.monotonic() - began_s < most_s, number
    after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after_kb - before_kb < MOST_GROWTH_KB


def said_by(read: Callable[[], object], kind: type[Exception] = MisuseError) -> Any:
    """Return the sentence that reading ends with, or None if it ends well."""
    try:
        read()
    except kind as error:
        said = str(error)
    else:
        return None
    assert 0 < len(said) < 20_000
    return said


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fuzz.small_run(tmp_path_factory.mktemp("fuzz") / "run")


@pytest.mark.parametrize(("command", "count"), [("export", 60), ("show", 15)])
def test_odd_values_with_right_checksums_are_shown_or_left_out(
    command: str,
    count: int,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    codes: Counter[int] = Counter()
    for rng in inputs(count, len(command)):
        file = rng.choice(fuzz.documents(run))
        undo = fuzz.change(file, rng)
        code, out, err = helpers.call([command, str(run.path)], monkeypatch, capsys)
        undo()
        assert "Traceback" not in out + err
        assert code == DONE or (code == MISUSE and file.name == "run.json"), err
        codes[code] += 1
    assert codes[DONE] > codes.total() / 2


def test_numbers_of_any_size_are_left_out_or_shown_compared_and_drawn(
    run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    here, there = str(run.path), str(shutil.copytree(run.path, tmp_path / "before"))
    commands = (
        ["show"],
        ["show", "--json"],
        ["export"],
        ["compare", there],
        ["report"],
    )
    left_out = shown = 0
    for rng in inputs(2, 7, most_s=300):
        undo = fuzz.renumber(run, rng)
        every = len(list(run.trials.iterdir()))
        found = len(run.contents().left_out)
        for command in commands:
            code, out, err = helpers.call([*command, here], monkeypatch, capsys)
            assert "Traceback" not in out + err
            usual = {NOTHING} if found == every else {DONE}
            allowed = usual | ({NO, NOTHING} if command[0] == "compare" else set())
            assert code in allowed, err
        undo()
        left_out, shown = left_out + found, shown + every - found
    assert left_out
    assert shown


def test_damaged_files_of_a_run_are_left_out_one_by_one(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    run.write_info({"suite": {"name": "tiny"}})
    arrays = {"w": np.arange(3.0)}
    for seed, name in enumerate(("one", "two")):
        trial = replace(helpers.LEARNING, seed=seed, settings=LearningSettings(20))
        attempt = run.begin(trial, name, {"cell gru": "0"})
        attempt.checkpoint({"updates": 1}, arrays)
        if name == "one":
            attempt.commit({"outcome": "ok", "reason": None}, (), arrays)
        else:
            attempt.abandon()
    files = [f for f in sorted(run.path.rglob("*")) if f.is_file()]
    for rng in inputs(2000, 1):
        file = rng.choice(files)
        content = file.read_bytes()
        file.write_bytes(fuzz.damaged(content, rng))
        said = said_by(run.contents)
        assert (said is not None) == (said_by(run.info) is not None)
        assert said is None or file.name == "run.json"
        RunFolder(run.path).begun(trial)
        run.checkpoint("two")
        for name in ("one", "two"):
            run.read(name)
        file.write_bytes(content)
    assert len(run.records()) == 1


def test_damaged_archives_are_arrays_or_refused() -> None:
    stream = io.BytesIO()
    np.savez(stream, w=np.arange(6.0).reshape(2, 3), b=np.ones(2, np.float32))
    content = stream.getvalue()
    refused = tried = 0
    for rng in inputs(3000, 2):
        some = fuzz.damaged(content, rng)
        tried += 1
        refused += said_by(lambda some=some: arrays_in(some), ValueError) is not None
    assert refused > tried / 2


def _other_word(content: bytes, rng: random.Random) -> bytes:
    lines = content.decode().split("\n")
    at = rng.randrange(len(lines))
    lines[at] = f"{lines[at].partition('=')[0]} = {rng.choice(WORDS)}"
    return "\n".join(lines).encode()


@pytest.mark.parametrize("change", [fuzz.damaged, _other_word])
def test_an_odd_suite_is_read_or_a_sentence(
    change: Callable[[bytes, random.Random], bytes], tmp_path: Path
) -> None:
    file = tmp_path / "suite.toml"
    for rng in inputs(700, 3):
        file.write_bytes(change(SUITE.encode(), rng))
        said_by(
            lambda: load_suite(str(file), helpers.REGISTRY, may_run=lambda _: False)
        )


def test_an_odd_history_gives_observations_alone(tmp_path: Path) -> None:
    file = tmp_path / "costs.jsonl"
    for value in (40.0, 41.0):
        append(file, [Observation("a", ("b",), Work(3.0), 1.0, value)])
    content = file.read_bytes()
    for rng in inputs(1500, 4):
        file.write_bytes(fuzz.damaged(content, rng))
        for found in observations(file):
            assert found.wall_time_s in (40.0, 41.0)


def test_an_odd_cached_document_is_the_one_that_was_sealed(tmp_path: Path) -> None:
    file = tmp_path / "certificate.json"
    right = {"id": "a", "result": {"kernel": "b"}, "readings": []}
    file.write_text(sealed(to_json(right)))
    content = file.read_bytes()
    for rng in inputs(1500, 5):
        file.write_bytes(fuzz.damaged(content, rng))
        if said_by(lambda: read_sealed(file), ValueError) is None:
            assert read_sealed(file) == right


@pytest.mark.parametrize("verb", ["run", "gate"])
def test_an_odd_suite_of_a_command_is_a_sentence(
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "suite.toml"
    dry = ("--dry-run",) if verb == "run" else ("--base", "no-such-commit")
    for rng in inputs(25, 6):
        file.write_bytes(_other_word(SUITE.encode(), rng))
        arguments = [verb, "suite.toml", *dry]
        code, out, err = helpers.call(arguments, monkeypatch, capsys)
        assert code in (DONE, MISUSE, NOTHING), err
        assert "Traceback" not in out + err
        assert len(err) < 50_000
