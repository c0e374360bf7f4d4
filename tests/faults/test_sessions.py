"""A failing trial of a session affects the others as little as possible."""

import shutil
import time
from pathlib import Path

import pytest

from harness.analysis.run import JudgedRun
from harness.analysis.summary import summarize
from harness.store import RunFolder
from tests import helpers
from tests.faults.conftest import SLOWED, TINY, Call

pytestmark = pytest.mark.slow

SHAPE = {"batch": 8, "time_steps": 20, "input_size": 2, "hidden_size": 16}


def suite(*others: str) -> str:
    """Return a suite with one session of the reference and others."""
    return helpers.suite(helpers.speed("numpy-reference", *others, shapes=[SHAPE]))


SUITE = suite("dies-late")
# Under a memory limit, the highest rates of this machine are not measured.
COMMAND = ("run", "suite.toml", "-o", "out", "--memory-limit", "8G")
RUN = (*COMMAND, "--no-certify", "--plugin", helpers.PLUGINS / "dies_late.py")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with a good timing."""
    folder = tmp_path_factory.mktemp("good")
    helpers.write(folder / "suite.toml", SUITE)
    code, _, err = helpers.run(*RUN, "-k", "numpy-reference", cwd=folder)
    assert code == 0, err
    return folder


def test_a_good_timing_survives_a_failed_trial_of_its_session(
    good: Path, tmp_path: Path, call: Call
) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    code, out, _ = call(*RUN, "--why", cwd=tmp_path)
    again = "runs, is timed again beside the trials of its session that run"
    assert f"numpy-reference 8x20x16 s0: {again}" in out
    assert "2 would run, 0 are done" in out
    code, _, err = call(*RUN, cwd=tmp_path)
    assert code == 4, err
    run = RunFolder.open(tmp_path / "out")
    ended = {r.trial.implementation: r.outcome for r in run.records()}
    assert ended == {"numpy-reference": "ok", "dies-late": "crashed"}


def test_a_good_timing_is_kept_if_timing_it_again_fails(
    good: Path, tmp_path: Path, call: Call
) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    out = tmp_path / "out"
    (file,) = out.glob("trials/*/result.json")
    before = file.read_bytes()
    _, _, err = call(
        *(*RUN, "-k", "numpy-reference", "--force", "--timeout", 0.01), cwd=tmp_path
    )
    assert "stopped at the time limit of 0.01 s; its earlier result stays" in err
    assert file.read_bytes() == before


def test_a_trial_is_not_charged_for_the_memory_of_others_in_its_session(
    tmp_path: Path,
    call: Call,
) -> None:
    text = suite("keeps-250", "keeps-260", "keeps-900")
    helpers.write(tmp_path / "suite.toml", text)
    command = ("run", "suite.toml", "-o", "out", "--no-certify", "--plugin")
    code, _, err = call(
        *(*command, helpers.PLUGINS / "heavy.py", "--memory-limit", "450M"),
        cwd=tmp_path,
    )
    assert code == 4, err
    records = {
        r.trial.implementation: r for r in RunFolder.open(tmp_path / "out").records()
    }
    assert {name: r.outcome for name, r in records.items()} == {
        "numpy-reference": "ok",
        "keeps-250": "ok",
        "keeps-260": "ok",
        "keeps-900": "out_of_memory",
    }
    # At most one of the two shared a worker with the reference, which keeps nothing.
    alone = {n: r.result["peak_memory_bytes"] for n, r in records.items()}
    own = {n: alone[n] for n in ("keeps-250", "keeps-260") if alone[n] is not None}
    assert own
    assert all(250 << 20 < size < 450 << 20 for size in own.values())
    assert all(r.result["worker_memory_bytes"] > 0 for r in records.values())


def test_a_session_begins_in_fresh_workers(tmp_path: Path, call: Call) -> None:
    """Otherwise a first call would not be the first, and its payback wrong."""
    shapes = [SHAPE, {**SHAPE, "hidden_size": 24}]
    section = helpers.speed("numpy-reference", shapes=shapes)
    helpers.write(tmp_path / "suite.toml", helpers.suite(section))
    code, _, err = call(*COMMAND, cwd=tmp_path)
    assert code == 0, err
    workers: dict[str, set[int]] = {"parity": set(), "speed": set()}
    for record in RunFolder.open(tmp_path / "out").records():
        workers[record.trial.measure].add(record.result["worker"])
    assert len(workers["speed"]) == 2
    assert not workers["speed"] & workers["parity"]


def test_a_row_that_is_restarted_after_a_crash_has_no_first_call(
    tmp_path: Path,
    call: Call,
) -> None:
    names = ["on-another", "numpy-reference", "crashes-beside", "beside-the-crash"]
    phases = ["forward", "train_step"]
    section = helpers.speed(*names, shapes=[SHAPE], phases=phases)
    helpers.write(tmp_path / "suite.toml", helpers.suite(section))
    files = [
        helpers.PLUGINS / f"{n}.py" for n in ("another_framework", "crashes_beside")
    ]
    plugins = [argument for file in files for argument in ("--plugin", file)]
    code, _, err = call(*COMMAND, "--no-certify", *plugins, cwd=tmp_path)
    assert code == 4, err
    run = RunFolder.open(tmp_path / "out")
    rows = summarize(JudgedRun.read(run)).speed
    forward = {row.implementation: row for row in rows if row.phase == "forward"}
    # A process of their own, in which they were built before.
    for survived in ("on-another", "numpy-reference"):
        assert forward[survived].time_s is not None
        assert forward[survived].first_call_s is None
    # No process in which it was called has survived.
    assert forward["beside-the-crash"].first_call_s is not None


def test_only_the_first_trial_of_a_worker_has_a_peak_memory(
    tmp_path: Path, call: Call
) -> None:
    shorter = helpers.suite(helpers.learning(updates=60, evaluate_every=60))
    helpers.write(tmp_path / "suite.toml", shorter)
    command = (*COMMAND, "-j", 1, "--no-certify", "-k", "learning")
    code, _, err = call(*command, cwd=tmp_path)
    assert code == 0, err
    results = [
        r.result
        for r in RunFolder.open(tmp_path / "out").records()
        if r.trial.measure == "learning"
    ]
    assert len(results) == 2
    assert len({r["worker"] for r in results}) == 1
    assert sum(r["peak_memory_bytes"] is not None for r in results) <= 1


def test_a_trial_is_not_charged_for_memory_that_earlier_trials_left_behind(
    tmp_path: Path,
    call: Call,
) -> None:
    section = helpers.learning(
        implementations=["leaks"],
        hidden_size=16,
        updates=200,
        evaluate_every=20,
        seeds=[0, 1, 2, 3, 4, 5],
    )
    helpers.write(tmp_path / "suite.toml", helpers.suite(section))
    code, _, err = call(
        *("run", "suite.toml", "-o", "out", "-j", 1, "--no-certify", "--plugin"),
        *(helpers.PLUGINS / "leaks.py", "--memory-limit", "600M", "-k", "learning"),
        *("--checkpoint-every", 0.05),
        cwd=tmp_path,
    )
    assert code == 0, err
    records = [
        r
        for r in RunFolder.open(tmp_path / "out").records()
        if r.trial.measure == "learning"
    ]
    assert [r.outcome for r in records] == ["ok"] * 6
    assert len({r.result["worker"] for r in records}) > 1  # the limit was exceeded
    for record in records:
        updates = [e.x for e in record.readings if e.split == "held_out"]
        assert updates == sorted(set(updates))


def test_a_session_waits_for_the_trials_of_a_command_in_another_folder(
    tmp_path: Path, slow: Path
) -> None:
    longer = TINY.replace("updates = 240", "updates = 1_000_000")
    helpers.write(tmp_path / "learns.toml", longer)
    helpers.write(tmp_path / "suite.toml", SUITE)
    flags = ("--no-certify", "-k", "learning", "--plugin", SLOWED)
    learns = helpers.start("run", "learns.toml", "-o", "learns", *flags, cwd=tmp_path)
    try:
        events = "learns/trials/learning-*/attempt-*/events.jsonl"
        helpers.wait_for(lambda: list(tmp_path.glob(events)), "a trial to learn")
        timed = helpers.start(*RUN, "-k", "numpy-reference", cwd=tmp_path)
        line = helpers.line_with("waits", timed)
        assert "waits for trials of another rnn-harness command on this machine" in line
        time.sleep(1)
        assert not list(tmp_path.glob("out/trials/*/result.json"))
    finally:
        learns.kill()
        learns.communicate()
    code, _, err = helpers.finish(timed)
    assert code == 0, err
    (record,) = RunFolder.open(tmp_path / "out").records()
    result = record.result
    # The time that it waited is not counted; clocks may differ a little.
    assert result["wall_time_s"] < result["committed_at"] - result["started_at"] - 0.5
