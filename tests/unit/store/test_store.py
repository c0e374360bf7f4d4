import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import store
from harness.analysis.frame import COLUMNS, frame
from harness.analysis.run import JudgedRun
from harness.contract import Optimizer
from harness.errors import MisuseError
from harness.files.arrays import read_arrays
from harness.files.text import hash_of, parse_object
from harness.store import Reading, RunFolder, to_json, write_atomically
from harness.store.run_folder import Begun
from harness.trial import (
    SETTINGS_OF,
    CertificateSettings,
    GradientsSettings,
    LearningSettings,
    Settings,
    SpeedSettings,
    Trial,
)
from tests import helpers

SOURCES = {"cell gru": "0"}
LEARNING = replace(
    helpers.LEARNING,
    implementation="torch-native",
    batch=4,
    settings=LearningSettings(updates=20),
)
EVENTS = (
    Reading("train", {"loss": [0.5, 0.25]}, [1, 2], "updates"),
    Reading("held_out", {"loss": 0.3, "hit_rate": 0.1}, 2, "updates"),
)
WHOLE = Reading("outcome", {"solved": 1, "updates_to_solve": 2})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path / "run")
    run.write_info({"suite": {"name": "tiny"}, "device": "cpu"})
    return run


def commit(
    run: RunFolder,
    trial: Trial = LEARNING,
    outcome: str = "ok",
    sources: Mapping[str, str] = SOURCES,
    arrays: dict[str, np.ndarray] | None = None,
    **facts: Any,
) -> str:
    trial_id = trial.identity(sources)
    attempt = run.begin(trial, trial_id, sources)
    for event in EVENTS:
        attempt.write(event)
    reason = None if outcome == "ok" else "a reason"
    attempt.commit({"outcome": outcome, "reason": reason, **facts}, [WHOLE], arrays)
    return trial_id


# --- committed trials are read back ---------------------------------------------------


def test_a_committed_trial_is_read_back_unchanged(run: RunFolder) -> None:
    arrays = {"layer0.w_hh": np.arange(6.0).reshape(2, 3)}
    trial_id = commit(run, arrays=arrays, kernel="aten::gru")
    record = run.read(trial_id)
    assert record is not None
    assert record.trial == LEARNING
    assert record.outcome == "ok"
    assert record.reason is None
    assert record.readings == (WHOLE, *EVENTS)
    assert record.result["kernel"] == "aten::gru"
    assert record.value("outcome", "updates_to_solve") == 2
    assert record.value("held_out", "loss") is None  # it is a curve, not one value
    np.testing.assert_array_equal(
        run.arrays(trial_id)["layer0.w_hh"], [[0, 1, 2], [3, 4, 5]]
    )


def test_a_trial_that_was_not_committed_is_not_done(run: RunFolder) -> None:
    attempt = run.begin(LEARNING, "one", SOURCES)
    attempt.write(EVENTS[0])
    attempt.abandon()
    assert run.read("one") is None
    assert run.damage("one") is None
    assert run.records() == []
    assert json.loads((run.trials / "one/spec.json").read_text())["sources"] == SOURCES


def test_an_attempt_never_writes_into_another(run: RunFolder) -> None:
    (run.trials / "one").mkdir()
    (run.trials / "one" / "attempt-001.bak").mkdir()
    for number in (1, 2, 3):
        attempt = run.begin(LEARNING, "one", SOURCES)
        assert attempt.folder.name == f"attempt-{number:03d}"
        attempt.abandon()


def test_a_failed_trial_is_replaced_by_one_that_ends_ok(run: RunFolder) -> None:
    trial_id = commit(run, outcome="crashed")
    assert run.damage(trial_id) is None
    assert commit(run) == trial_id
    (record,) = run.records()
    assert record.outcome == "ok"
    assert len(list((run.trials / trial_id).glob("attempt-*"))) == 2


