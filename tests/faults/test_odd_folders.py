"""Folders of a stranger or of another user: what is odd in them is left out."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from harness.errors import MisuseError
from harness.machine.cache import user_cache
from harness.store import Reading, RunFolder, UnstorableError
from harness.store import attempt as attempts
from harness.trial import LearningSettings, Trial
from tests import helpers

pytestmark = pytest.mark.slow

Call = Callable[..., tuple[int, str, str]]

LEARNING = replace(helpers.LEARNING, settings=LearningSettings(updates=20))
SOURCES = {"cell gru": "0"}
SECRET = "of somebody else"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Return a run with two trials: `odd`, which tests change, and another."""
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create(tmp_path / "run")
    run.write_info({"suite": {"name": "tiny"}, "device": "cpu"})
    for seed, name in enumerate(("odd", "other")):
        attempt = run.begin(replace(LEARNING, seed=seed), name, SOURCES)
        attempt.write(Reading("train", {"loss": [0.5, 0.25]}, [1, 2], "updates"))
        whole = Reading("outcome", {"solved": 1, "updates_to_solve": 2})
        arrays = {"w": np.arange(3.0)}
        attempt.commit({"outcome": "ok", "reason": None}, [whole], arrays)
    helpers.write(tmp_path / "secret", SECRET)
    return run


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: object) -> tuple[int, str, str]:
        code, out, err = helpers.call([*map(str, arguments)], monkeypatch, capsys)
        assert "Traceback" not in out + err
        return code, out, err

    return call


# --- one odd file ---------------------------------------------------------------------


