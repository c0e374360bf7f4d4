"""The load of a process and of the processes that it started."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.machine.load import OtherLoad
from tests import helpers

SPIN = "while True: pass"
SPIN_BELOW = (
    "import subprocess, sys\n"
    f"subprocess.run([sys.executable, '-c', {SPIN!r}], stdin=subprocess.PIPE)"
)
REAPED = "import time\nwhile time.process_time() < 0.2: pass"


@contextmanager
def child(script: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process group, so that all of it can be ended."""
    process = subprocess.Popen([sys.executable, "-c", script], process_group=0)
    try:
        yield process
    finally:
        subprocess.run(["kill", "-KILL", "--", f"-{process.pid}"], check=True)
        process.wait()


def own_load(load: OtherLoad, wall_s: float) -> float:
    """Return the own load that is measured while this process does nothing."""
    load.begin()
    time.sleep(wall_s)
    load.end()
    return load.own


def wait_until_it_spins(load: OtherLoad) -> None:
    end_s = time.monotonic() + helpers.PATIENCE_S
    while own_load(load, 0.05) < 0.05:
        assert time.monotonic() < end_s


@pytest.mark.parametrize("script", [SPIN, SPIN_BELOW], ids=["child", "grandchild"])
def test_the_computation_of_a_descendant_is_own_load(script: str) -> None:
    load = OtherLoad()
    assert own_load(load, 0.2) < 0.1
    with child(script):
        wait_until_it_spins(load)
        assert own_load(load, 0.5) > 0.15  # other processes may have the rest
    assert own_load(load, 0.2) < 0.1


def test_the_load_of_a_child_is_finer_than_the_ticks_of_the_system() -> None:
    """A turn may be shorter than a tick, 10 ms."""
    load = OtherLoad()
    with child(SPIN) as process:
        wait_until_it_spins(load)
        used_s = set()
        for _ in range(200):
            used_s.add(load._used_s(str(process.pid)))
            time.sleep(1e-3)
    assert 0 < min(b - a for a, b in itertools.pairwise(sorted(used_s))) < 5e-3


def test_a_child_that_has_ended_is_own_load_and_an_idle_one_is_not() -> None:
    load = OtherLoad()
    load.begin()
    begun_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", REAPED], check=True)
    wall_s = time.perf_counter() - begun_s
    load.end()
    assert load.own * wall_s == pytest.approx(0.22, abs=0.08)
    with child("import time\ntime.sleep(60)"):
        time.sleep(0.5)
        assert own_load(load, 0.2) < 0.1


def test_the_computation_of_a_sibling_is_not_own_load() -> None:
    """Two workers of one session are siblings."""
    watch = (
        "import subprocess, time\n"
        "from harness.machine.load import OtherLoad\n"
        "idle = subprocess.Popen(['cat'], stdin=subprocess.PIPE)\n"
        "load = OtherLoad()\n"
        "load.begin()\n"
        "time.sleep(0.3)\n"
        "load.end()\n"
        "print(load.own)"
    )
    with child(SPIN):
        found = subprocess.check_output([sys.executable, "-c", watch])
    assert float(found) < 0.1


def test_own_load_is_known_even_if_that_of_others_is_not(tmp_path: Path) -> None:
    load = OtherLoad(tmp_path)
    load.begin()
    end_s = time.process_time() + 0.05
    while time.process_time() < end_s:
        pass
    assert load.end() == 0.0
    assert 0.05 < load.own < 1.05


def test_waiting_for_a_core_is_counted_and_sleeping_is_not() -> None:
    core = min(os.sched_getaffinity(0))
    code = (
        "import os, time\n"
        "from harness.machine.load import OtherLoad\n"
        f"os.sched_setaffinity(0, {{{core}}})\n"
        "load, end_s = OtherLoad(), time.process_time() + 0.2\n"
        "load.begin()\n"
        "while time.process_time() < end_s: pass\n"
        "load.end()\n"
        "print(load.waited_s)"
    )
    load, start_s = OtherLoad(), time.monotonic()
    load.begin()
    with child(f"import os\nos.sched_setaffinity(0, {{{core}}})\n{SPIN}"):
        found = subprocess.check_output([sys.executable, "-c", code])
    load.end()
    asleep_s = time.monotonic() - start_s
    # Two processes share a core, so each waits as long as it computes.
    assert float(found) > 0.1
    # On a busy machine this process waits too, but only when it wakes up.
    assert load.waited_s < 0.5 * asleep_s