def test_cells_are_in_the_order_of_a_suite_with_only_gradients(
    run: RunFolder,
) -> None:
    cells = ["lstm", "rnn", "gru"]
    run.write_info({"suite": {"name": "tiny", "gradients": [{"cells": cells}]}})
    for cell in reversed(cells):
        commit(run, Trial("gradients", "numpy-reference", cell))
    assert [record.trial.cell for record in run.records()] == cells


def test_records_are_the_latest_of_each_key_and_the_gradients_that_followed_it(
    run: RunFolder,
) -> None:
    def gradients(followed: str) -> Trial:
        return replace(
            LEARNING, measure="gradients", settings=GradientsSettings(followed)
        )

    old = commit(run, sources={"cell gru": "old"})
    commit(run, gradients(old))
    new = commit(run, sources={"cell gru": "new"})
    follower = commit(run, gradients(new))
    assert [record.id for record in run.records()] == [new, follower]


def test_the_latest_record_does_not_depend_on_the_clock(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(run, sources={"cell gru": "before commits had numbers"}, commit=0)
    commit(run, sources={"cell gru": "old"})
    monkeypatch.setattr("time.time", lambda: 1.0)  # the clock was set back to 1970
    again = RunFolder.open(run.path)
    new = commit(again, sources={"cell gru": "new"})
    (record,) = again.records()
    assert record.id == new
    assert record.result["committed_at"] == 1.0
    assert record.result["wall_time_s"] >= 0


# --- resuming from a checkpoint -------------------------------------------------------

STATE = {"updates": 2, "solved_at": [1]}
ARRAYS = {"weights/w": np.arange(3.0), "optimizer/w.exp_avg": np.ones(2, np.float32)}


def interrupted(run: RunFolder) -> None:
    """Make an attempt that is killed one event after a checkpoint."""
    attempt = run.begin(LEARNING, "one", SOURCES)
    attempt.write(EVENTS[0])
    attempt.checkpoint(STATE, ARRAYS)
    attempt.write(EVENTS[1])
    attempt.abandon()


def test_a_trial_resumes_with_the_curve_up_to_its_checkpoint(
    run: RunFolder,
) -> None:
    assert run.checkpoint("one") is None
    interrupted(run)
    found = run.checkpoint("one")
    assert found is not None
    assert found.state == STATE
    assert {n: (a.dtype, a.tolist()) for n, a in found.arrays.items()} == {
        n: (a.dtype, a.tolist()) for n, a in ARRAYS.items()
    }
    attempt = run.begin(LEARNING, "one", SOURCES, resume=found)
    attempt.restart(resumed=True)
    attempt.write(EVENTS[1])
    attempt.commit({"outcome": "ok", "reason": None})
    record = run.read("one")
    assert record is not None
    assert record.readings == EVENTS
    assert record.result["resumed_from"] == "attempt-001"
    assert run.checkpoint("one") is None  # no checkpoint is left


def test_a_checkpoint_of_an_earlier_version_is_used(run: RunFolder) -> None:
    interrupted(run)
    file = run.trials / "one" / "attempt-001" / "checkpoint.npz"
    arrays = read_arrays(file)
    document = parse_object(arrays["state.json"].tobytes())
    del document["arrays"]
    state = np.frombuffer(json.dumps(document).encode(), np.uint8)
    np.savez(file, **{**arrays, "state.json": state})
    found = run.checkpoint("one")
    assert found is not None
    assert found.state == STATE
    arrays["weights/w"][1] += 1
    np.savez(file, **arrays)  # the state says what its arrays were
    assert run.checkpoint("one") is None


def test_a_result_of_an_earlier_version_stays_if_the_next_attempt_is_interrupted(
    run: RunFolder,
) -> None:
    """Its specification has another form now, and the result has a hash of it."""
    trial_id = commit(run)
    folder = run.trials / trial_id
    spec = {**parse_object((folder / "spec.json").read_bytes()), "schema": 1}
    helpers.write(folder / "spec.json", json.dumps(spec, indent=1) + "\n")
    result = parse_object((folder / "result.json").read_bytes())
    result["files"]["spec.json"] = hash_of((folder / "spec.json").read_bytes())
    helpers.write(folder / "result.json", json.dumps({**result, "schema": 1}))
    before = run.read(trial_id)
    assert before is not None
    run.begin(LEARNING, trial_id, SOURCES).abandon()
    assert run.read(trial_id) == before
    assert run.damage(trial_id) is None


def test_a_result_of_this_version_without_its_checksum_is_damage(
    run: RunFolder,
) -> None:
    trial_id = commit(run)
    file = run.trials / trial_id / "result.json"
    helpers.write(file, json.dumps(parse_object(file.read_bytes())))
    assert "it has no checksum" in (run.damage(trial_id) or "")


def test_a_trial_that_cannot_resume_begins_with_an_empty_curve(run: RunFolder) -> None:
    interrupted(run)
    attempt = run.begin(LEARNING, "one", SOURCES, resume=run.checkpoint("one"))
    attempt.restart(resumed=False)
    attempt.commit({"outcome": "ok", "reason": None})
    record = run.read("one")
    assert record is not None
    assert record.readings == ()
    assert "resumed_from" not in record.result


def test_a_trial_restarted_on_another_worker_loses_events_after_its_checkpoint(
    run: RunFolder,
) -> None:
    interrupted(run)
    attempt = run.begin(LEARNING, "one", SOURCES, resume=run.checkpoint("one"))
    for _ in range(2):
        attempt.restart(resumed=True)
        attempt.write(EVENTS[1])
    attempt.checkpoint({"updates": 4}, ARRAYS)
    attempt.write(EVENTS[0])
    attempt.restart(resumed=True)
    attempt.commit({"outcome": "timeout", "reason": "stopped at 5 s"})
    found, record = run.checkpoint("one"), run.read("one")
    assert found is not None
    assert record is not None
    assert found.state == {"updates": 4}
    assert record.readings == EVENTS
    assert [json.loads(line)["x"] for line in found.events.splitlines()] == [[1, 2], 2]


@pytest.mark.parametrize("name", ["checkpoint.npz", "events.jsonl"])
def test_the_previous_checkpoint_is_used_if_the_last_one_is_damaged(
    run: RunFolder, name: str
) -> None:
    interrupted(run)
    attempt = run.begin(LEARNING, "one", SOURCES, resume=run.checkpoint("one"))
    attempt.checkpoint({"updates": 4}, ARRAYS)
    attempt.abandon()
    _flip(run.trials / "one" / "attempt-002" / name)
    found = run.checkpoint("one")
    assert found is not None
    assert (found.attempt, found.state) == ("attempt-001", STATE)


def test_a_failed_trial_can_resume_and_keeps_the_end_of_its_log(
    run: RunFolder,
) -> None:
    attempt = run.begin(LEARNING, "one", SOURCES)
    attempt.checkpoint(STATE, ARRAYS)
    attempt.write_log(b"begins\n" + b"x" * 9000 + b"\nlast words \xff\n")
    attempt.commit({"outcome": "crashed", "reason": "SIGSEGV"})
    record = run.read("one")
    assert record is not None
    assert record.result["log_tail"][-1] == "last words \N{REPLACEMENT CHARACTER}"
    assert sum(map(len, record.result["log_tail"])) < 5000
    assert run.checkpoint("one") is not None


# --- commit is one rename ------------------------------------------------------------


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_killed_commit_leaves_the_earlier_result(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    trial_id = commit(run, outcome="crashed")
    before = (run.trials / trial_id / "result.json").read_bytes()
    attempt = run.begin(LEARNING, trial_id, SOURCES)
    attempt.write(EVENTS[0])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(
            *((os, "fsync") if broken == "fsync" else (Path, "replace")), killed
        )
        with pytest.raises(KeyboardInterrupt):
            attempt.commit({"outcome": "ok", "reason": None}, [WHOLE])
    attempt.abandon()
    assert (run.trials / trial_id / "result.json").read_bytes() == before
    assert run.damage(trial_id) is None
    assert commit(run) == trial_id
    record = run.read(trial_id)
    assert record is not None
    assert record.outcome == "ok"


def test_a_killed_first_commit_leaves_the_trial_unfinished(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = run.begin(LEARNING, "one", SOURCES)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            attempt.commit({"outcome": "ok", "reason": None})
    assert run.read("one") is None
    assert run.records() == []


def test_the_events_are_synced_before_the_rename_and_the_folder_after(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = run.begin(LEARNING, "one", SOURCES)
    seen: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def watch_sync(descriptor: int) -> None:
        seen.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def watch_rename(self: Path, target: Path) -> Path:
        seen.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", watch_sync)
    monkeypatch.setattr(Path, "replace", watch_rename)
    attempt.commit({"outcome": "ok", "reason": None}, arrays={"w": np.ones(2)})
    names = [re.sub(r"^\.(.*)\.\d+\.\w+\.tmp$", r"\1 so far", name) for name in seen]
    assert names == [
        "events.jsonl",
        *("arrays.npz so far", "rename", "attempt-001"),
        "attempt-001",
        *("result.json so far", "rename", "one"),
    ]


def test_a_file_is_written_completely_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.json"
    write_atomically(file, "first")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(file, "second")
    assert file.read_text() == "first"


# --- damage --------------------------------------------------------------------------


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def _set(text: str) -> Any:
    return lambda file: file.write_text(text)


def _settings_become(settings: dict[str, object]) -> Any:
    def harm(file: Path) -> None:
        spec = json.loads(file.read_text())
        spec["trial"]["settings"] = settings
        file.write_text(json.dumps(spec))

    return harm


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("result.json", _cut, "cut short"),
        ("result.json", _set(""), "cut short"),
        ("result.json", _set("[]"), "cut short"),
        ("result.json", _set('{"schema": 1, "files": {}}'), "cut short"),
        ("result.json", _set('{"schema": 1, "files": {}, "readings": [3]}'), "cut"),
        ("result.json", lambda file: file.write_bytes(b"\xff\xfe"), "cut short"),
        ("spec.json", _cut, "cut short"),
        ("spec.json", _set('{"trial": []}'), "cut short"),
        ("spec.json", Path.unlink, "unreadable"),
        ("spec.json", _settings_become({"updates": "many"}), "updates is 'many', not"),
        ("spec.json", _settings_become({"evaluate_every": 1}), "argument: 'updates'"),
        ("spec.json", _settings_become({"of_later": 1}), "knows no of_later"),
        ("attempt-001/events.jsonl", _flip, "events.jsonl does not match its hash"),
        ("attempt-001/events.jsonl", _cut, "events.jsonl does not match its hash"),
        ("attempt-001/events.jsonl", Path.unlink, "does not match its hash"),
        ("attempt-001/arrays.npz", _flip, "arrays.npz does not match its hash"),
    ],
)
def test_damage_is_reported_and_the_trial_is_not_done(
    run: RunFolder, name: str, harm: Any, message: str
) -> None:
    other = commit(run, replace(LEARNING, seed=1))
    trial_id = commit(run, arrays={"w": np.ones(4)})
    harm(run.trials / trial_id / name)
    assert message in (run.damage(trial_id) or "")
    assert list(run.damaged()) == [trial_id]
    assert run.read(trial_id) is None
    assert [record.id for record in run.records()] == [other]


def test_a_changed_spec_that_can_still_be_read_is_damage(run: RunFolder) -> None:
    trial_id = commit(run)
    file = run.trials / trial_id / "spec.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 7'))
    assert run.damage(trial_id) == "spec.json does not match its hash"


@pytest.mark.parametrize("name", ["result.json", "spec.json"])
def test_a_damaged_result_is_moved_aside_when_it_is_measured_again(
    run: RunFolder, name: str
) -> None:
    trial_id = commit(run)
    for times in (1, 2):
        _cut(run.trials / trial_id / name)
        harmed = (run.trials / trial_id / "result.json").read_bytes()
        assert commit(run) == trial_id
        assert run.damage(trial_id) is None
        aside = run.trials / trial_id / f"result.json.damaged-{times}"
        assert aside.read_bytes() == harmed


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": 999, "files": {}, "what": "is unknown here"}',
        '{"schema": 999}',
        '{"schema": 999, "files": 3, "readings": {}}',
    ],
)
def test_a_result_of_a_newer_schema_is_left_out_and_not_overwritten(
    run: RunFolder, text: str
) -> None:
    trial_id = commit(run)
    file = run.trials / trial_id / "result.json"
    file.write_text(text)
    before = helpers.snapshot(run.path)
    other = commit(run, replace(LEARNING, seed=1))
    left_out = run.contents().left_out
    assert [record.id for record in run.records()] == [other]
    assert list(left_out) == [trial_id]
    assert "schema 999, written by a newer rnn-harness" in left_out[trial_id].what
    advice = "upgrade rnn-harness, or move the trial away"
    assert left_out[trial_id].advice == advice
    for ask in (run.damage, lambda name: run.begin(LEARNING, name, SOURCES)):
        with pytest.raises(
            MisuseError, match=r"schema 999.*newer rnn-harness; upgrade"
        ):
            ask(trial_id)
    assert before.items() <= helpers.snapshot(run.path).items()