def _link(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    file.with_name("elsewhere").write_bytes(content)
    file.symlink_to("elsewhere")


def _endless(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _brackets(file: Path) -> None:
    file.write_bytes(b"[" * 100_000)


def _nested(file: Path) -> None:
    file.write_bytes(b'{"a":' * 100_000)


def _huge(file: Path) -> None:
    os.truncate(file, 1 << 40)


ODD = (_link, _endless, _pipe, _folder, _brackets, _nested, _huge)
FILES = ("result.json", "spec.json", "attempt-001/events.jsonl",
         "attempt-001/arrays.npz")  # fmt: skip


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", ODD)
def test_one_odd_file_leaves_out_its_trial_and_everything_else_is_read(
    harm: Callable[[Path], None], file: str, run: RunFolder, call: Call
) -> None:
    harm(run.trials / "odd" / file)
    code, out, err = call("export", "run")
    assert code == 0
    assert "trial odd is left out: " in err
    assert len(err) < 1000
    assert {line.split(",")[0] for line in out.splitlines()} == {"trial", "other"}
    assert RunFolder(run.path).arrays("other")["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("place", ["trials/odd", "."])
def test_the_name_of_a_folder_makes_no_line_of_its_own(
    place: str, run: RunFolder, call: Call
) -> None:
    forged = "certified: 22 checks"
    _brackets(run.trials / "odd" / "result.json")
    named = (run.path / place).with_name(f"x\n{forged}")
    (run.path / place).rename(named)
    folder = "run" if place != "." else named.name
    empty = f"empty\n{forged}"
    RunFolder.create(Path(empty)).write_info({})
    lines = []
    for command in (
        *(("show", folder), ("export", folder), ("report", folder), ("show", empty)),
        ("compare", folder, empty),
    ):
        _, out, err = call(*command)
        lines += [*out.splitlines(), *err.splitlines()]
    assert sum(forged in line for line in lines) >= 3
    assert not [line for line in lines if line.strip().startswith(forged)]


@pytest.mark.parametrize("harm", ODD)
def test_an_odd_run_json_is_a_sentence(
    harm: Callable[[Path], None], run: RunFolder, call: Call
) -> None:
    harm(run.path / "run.json")
    for command in ("export", "show", "report"):
        code, _, err = call(command, "run")
        assert code == 2
        assert "run.json is damaged" in err or "run.json cannot be read" in err


@pytest.mark.parametrize("name", ["checkpoint.npz", "events.jsonl"])
@pytest.mark.parametrize("harm", ODD)
def test_an_odd_checkpoint_is_not_used(
    harm: Callable[[Path], None], name: str, run: RunFolder
) -> None:
    attempt = run.begin(LEARNING, "begun", SOURCES)
    attempt.write(Reading("train", {"loss": [0.5]}, [1], "updates"))
    attempt.checkpoint({"updates": 1}, {"w": np.ones(2)})
    attempt.abandon()
    assert run.checkpoint("begun") is not None
    harm(attempt.folder / name)
    assert run.checkpoint("begun") is None
    again = run.begin(LEARNING, "begun", SOURCES)
    again.commit({"outcome": "ok", "reason": None})
    assert run.read("begun") is not None


@pytest.mark.parametrize("harm", ODD)
@pytest.mark.parametrize("file", ["result.json", "spec.json"])
def test_a_trial_with_an_odd_file_is_measured_again_and_the_file_is_kept(
    harm: Callable[[Path], None], file: str, run: RunFolder
) -> None:
    harm(run.trials / "odd" / file)
    if (harm, file) == (_folder, "spec.json"):
        with pytest.raises(IsADirectoryError):  # nothing is removed for it
            run.begin(LEARNING, "odd", SOURCES)
        return
    attempt = run.begin(LEARNING, "odd", SOURCES)
    attempt.commit({"outcome": "ok", "reason": None})
    assert run.damage("odd") is None
    assert os.path.lexists(run.trials / "odd" / "result.json.damaged-1")


def test_what_was_moved_aside_is_never_replaced(run: RunFolder) -> None:
    folder = run.trials / "odd"
    helpers.write(folder / "result.json.damaged-2", SECRET)
    for _ in range(2):
        _brackets(folder / "result.json")
        run.begin(LEARNING, "odd", SOURCES).commit({"outcome": "ok", "reason": None})
    assert (folder / "result.json.damaged-2").read_text() == SECRET
    assert (folder / "result.json.damaged-1").exists()
    assert (folder / "result.json.damaged-3").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"kernel": 3}, "kernel should be a valid string"),
        ({"outcome": None}, "outcome should be a valid string"),
        ({"committed_at": "now"}, "committed_at"),
        ({"files": {"../../secret": ""}}, "files"),
        ({"files": {}}, "does not say which trial it is of"),
        ({"readings": [{"split": "a", "values": {"b": "c"}}]}, "is not a number"),
        ({"readings": [{"split": "a", "values": {"b": [1]}}]}, "is not a number"),
        ({"readings": [{"split": "a", "values": {"b": [1]}, "x": [1, 2]}]}, "points"),
        ({"readings": [{"split": 1, "values": {}}]}, "is not text"),
        ({"readings": [3]}, "readings.0 should be a valid dictionary"),
        ({"log_tail": [3]}, "log_tail.0 should be a valid string"),
        ({"quantities": {"loss": {"units": "s"}}}, "quantities.loss.unit"),
        ({"unstable": {"forward": [{"kind": "x"}]}}, "unstable.forward.0.words"),
        ({"schema": "2"}, "schema is not a number"),
        ({"schema": True}, "schema is not a number"),
    ],
)
def test_a_value_of_another_type_leaves_out_its_trial(
    change: dict[str, object], what: str, run: RunFolder, call: Call
) -> None:
    """Even where somebody has computed the right checksum."""
    helpers.reseal(run.trials / "odd" / "result.json", **change)
    code, _, err = call("export", "run")
    assert code == 0
    assert "trial odd is left out: result.json is cut short or unreadable" in err
    assert what in err


@pytest.mark.parametrize(
    "change",
    [
        {"batch": "8"}, {"seed": 1.5}, {"cell": None}, {"optimizer": {"epsilon": "x"}},
        {"task_options": {"a": [1]}}, {"settings": [1]}, {"threads": True},
        {"measure": ["speed"]}, {"length": 10**30}, {"unknown": 1},
    ],
)  # fmt: skip
def test_a_trial_of_another_type_leaves_out_its_result(
    change: dict[str, object], run: RunFolder
) -> None:
    file = run.trials / "odd" / "spec.json"
    spec = json.loads(file.read_text())
    spec["trial"] |= change
    helpers.write(file, json.dumps(spec))
    assert "spec.json" in run.damaged()["odd"]
    assert [record.id for record in run.records()] == ["other"]


