"""The disk of a run fills up, its folder turns read-only, or the clock steps back."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.store import RunFolder
from tests import helpers
from tests.faults.conftest import SLOWED, Call

pytestmark = pytest.mark.slow

RUN = ("run", "tiny.toml", "-o", "out", "-j", 1, "--plugin", SLOWED)
ROOM_KB = 104
"""Room for the first trial's files and not for the second's."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system that one or two curves fill."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_KB}k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _move(out: Path, disk: Path) -> None:
    shutil.copytree(out, disk)
    shutil.rmtree(out)
    out.symlink_to(disk)


def _kept(folder: Path) -> dict[str, bytes]:
    run = RunFolder.open(folder / "out")
    assert run.damaged() == {}
    ids = [record.id for record in run.records()]
    return {name: (run.trials / name / "result.json").read_bytes() for name in ids}


def test_a_full_disk_stops_the_run_and_loses_nothing(
    small_disk: Path,
    fresh: Callable[[str], Path],
    undisturbed: dict[str, bytes],
    call: Call,
) -> None:
    folder = fresh("run")
    _move(folder / "out", small_disk / "out")
    before = _kept(folder)
    code, _, err = call(*RUN, cwd=folder)
    assert code == 2, err
    assert "Traceback" not in err
    assert "out cannot be written any more (No space left on device)" in err
    assert "every finished trial is kept, and the same command continues" in err
    kept = _kept(folder)
    assert before.items() <= kept.items()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    code, _, err = call(*RUN, cwd=folder)
    assert code == 0, err
    assert kept.items() <= _kept(folder).items()
    assert helpers.curves(folder / "out") == undisturbed


def test_a_limit_on_files_stops_the_run_and_loses_nothing(
    fresh: Callable[[str], Path],
    undisturbed: dict[str, bytes],
    call: Call,
) -> None:
    folder = fresh("run")
    before = _kept(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", _limited(subprocess.Popen, 12_000))
        code, _, err = helpers.run(*RUN, cwd=folder)
    assert code == 2, err
    assert "Traceback" not in err
    assert "out cannot be written any more (File too large)" in err
    kept = _kept(folder)
    assert before.items() <= kept.items()
    code, _, err = call(*RUN, cwd=folder)
    assert code == 0, err
    assert kept.items() <= _kept(folder).items()
    assert helpers.curves(folder / "out") == undisturbed


def _limited(popen: Callable[..., object], most_bytes: int) -> Callable[..., object]:
    """Start processes whose files may not exceed a size, as under a quota."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return lambda *args, **named: popen(*args, **named, preexec_fn=limit)


def test_a_read_only_folder_is_reported_and_the_run_resumes_later(
    small_disk: Path,
    fresh: Callable[[str], Path],
    undisturbed: dict[str, bytes],
    call: Call,
) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    folder = fresh("run")
    _move(folder / "out", small_disk / "out")
    before = _kept(folder)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, _, err = call(*RUN, cwd=folder)
    assert code == 2, err
    assert "out cannot be written (Read-only file system); give another folder" in err
    assert _kept(folder) == before
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    code, _, err = call(*RUN, cwd=folder)
    assert code == 0, err
    assert helpers.curves(folder / "out") == undisturbed


def test_a_clock_that_steps_back_changes_nothing(
    fresh: Callable[[str], Path], undisturbed: dict[str, bytes]
) -> None:
    folder = fresh("run")
    code = (
        "import itertools, time; back = itertools.count(1e9, -60);"
        "time.time = lambda: next(back);"
        "import runpy; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    cli = str(helpers.HERE / "bare_cli.py")
    process = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", cli, *map(str, RUN)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert helpers.curves(folder / "out") == undisturbed
    run = RunFolder.open(folder / "out")
    ended = [r.result for r in run.records() if r.trial.measure == "learning"]
    assert all(0 < result["wall_time_s"] < 100 for result in ended)
    assert ended[1]["committed_at"] < ended[0]["committed_at"]
    assert ended[1]["commit"] > ended[0]["commit"]


def test_a_run_json_cut_in_half_costs_no_trial(
    fresh: Callable[[str], Path], undisturbed: dict[str, bytes], call: Call
) -> None:
    folder = fresh("run")
    before = _kept(folder)
    file = folder / "out" / "run.json"
    os.truncate(file, file.stat().st_size // 2)
    code, _, err = call(*RUN, cwd=folder)
    assert code == 2, err
    assert "run.json is damaged; restore it, or move it away and give the" in err
    file.rename(folder / "out" / "run.json.cut")
    code, _, err = call(*RUN, cwd=folder)
    assert code == 0, err
    assert before.items() <= _kept(folder).items()
    assert helpers.curves(folder / "out") == undisturbed


def test_a_folder_in_place_of_a_file_is_reported(
    fresh: Callable[[str], Path], call: Call
) -> None:
    folder = fresh("run")
    out = folder / "out"
    before = _kept(folder)
    (out / ".lock").unlink()
    (out / ".lock").mkdir()
    code, _, err = call(*RUN, cwd=folder)
    assert code == 2, err
    assert "out/.lock is a folder, and a run writes only into files and" in err
    assert "Traceback" not in err
    (out / ".lock").rmdir()
    code, _, err = call(*RUN, cwd=folder)
    assert code == 0, err
    assert before.items() <= _kept(folder).items()