def test_a_copy_of_a_trial_is_reported_and_does_not_replace_the_trial(
    run: RunFolder,
) -> None:
    finished = commit(run)
    before = run.records()
    shutil.copytree(run.trials / finished, run.trials / f"{finished}.bak")
    assert run.records() == before
    assert run.damaged() == {f"{finished}.bak": f"it is a copy of {finished}"}


def test_a_result_without_its_trial_is_damaged(run: RunFolder) -> None:
    finished = commit(run)
    file = run.trials / finished / "result.json"
    result = json.loads(file.read_text())
    del result["trial"]
    file.write_text(json.dumps(result))
    assert "unreadable" in run.damaged()[finished]
    assert run.records() == []


def test_unfinished_files_of_a_killed_process_are_removed(
    run: RunFolder,
) -> None:
    trial_id = LEARNING.identity(SOURCES)
    attempt = run.begin(LEARNING, trial_id, SOURCES)
    attempt.abandon()
    left = attempt.folder / ".checkpoint.npz.17.tmp"
    left.touch()
    run.begin(LEARNING, trial_id, SOURCES).abandon()
    assert not left.exists()


def test_foreign_files_in_the_trials_folder_are_ignored(run: RunFolder) -> None:
    trial_id = commit(run)
    helpers.write(run.trials / "notes.txt", "mine")
    (run.trials / "empty").mkdir()
    (run.trials / "theirs").mkdir()
    helpers.write(run.trials / "theirs" / "spec.json", "[]")
    helpers.write(run.trials / trial_id / "notes.txt", "mine")
    assert [record.id for record in run.records()] == [trial_id]
    assert run.damaged() == {}
    assert run.begun(LEARNING) == [Begun(trial_id, LEARNING, SOURCES)]