@pytest.mark.parametrize(
    "change",
    [
        {"suite": 3}, {"suite": {"learning": [1]}}, {"choices": []},
        {"suite": {"speed": [{"cells": 1}]}},
        {"environment": {"libraries": [1]}}, {"choices": {"a": 1}},
        {"wall_time_s": "long"}, {"device": 3}, {"environment": {"memory_bytes": "x"}},
        {"started_at": -1.0}, {"wall_time_s": 1e300},
    ],
)  # fmt: skip
def test_a_run_json_of_other_types_is_damaged(
    change: dict[str, object], run: RunFolder, call: Call
) -> None:
    helpers.reseal(run.path / "run.json", **change)
    code, _, err = call("export", "run")
    assert code == 2
    assert "run.json is damaged; restore it" in err


@pytest.mark.parametrize(
    "change",
    [
        {"suite": {"foo": [1]}}, {"suite": {"foo": [{"cells": [[1]]}]}},
        {"suite": {"foo": {"cells": 1}}}, {"foo": [1]},
        {"suite": None}, {"choices": None}, {"environment": None}, {"device": None},
        {"wall_time_s": None}, {"estimates": None}, {"gate": None},
    ],
)  # fmt: skip
def test_what_a_run_json_lacks_or_nobody_knows_hinders_no_command(
    change: dict[str, object], run: RunFolder, call: Call
) -> None:
    from harness.run.info import RunInfo
    from harness.suite import load_suite

    helpers.reseal(run.path / "run.json", **change)
    shutil.copytree(run.path, "copy")
    for command in ("show run", "report run", "export run", "compare copy run"):
        code, _, err = call(*command.split())
        assert code == (5 if "compare" in command else 0), err  # nothing is timed
    suite = load_suite("smoke", helpers.REGISTRY)
    assert call("run", "smoke", "-o", "run", "--dry-run")[0] == 2  # another suite
    RunInfo(run, suite, helpers.REGISTRY, "cpu", 1).write()
    assert run.info()["choices"] == {}


@pytest.mark.parametrize("number", [2**53, 2**53 - 1, 2**53 + 1, 10**400, "9", -5, {}])
def test_the_number_of_one_commit_stops_no_later_commit(
    number: object, run: RunFolder
) -> None:
    helpers.reseal(run.trials / "odd" / "result.json", commit=number)
    again = RunFolder(run.path)
    ended = {"outcome": "ok", "reason": None}
    for name in ("first", "second", "third"):  # of one trial, as with other sources
        again.begin(replace(LEARNING, seed=7), name, {"cell gru": name}).commit(ended)
    whole = {record.id for record in again.records()}
    assert {"other", "third"} <= whole
    assert whole.isdisjoint({"first", "second"})


def test_the_number_of_a_damaged_commit_does_not_count(run: RunFolder) -> None:
    file = run.trials / "odd" / "result.json"
    text = file.read_text().replace('"commit":1,', '"commit":9007199254740992,')
    assert text != file.read_text()
    helpers.write(file, text)
    attempt = RunFolder(run.path).begin(replace(LEARNING, seed=7), "new", SOURCES)
    assert attempt.commit({"outcome": "ok", "reason": None})["commit"] == 3


@pytest.mark.parametrize(
    ("split", "metric", "value"),
    [
        ("train_step", "time_s", -1e-3), ("train_step", "time_s", 0.0),
        ("train_step", "tokens_per_s", 1e308), ("train_step", "peak_bytes", -1),
        ("train_step", "at_s", -1e-9), ("outcome", "updates_to_solve", -7),
        ("readback", "error", -1e-3), ("train", "clipped_fraction", 1.01),
        ("initial", "ratio_loss_median", -1.0), ("held_out", "loss", 1e301),
    ],
)  # fmt: skip
def test_a_value_that_no_measurement_has_leaves_out_its_trial_and_is_not_stored(
    split: str, metric: str, value: float, run: RunFolder, call: Call
) -> None:
    """Whatever unit the file states."""
    reading = Reading(split, {metric: value})
    stated = {"quantities": {metric: {"unit": "nats", "better": "lower"}}}
    file = run.trials / "odd" / "result.json"
    helpers.reseal(file, readings=[reading.to_json()], **stated)
    code, _, err = call("export", "run")
    assert code == 0
    assert f"odd is left out: result.json: {split} {metric} is {value:.4g}, but" in err
    assert "measures it again" in err

    attempt = run.begin(replace(LEARNING, seed=7), "new", SOURCES)
    with pytest.raises(UnstorableError, match=f"{split} {metric} is "):
        attempt.commit({"outcome": "ok", "reason": None, **stated}, [reading])
    assert run.read("new") is None


