import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.store import RunFolder
from tests import helpers
from tests.faults.conftest import SLOWED, Call

pytestmark = pytest.mark.slow

RUN = ("run", "tiny.toml", "-o", "out", "-j", 1, "--plugin", SLOWED)


def results(folder: Path) -> list[Path]:
    return sorted((folder / "out" / "trials").glob("learning-*/result.json"))


def in_the_middle(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the first seed is committed and the second one learns."""

    def second_learns() -> bool:
        assert process.poll() is None, process.communicate()
        events = (folder / "out" / "trials").glob(
            "learning-*-s1-*/attempt-*/events.jsonl"
        )
        lengths = [len(file.read_bytes().splitlines()) for file in events]
        return len(results(folder)) == 1 and any(n > 3 for n in lengths)

    helpers.wait_for(second_learns, "the second seed to learn")


@pytest.fixture
def slow(slow: Path) -> Path:
    """Return a file; while it exists, all trials but a worker's first are slow."""
    slow.write_text("1")
    return slow


def no_half_commit(folder: Path) -> None:
    run = RunFolder.open(folder / "out")
    assert run.damaged() == {}
    for file in run.trials.glob("*/result.json"):
        assert run.read(file.parent.name) is not None


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_an_interrupted_run_keeps_finished_trials_and_resumes(
    number: signal.Signals,
    code: int,
    fresh: Callable[[str], Path],
    undisturbed: dict[str, bytes],
    slow: Path,
    call: Call,
) -> None:
    folder = fresh("run")
    process = helpers.start(*RUN, cwd=folder)
    in_the_middle(folder, process)
    workers = helpers.workers_of(process.pid)
    assert workers
    process.send_signal(number)
    found, _, err = helpers.finish(process)
    assert found == code, err
    assert "Traceback" not in err
    assert "every finished trial is kept in out, and the same command continues" in err
    assert not any(map(helpers.alive, workers))
    no_half_commit(folder)
    (kept,) = results(folder)
    (checkpoint,) = (folder / "out" / "trials").glob("*/attempt-001/checkpoint.npz")
    before = kept.read_bytes()
    slow.unlink()
    found, _, err = call(*RUN, cwd=folder)
    assert found == 0, err
    assert kept.read_bytes() == before
    assert helpers.curves(folder / "out") == undisturbed
    resumed = [
        r.trial.seed
        for r in RunFolder.open(folder / "out").records()
        if "resumed_from" in r.result
    ]
    assert resumed == [1]
    assert not checkpoint.exists()
    found, out, _ = call(*RUN, "--why", cwd=folder)
    assert "0 would run, 4 are done" in out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_second_signal_ends_running_trials_at_once(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    suite = helpers.TINY.replace("numpy-reference", "sleeps-in-c")
    helpers.write(tmp_path / "tiny.toml", suite)
    file = helpers.PLUGINS / "sleeps_in_c.py"
    process = helpers.start(*RUN[:-1], file, cwd=tmp_path)
    helpers.wait_for((tmp_path / "asleep").exists, "the plugin to sleep")
    workers = helpers.workers_of(process.pid)
    process.send_signal(number)
    # Two signals at once would be one.
    assert "press Ctrl-C again to stop at once" in helpers.line_with("stop", process)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)  # running trials may finish
    process.send_signal(number)
    found, _, err = helpers.finish(process)
    assert found == code, err
    assert "Traceback" not in err
    assert not any(map(helpers.alive, workers))


def test_a_killed_run_leaves_no_worker_and_no_half_trial(
    fresh: Callable[[str], Path],
    undisturbed: dict[str, bytes],
    slow: Path,
    call: Call,
) -> None:
    folder = fresh("run")
    process = helpers.start(*RUN, cwd=folder)
    in_the_middle(folder, process)
    workers = helpers.workers_of(process.pid)
    assert workers
    process.kill()
    helpers.finish(process)
    helpers.wait_for(lambda: not any(map(helpers.alive, workers)), "workers to end")
    no_half_commit(folder)
    assert len(results(folder)) == 1
    _, out, _ = call(*RUN, "--why", cwd=folder)
    assert "s1: runs, was interrupted before it was done" in out
    slow.unlink()
    found, _, err = call(*RUN, cwd=folder)
    assert found == 0, err
    assert helpers.curves(folder / "out") == undisturbed


def test_a_killed_worker_is_recorded_and_the_others_continue(
    fresh: Callable[[str], Path],
    undisturbed: dict[str, bytes],
    slow: Path,
    call: Call,
) -> None:
    folder = fresh("run")
    command = (*RUN, "--seeds", "0-2")
    process = helpers.start(*command, cwd=folder)
    in_the_middle(folder, process)
    (worker,) = helpers.workers_of(process.pid)
    helpers.kill(worker)
    slow.unlink()
    found, _, err = helpers.finish(process)
    assert found == 4, err
    assert "Traceback" not in err
    records = RunFolder.open(folder / "out").records()
    ended = {r.trial.seed: r for r in records if r.trial.measure == "learning"}
    assert {seed: r.outcome for seed, r in ended.items()} == {
        0: "ok",
        1: "crashed",
        2: "ok",
    }
    assert ended[1].reason is not None
    assert "SIGKILL in slowed" in ended[1].reason
    assert ended[1].readings  # the curve until the kill is kept
    found, out, err = call(*command, "--why", cwd=folder)
    assert "s1: stays, ended crashed before; run again with --retry-failed" in out
    found, _, err = call(*command, "--retry-failed", cwd=folder)
    assert found == 0, err
    curves = helpers.curves(folder / "out")
    assert len(curves) == 3
    assert {label: curves[label] for label in undisturbed} == undisturbed


def test_a_folder_has_one_run_at_a_time(
    fresh: Callable[[str], Path], slow: Path, call: Call
) -> None:
    folder = fresh("run")
    process = helpers.start(*RUN, cwd=folder)
    in_the_middle(folder, process)
    code, _, err = call(*RUN, cwd=folder)
    assert code == 2
    assert f"out is in use by process {process.pid} on " in err
    process.send_signal(signal.SIGINT)
    assert helpers.finish(process)[0] == 130


@pytest.mark.parametrize("name", ["sleeps", "sleeps_in_c"])
def test_a_silent_worker_also_ends_with_the_run(tmp_path: Path, name: str) -> None:
    process = helpers.start("check", helpers.PLUGINS / f"{name}.py", cwd=tmp_path)
    helpers.wait_for((tmp_path / "asleep").exists, "the plugin to sleep")
    workers = helpers.workers_of(process.pid)
    assert workers
    process.kill()
    helpers.finish(process)
    helpers.wait_for(lambda: not any(map(helpers.alive, workers)), "workers to end")