# --- the run folder ------------------------------------------------------------------


def test_a_folder_can_be_used_after_a_run_was_killed_at_its_start(
    tmp_path: Path,
) -> None:
    RunFolder.create(tmp_path)
    helpers.write(tmp_path / ".lock", "1")
    helpers.write(tmp_path / ".run.json.17.tmp", "{")
    run = RunFolder.create(tmp_path)
    run.write_info({"device": "cpu"})
    assert RunFolder.open(tmp_path).info()["device"] == "cpu"
    assert run.records() == []


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "trials/gru-1"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "trials").mkdir()
    helpers.write(tmp_path / name, "mine")
    before = helpers.snapshot(tmp_path)
    with pytest.raises(MisuseError, match=r"not empty and holds no run\.json"):
        RunFolder.create(tmp_path)
    assert helpers.snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("{}", "is damaged"),
        ('{"schema": "new"}', "is damaged"),
        ('{"schema": 999}', "has schema 999, written by a newer rnn-harness"),
    ],
)
def test_a_run_json_that_cannot_be_read_is_refused(
    run: RunFolder, text: str, message: str
) -> None:
    helpers.write(run.path / "run.json", text)
    before = helpers.snapshot(run.path)
    for use in (RunFolder.create, RunFolder.open):
        with pytest.raises(MisuseError, match=message):
            use(run.path)
    assert helpers.snapshot(run.path) == before