@pytest.mark.parametrize(
    "change",
    [
        {"commit": -1}, {"wall_time_s": -1.0}, {"committed_at": 1e300},
        {"time_steps": -1}, {"parameters": {"canonical": -3}}, {"disk_bytes": -1},
        {"peak": {"flop_per_s": 0.0}},
        {"peak": {"flop_per_s": 1e9, "copy_bytes_per_s": -1.0}},
    ],
)  # fmt: skip
def test_a_fact_that_no_trial_has_leaves_out_its_trial(
    change: dict[str, object], run: RunFolder
) -> None:
    helpers.reseal(run.trials / "odd" / "result.json", **change)
    said = run.damaged()["odd"]
    assert f"result.json: {next(iter(change))}" in said
    assert "lies between" in said


def test_curves_with_a_value_that_no_measurement_has_are_not_stored(
    run: RunFolder, call: Call
) -> None:
    ended = {"outcome": "ok", "reason": None}
    shares = {"quantities": {"hit_rate": {"unit": "fraction", "better": "higher"}}}
    for values, what in (
        ({"gradient_norm": [0.1, -1.0]}, "train gradient_norm is -1"),
        ({"hit_rate": [0.1, 7.0]}, "train hit_rate is 7"),
    ):
        attempt = run.begin(replace(LEARNING, seed=7), "new", SOURCES)
        attempt.write(Reading("train", values, [1, 2], "updates"))
        with pytest.raises(UnstorableError, match=what):
            attempt.commit(ended | shares)
    attempt = run.begin(replace(LEARNING, seed=7), "new", SOURCES)
    attempt.write(Reading("train", {"loss": [0.1, 0.2]}, [-1, 2], "updates"))
    with pytest.raises(UnstorableError, match="train point is -1, but a count"):
        attempt.commit(ended)


