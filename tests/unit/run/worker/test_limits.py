"""Limits on a worker and all its children, enforced from outside."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.run.worker.limits import Family, Watch
from tests import helpers

MIB = 2**20

CHILD = "import subprocess, sys, time; "
SLEEP = "time.sleep(600)"
# A child that leaves the session of its parent, which then ends.
DAEMON = (
    CHILD + "p = subprocess.Popen([sys.executable, '-c', 'import os, time;"
    "os.fork() and os._exit(0); print(os.getpid(), flush=True); time.sleep(600)'],"
    "stdout=subprocess.PIPE); print(p.stdout.readline().decode(), flush=True); " + SLEEP
)


def start(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        Family(process.pid).kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_time_limit_ends_an_endless_loop(
    started: list[subprocess.Popen[bytes]],
) -> None:
    process = start("while True: pass")
    started.append(process)
    watch = Watch(process, None)
    watch.begin(0.3, 5.0)
    assert watch.ended.wait(helpers.PATIENCE_S)
    assert watch.verdict == ("timeout", "stopped at the time limit of 5 s")


def test_without_a_limit_nothing_is_ended(
    started: list[subprocess.Popen[bytes]],
) -> None:
    process = start("import time; time.sleep(1)")
    started.append(process)
    watch = Watch(process, None)
    watch.begin(None, None)
    assert watch.ended.wait(helpers.PATIENCE_S)
    assert watch.verdict is None
    assert process.wait() == 0


def test_a_memory_limit_counts_children_and_ends_them_too(
    started: list[subprocess.Popen[bytes]],
) -> None:
    half = "x = bytearray(60 * 2**20); import time; print(1, flush=True); "
    code = CHILD + f"p = subprocess.Popen([sys.executable, '-c', '{half}{SLEEP}']); "
    process = start(code + f"print(p.pid, flush=True); {half}{SLEEP}")
    started.append(process)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    watch = Watch(process, 100 * MIB)
    watch.begin(None, None)
    assert watch.ended.wait(helpers.PATIENCE_S)
    assert watch.verdict == ("out_of_memory", "stopped at the memory limit of 100 MiB")
    assert watch.peak_memory_bytes > 100 * MIB
    helpers.wait_for(lambda: not helpers.alive(child), "the child to end")


def test_shared_memory_counts_once(
    started: list[subprocess.Popen[bytes]],
) -> None:
    code = (
        "import os, time; x = bytearray(100 * 2**20)\n"
        "for _ in range(3): os.fork() or time.sleep(600)\n"
        "print(1, flush=True); time.sleep(600)"
    )
    process = start(code)
    started.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    family = Family(process.pid)
    assert len(family.members()) == 4
    assert family.memory_bytes(None) > 400 * MIB
    assert 100 * MIB < family.memory_bytes(200 * MIB) < 180 * MIB


def test_processes_that_a_worker_leaves_behind_end_with_it(
    started: list[subprocess.Popen[bytes]],
) -> None:
    process = start(DAEMON)
    started.append(process)
    assert process.stdout is not None
    orphan = int(process.stdout.readline())
    watch = Watch(process, None)
    process.kill()
    assert watch.ended.wait(helpers.PATIENCE_S)
    helpers.wait_for(lambda: not helpers.alive(orphan), "the orphan to end")


def test_a_process_that_starts_another_while_it_is_killed_does_not_get_away() -> None:
    token = uuid.uuid4().hex
    worker = helpers.worker_whose_children_fork(token)
    Family(worker.pid).kill()
    worker.communicate()
    helpers.wait_for(lambda: not helpers.marked(token), "every process to be gone")


def test_the_peak_memory_is_that_of_the_current_request(
    started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    code = "import pathlib, time; x = b'x' * 80 * 2**20; freed = pathlib.Path(FREE)\n"
    code += "while not freed.exists(): time.sleep(0.01)\n"
    code += "del x; print(1, flush=True); time.sleep(600)"
    process = start(code.replace("FREE", repr(str(tmp_path / "free"))))
    started.append(process)
    assert process.stdout is not None
    watch = Watch(process, None)
    watch.begin(None, None)
    helpers.wait_for(lambda: watch.peak_memory_bytes > 80 * MIB, "a look")
    (tmp_path / "free").touch()
    process.stdout.readline()
    watch.begin(None, None)
    watch.check_memory()
    assert 0 < watch.peak_memory_bytes < 60 * MIB