def test_a_folder_has_one_writer_and_the_error_for_another_names_it(
    run: RunFolder,
) -> None:
    other = RunFolder.open(run.path)
    with run.locked():
        who = (
            rf"in use by process {os.getpid()} on \S+ since \d{{4}}-.* UTC; wait for it"
        )
        with pytest.raises(MisuseError, match=who), other.locked():
            pass
    with other.locked():
        pass


def test_run_json_is_read_back_unchanged(run: RunFolder) -> None:
    run.write_info({"choices": {"adding 10 gru": "torch-native"}})
    assert run.info() == {"schema": 2, "choices": {"adding 10 gru": "torch-native"}}


# --- the tidy frame ------------------------------------------------------------------


def test_the_frame_has_one_row_for_each_value_and_the_documented_columns(
    run: RunFolder,
) -> None:
    commit(run, quantities={"loss": {"unit": "nats", "better": "lower"}})
    commit(run, Trial("parity", "torch-native", "gru"), outcome="crashed")
    table = frame(JudgedRun.read(run))
    assert tuple(table.columns) == COLUMNS
    assert tuple(frame(JudgedRun([])).columns) == COLUMNS
    learning = table[table.measure == "learning"]
    assert len(learning) == 2 + 2 + 2  # outcome, train, held out
    train = learning[learning.split == "train"]
    assert train.x.tolist() == [1, 2]
    assert train.value.tolist() == [0.5, 0.25]
    assert set(train.unit) == {"nats"}
    assert set(learning.learning_rate) == {LEARNING.optimizer.learning_rate}
    certificates = table[table.measure == "parity"]
    assert len(certificates)
    assert certificates[["learning_rate", "clip"]].isna().all(axis=None)