def test_curves_that_are_larger_than_what_is_read_are_not_stored(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MOST_EVENTS_BYTES", 1 << 20)
    attempt = run.begin(replace(LEARNING, seed=7), "new", SOURCES)
    losses = [0.1] * 300_000
    attempt.write(Reading("train", {"loss": losses}, list(range(300_000)), "updates"))
    with pytest.raises(UnstorableError, match="curves take more than 1 MiB"):
        attempt.commit({"outcome": "ok", "reason": None})
    attempt.abandon()
    assert run.read("new") is None


def test_zero_is_read_wherever_a_measurement_can_be_zero(run: RunFolder) -> None:
    zeros = ("at_s", "device_s", "peak_bytes", "error", "tolerance", "found_norm")
    zeros += ("ratio_loss_q10", "gradient_norm", "other_load", "flops", "solved")
    readings = [Reading("train_step", dict.fromkeys(zeros, 0.0))]
    attempt = run.begin(replace(LEARNING, seed=7), "new", SOURCES)
    attempt.commit({"outcome": "ok", "reason": None, "wall_time_s": 0.0}, readings)
    found = run.read("new")
    assert found is not None
    assert found.readings == (*readings,)


def test_the_curves_of_a_stranger_are_readings_or_are_left_out(
    run: RunFolder, call: Call
) -> None:
    from harness.files.text import hash_of, parse_object

    folder = run.trials / "odd"
    large = '{"split":"a","values":{"b":1' + 400 * "0" + "}}"
    text = '{"split":"a","values":{"b":"c"}}'
    for line in ("3", "[]", text, '{"a":1e999}', "nul", large):
        events = helpers.write(folder / "attempt-001" / "events.jsonl", line)
        files = parse_object((folder / "result.json").read_bytes())["files"]
        files |= {"attempt-001/events.jsonl": hash_of(events.read_bytes())}
        helpers.reseal(folder / "result.json", files=files)
        code, _, err = call("export", "run")
        assert code == 0
        assert "odd is left out: a line of events.jsonl is not a reading" in err
        assert "measures it again with --force" in err


def test_a_plugin_file_whose_name_is_not_text_is_checked_and_run(
    tmp_path: Path, call: Call
) -> None:
    from harness.scaffold import NewPlugin, write_plugin

    beside = tmp_path / "mine.py"
    new = NewPlugin("implementation", "mine", "numpy", "gru", beside)
    lines = write_plugin(new, helpers.REGISTRY).read_text().splitlines()
    declares = [line for line in lines if "declare_implementation" in line]
    helpers.write(beside, "\n".join(line for line in lines if line not in declares))
    file = helpers.write(tmp_path / "ok\udcff.py", "\n".join(declares))
    text = helpers.suite(helpers.speed("mine", cells=["gru"]))
    suite = helpers.write(tmp_path / "mine.toml", text)
    assert call("check", file)[0] == 0
    assert call("list", "--plugin", file)[0] == 0
    new_run = tmp_path / "new"
    code, _, err = call("run", suite, "-o", new_run, "--plugin", file)
    assert code == 0, err
    assert call("show", new_run)[0] == 0


# --- links ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["trials", "trials/odd"])
def test_a_run_does_not_write_into_a_linked_folder(
    kind: str, run: RunFolder, tmp_path: Path
) -> None:
    (run.path / kind).rename(tmp_path / "theirs")
    (run.path / kind).symlink_to(tmp_path / "theirs", target_is_directory=True)
    before = helpers.snapshot(tmp_path)
    for use in (
        lambda: RunFolder.create(run.path).begin(LEARNING, "odd", SOURCES),
        lambda: RunFolder(run.path).begin(LEARNING, "odd", SOURCES),
    ):
        with pytest.raises(MisuseError, match=r"is a link.*move it away"):
            use()
    assert helpers.snapshot(tmp_path) == before
    assert len(RunFolder.open(run.path).records()) == 2  # reading does no harm


def test_nothing_is_deleted_behind_a_linked_attempt(
    run: RunFolder, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("checkpoint.npz", ".report.1.tmp"):
        helpers.write(theirs / name, SECRET)
    (run.trials / "begun").mkdir()
    (run.trials / "begun" / "attempt-001").symlink_to(theirs)
    attempt = run.begin(LEARNING, "begun", SOURCES)
    attempt.commit({"outcome": "ok", "reason": None})
    assert {path.name for path in theirs.iterdir()} == {
        *("checkpoint.npz", ".report.1.tmp")
    }
    assert attempt.folder.name == "attempt-002"


def test_a_run_folder_that_a_user_has_linked_is_used(
    run: RunFolder, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(run.path, target_is_directory=True)
    linked = RunFolder.create(tmp_path / "link")
    with linked.locked():
        attempt = linked.begin(LEARNING, "new", SOURCES)
        attempt.commit({"outcome": "ok", "reason": None})
    assert run.read("new") is not None


@pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe", "folder"])
def test_an_odd_lock_is_in_the_way_and_what_it_leads_to_stays(
    kind: str, run: RunFolder, tmp_path: Path
) -> None:
    lock = run.path / ".lock"
    if kind == "symbolic":
        lock.symlink_to(tmp_path / "secret")
    elif kind == "hard":
        lock.hardlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    with pytest.raises(MisuseError) as raised, run.locked():
        pass
    words = {"symbolic": "a link", "hard": "a hard link", "pipe": "a pipe"}
    assert f"{lock} is {words.get(kind, 'a folder')}, and a run" in str(raised.value)
    assert raised.value.exit_code == 2
    assert (tmp_path / "secret").read_text() == SECRET


def test_files_of_a_run_that_are_links_are_replaced_and_not_followed(
    run: RunFolder, tmp_path: Path
) -> None:
    attempt = run.begin(LEARNING, "begun", SOURCES)
    for name in ("log.txt", "events.jsonl", "checkpoint.npz", "arrays.npz"):
        (attempt.folder / name).unlink(missing_ok=True)
        (attempt.folder / name).symlink_to(tmp_path / "secret")
    for name in ("result.json", "run.json"):
        folder = run.path if name == "run.json" else run.trials / "begun"
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(tmp_path / "secret")
    attempt.write_log(b"printed")
    attempt.write(Reading("train", {"loss": 1.0}, 1, "updates"))
    attempt.checkpoint({"updates": 1}, {"w": np.ones(2)})
    with pytest.raises(UnstorableError, match="removed or replaced"):
        attempt.commit({"outcome": "ok", "reason": None}, (), {"w": np.ones(2)})
    attempt.abandon()
    run.write_info({"device": "cpu"})
    assert (tmp_path / "secret").read_text() == SECRET
    assert RunFolder.open(run.path).info()["device"] == "cpu"


def test_an_export_is_not_written_through_a_link(
    run: RunFolder, tmp_path: Path, call: Call
) -> None:
    (run.path / "all.csv").symlink_to(tmp_path / "secret")
    code, _, err = call("export", "run", "-o", "run/all.csv")
    assert code == 2
    assert "run/all.csv cannot be written: is a link; give the file that it" in err
    assert (tmp_path / "secret").read_text() == SECRET
    code, _, _ = call("export", "run", "-o", "run/own.csv")
    assert code == 0
    assert (run.path / "own.csv").read_bytes().startswith(b"trial,session,measure")
    assert b"\r" not in (run.path / "own.csv").read_bytes()


def test_files_of_the_cache_that_are_odd_are_not_used(tmp_path: Path) -> None:
    from harness.machine.lock import measuring
    from harness.measure.work import Work
    from harness.run.estimate.history import Observation, append, observations

    folder = user_cache()
    assert folder is not None
    folder.mkdir(parents=True)
    helpers.write(tmp_path / "secret", SECRET)
    host = os.uname().nodename
    (folder / "costs.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / f"{host}-queue.lock")
    (folder / f"{host}-machine.lock").symlink_to(tmp_path / "secret")
    append(folder / "costs.jsonl", [Observation("a", ("b",), Work(1.0), 1.0, 1.0)])
    assert observations(folder / "costs.jsonl") == []
    with measuring(alone=True, waits=lambda _: None, check=lambda: None):
        pass
    assert (tmp_path / "secret").read_text() == SECRET


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    """As two reports of one folder do."""
    from harness.files.opening import replace_file
    from harness.files.text import write_atomically

    file = tmp_path / "report.html"

    def slowly(stream: object) -> None:
        write_atomically(file, "the other")
        stream.write(b"mine")  # type: ignore[attr-defined]

    replace_file(file, slowly)
    assert file.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# --- folders of another user ----------------------------------------------------------


@contextmanager
def another_user() -> Iterator[None]:
    """Have no rights on the files of this user's tests, even if it is root."""
    if os.geteuid():
        yield  # the modes of the files are enough
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared(run: RunFolder) -> Iterator[Path]:
    """Return a copy of the run where other users may look, and not write."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    folder = Path(shutil.copytree(run.path, root / "run"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(root)


def test_a_folder_of_another_user_is_read_and_a_report_of_it_is_refused(
    shared: Path, call: Call
) -> None:
    assert call("report", "run")[0] == 0  # imports what another user may not read
    assert call("show", "run")[0] == 0
    with another_user():
        code, _, err = call("report", shared)
        assert code == 2
        assert "cannot be written (Permission denied); copy the run to a" in err
        assert call("export", shared)[0] == 0
        assert call("show", shared)[0] == 0
        code, _, err = call("export", shared, "-o", shared / "all.csv")
        assert code == 2
        assert "all.csv cannot be written: Permission denied" in err
        with pytest.raises(MisuseError, match=r"cannot be written \(Perm"):
            RunFolder.create(shared)


@pytest.mark.parametrize("name", ["summary.md", "report.html"])
def test_a_folder_where_a_report_belongs_is_kept_under_another_name(
    name: str, run: RunFolder, call: Call
) -> None:
    (run.path / name).mkdir()
    (run.path / name / "theirs").touch()
    code, _, err = call("report", "run")
    assert code == 0, err
    (kept,) = run.path.glob(f"{Path(name).stem}*kept-1*")
    assert (kept / "theirs").exists()
    assert kept.name in err
    assert (run.path / name).is_file()


@pytest.mark.parametrize(
    ("hidden", "code", "words"),
    [
        ("trials/odd", 0, "trial odd is left out: result.json cannot be read (Permiss"),
        ("trials/odd/result.json", 0, "odd is left out: result.json cannot be read"),
        ("trials/odd/spec.json", 0, "odd is left out: spec.json cannot be read"),
        ("trials/odd/attempt-001", 0, "events.jsonl cannot be read (Permission"),
        ("trials", 2, "trials cannot be read (Permission denied); copy the run"),
        ("run.json", 2, "run.json cannot be read (Permission denied)"),
        (".", 2, "run.json cannot be read (Permission denied)"),
    ],
)
def test_what_another_user_has_hidden_is_a_sentence(
    hidden: str, code: int, words: str, shared: Path, call: Call
) -> None:
    assert call("show", "run")[0] == 0
    (shared / hidden).chmod(0)
    try:
        with another_user():
            for command in ("show", "export"):
                found, _, err = call(command, shared)
                assert found == code, err
                assert words in err
    finally:
        (shared / hidden).chmod(0o755)


# --- a plugin removes what it runs in -------------------------------------------------


@pytest.mark.parametrize("what", ["attempt", "trial", "trials", "run", "events"])
@pytest.mark.parametrize("learns", [False, True])
def test_a_folder_that_is_removed_during_a_trial_fails_that_trial_alone(
    what: str, learns: bool, run: RunFolder
) -> None:
    from harness.run.executor import Executor
    from harness.run.job import Answer, Checkpointed, Event, Job, Printed, Sink, Start
    from harness.run.plan.plan import Plan
    from harness.run.plan.todo import Planned

    certificates = [Trial("parity", name, "gru") for name in ("a", "b", "c")]

    class Removing:
        """An engine whose second trial removes a folder."""

        notes: ClassVar[list[str]] = []
        slots = session_slots = 1

        def run(self, job: Job, sink: Sink) -> dict[str, Answer]:
            (name,) = job.trials
            if name == "b":
                (attempt,) = (run.trials / name).glob("attempt-*")
                removed = {
                    "attempt": attempt, "trial": attempt.parent, "trials": run.trials,
                    "run": run.path, "events": attempt / "events.jsonl",
                }[what]  # fmt: skip
                removed.unlink() if what == "events" else shutil.rmtree(removed)
            if learns:
                sink(Printed(name, b"hello\n"))
                sink(Event(name, Reading("train", {"loss": 1.0}, 1, "updates")))
                sink(Checkpointed(name, Start({"updates": 1}, {"w": np.ones(2)})))
            certified = Reading("certificate", {"certified": 1, "checks": 3})
            return {name: Answer("ok", None, readings=(certified,))}

        def stop(self, *, now: bool) -> None:
            pass

        def close(self) -> None:
            pass

    def planned(trial: Trial) -> Planned:
        return Planned(trial, trial.implementation, SOURCES, True, "new")

    executor = Executor(
        run, planned, Removing(), helpers.progress(helpers.REGISTRY)
    )  # fmt: skip
    executor.execute(Plan(tuple(certificates), {}, ()))
    run.write_info({"device": "cpu"})
    again = RunFolder.open(run.path)
    ended = {name: again.read(name) for name in ("a", "b", "c")}
    kept = what in ("attempt", "trial", "events")
    assert (ended["a"] is not None) is kept
    assert ended["c"] is not None
    assert ended["c"].outcome == "ok"
    assert ended["b"] is not None
    assert ended["b"].outcome == "failed"
    assert "was removed or replaced during the trial" in (ended["b"].reason or "")


def test_a_result_that_cannot_be_stored_fails_with_a_reason_of_bounded_length(
    run: RunFolder,
) -> None:
    attempt = run.begin(LEARNING, "long", SOURCES)
    attempt.commit({"outcome": "failed", "reason": "x" * 50_000_000})
    record = run.read("long")
    assert record is not None
    assert len(record.reason or "") < 6000
    for value in (object(), 3, ["x"] * 10**6):
        attempt = run.begin(LEARNING, "odd-one", SOURCES)
        with pytest.raises(UnstorableError) as raised:
            attempt.commit({"outcome": "ok", "reason": None, "kernel": value})
        attempt.abandon()
        assert str(raised.value).startswith("its result cannot be stored: ")
        assert len(str(raised.value)) < 6000
    assert run.read("odd-one") is None