def test_a_trial_without_values_is_one_row_with_its_outcome(run: RunFolder) -> None:
    attempt = run.begin(LEARNING, "one", SOURCES)
    attempt.commit({"outcome": "crashed", "reason": "SIGSEGV in torch-native"})
    table = frame(JudgedRun.read(run))
    assert len(table) == 1
    row = table.iloc[0]
    assert (row.outcome, row.reason) == ("crashed", "SIGSEGV in torch-native")
    assert np.isnan(row.value)
    assert row.metric is None or row.metric != row.metric


def test_speed_is_certified_only_if_the_read_back_agreed(
    run: RunFolder,
) -> None:
    def put(trial: Trial, *readings: Reading) -> None:
        attempt = run.begin(trial, trial.identity(SOURCES), SOURCES)
        attempt.commit({"outcome": "ok", "reason": None}, readings)

    put(Trial("parity", "a", "gru"), Reading("certificate", {"certified": 1}))
    put(Trial("parity", "b", "gru"), Reading("certificate", {"certified": 0}))
    for name, ok in (("a", 1), ("b", 1), ("c", 1)):
        put(Trial("speed", name, "gru"), Reading("readback", {"ok": ok}))
    put(Trial("speed", "a", "gru", batch=2), Reading("readback", {"ok": 0}))
    put(Trial("speed", "a", "lstm"), Reading("readback", {"ok": 1}))
    table = frame(JudgedRun.read(run))
    speed = table[table.measure == "speed"]
    certified = speed[speed.certified]
    assert [(r.implementation, r.cell) for r in certified.itertuples()] == [
        ("a", "gru")
    ]
    assert len(speed) == 5


# --- JSON ----------------------------------------------------------------------------

_number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(
    -(2**53), 2**53
)
_name = st.text(min_size=1, max_size=8)
_readings = st.builds(
    Reading,
    split=_name,
    values=st.dictionaries(_name, _number | st.none(), max_size=3),
    x=st.none(),
) | st.integers(1, 4).flatmap(
    lambda n: st.builds(
        Reading,
        split=_name,
        values=st.dictionaries(
            _name, st.lists(_number | st.none(), min_size=n, max_size=n), max_size=3
        ),
        x=st.lists(_number, min_size=n, max_size=n),
        x_unit=_name,
    )
)


@pytest.mark.slow
@given(_readings)
def test_a_reading_survives_its_line_of_json(reading: Reading) -> None:
    line = to_json(reading.to_json())
    assert "\n" not in line
    assert Reading.from_json(json.loads(line)) == reading


_settings = st.one_of(
    st.builds(
        LearningSettings,
        updates=st.integers(1, 2**53),
        evaluate_every=st.integers(1, 99),
    ),
    st.builds(
        SpeedSettings,
        phases=st.lists(_name, max_size=2),
        target=st.floats(1e-9, 1e3),
    ),
    st.builds(GradientsSettings, follows=st.none() | _name),
    st.builds(CertificateSettings),
)


def _of_settings(settings: Settings) -> str:
    return next(name for name, kind in SETTINGS_OF.items() if kind is type(settings))


_trials = st.builds(
    lambda settings, **fields: Trial(
        _of_settings(settings), settings=settings, **fields
    ),
    implementation=_name,
    cell=_name,
    device=st.sampled_from(["cpu", "cuda:0"]),
    dtype=st.sampled_from(["float32", "float64"]),
    threads=st.integers(1, 8),
    session=st.none() | _name,
    task=st.none() | _name,
    task_options=st.dictionaries(_name, st.booleans() | _number | _name, max_size=2),
    length=st.none() | st.integers(1, 999),
    seed=st.none() | st.integers(0, 99),
    optimizer=st.builds(
        Optimizer,
        learning_rate=st.floats(1e-9, 1e3),
        clip_norm=st.none() | st.floats(1e-9, 1e3),
    ),
    settings=_settings,
)


@given(_trials, _trials)
def test_a_trial_survives_json_and_its_key_is_its_own(one: Trial, two: Trial) -> None:
    again = Trial.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False)))
    assert again == one
    assert again.key() == one.key()
    assert again.identity(SOURCES) == one.identity(SOURCES)
    assert (one.key() == two.key()) == (one.to_json() == two.to_json())


@given(_trials)
def test_an_id_is_a_valid_folder_name(trial: Trial) -> None:
    name = trial.identity(SOURCES)
    assert set(name) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"
    )
    assert len(name) < 200
    assert trial.identity({"cell gru": "1"}) != name


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_values_that_are_not_finite_become_null(value: float) -> None:
    assert to_json({"a": [value], "b": {"c": value}}) == '{"a":[null],"b":{"c":null}}'


def test_every_stored_file_is_valid_json_without_nan(run: RunFolder) -> None:
    trial_id = LEARNING.identity(SOURCES)
    attempt = run.begin(LEARNING, trial_id, SOURCES)
    attempt.write(Reading("train", {"loss": [math.nan, 1.0]}, [1, 2], "updates"))
    attempt.commit(
        {"outcome": "diverged", "reason": "loss became NaN at update 1"},
        [Reading("outcome", {"loss": math.inf})],
    )

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for file in run.path.rglob("*.json*"):
        for line in (
            file.read_text().splitlines()
            if file.suffix == ".jsonl"
            else [file.read_text()]
        ):
            json.loads(line, parse_constant=refuse)
    table = frame(JudgedRun.read(run))
    assert table.value.isna().sum() == 2
    assert table.value.dropna().tolist() == [1.0]


def test_the_schema_of_this_version_is_written_everywhere(run: RunFolder) -> None:
    trial_id = commit(run)
    for name in (
        "run.json",
        f"trials/{trial_id}/spec.json",
        f"trials/{trial_id}/result.json",
    ):
        assert json.loads((run.path / name).read_text())["schema"] == store.SCHEMA
