"""What some code has changed of its process is named, and can be undone."""

from __future__ import annotations

import builtins
import gc
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from harness.contract import NetworkSpec
from harness.machine.functions import Functions
from harness.machine.process_state import ProcessState
from harness.machine.threads import Threads
from harness.measure.certificate import record
from implementations.numpy_reference.network import NumpyNetwork
from tests import helpers


@contextmanager
def undone() -> Iterator[ProcessState]:
    """Yield the state of this process, to which it comes back after the block."""
    state = ProcessState()
    yield state
    state.restore()
    assert state.changes() == []


def _other(*given: Any, **named: Any) -> None:
    """Replace a function."""


def _fewer_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


def _environ() -> None:
    os.environ["OMP_NUM_THREADS"] = "7"
    os.environ["OF_A_PLUGIN"] = "secret"


def _reordered() -> None:
    sys.path.append(sys.path.pop(0))


CHANGES: dict[str, tuple[Callable[[], object], list[str]]] = {
    "a function of numpy": (lambda: setattr(np, "exp", np.sin), ["numpy.exp"]),
    "a removed function": (lambda: delattr(math, "hypot"), ["math.hypot"]),
    "of its parts": (lambda: setattr(np.linalg, "norm", _other), ["numpy.linalg.norm"]),
    "a method of this project": (
        lambda: setattr(NumpyNetwork, "forward", _other),
        ["implementations.numpy_reference.network.NumpyNetwork.forward"],
    ),
    "an inherited method": (
        lambda: setattr(NumpyNetwork, "place", _other),
        ["implementations.numpy_reference.network.NumpyNetwork.place"],
    ),
    "a property": (
        lambda: setattr(NetworkSpec, "layer_input_sizes", property(_other)),
        ["harness.contract.NetworkSpec.layer_input_sizes"],
    ),
    "a function of this project": (
        lambda: setattr(record, "listed", _other),
        ["harness.measure.certificate.record.listed"],
    ),
    "how Python imports": (
        lambda: setattr(
            builtins, "__import__", __import__("functools").partial(__import__)
        ),
        ["builtins.__import__"],
    ),
    "errors of numpy": (lambda: np.seterr(under="raise"), ["numpy's error handling"]),
    "the folder": (lambda: os.chdir("/"), ["current folder"]),
    "a stream": (lambda: setattr(sys, "stderr", None), ["standard streams"]),
    "how processes start": (
        lambda: multiprocessing.set_start_method("spawn", force=True),
        ["multiprocessing's start method"],
    ),
    "variables": (
        _environ,
        ["environment variable OF_A_PLUGIN", "environment variable OMP_NUM_THREADS"],
    ),
    "the mode of files": (lambda: os.umask(0o123), ["file mode mask"]),
    "a limit": (_fewer_files, ["limit RLIMIT_NOFILE"]),
    "collection": (gc.disable, ["garbage collection"]),
    "its threshold": (lambda: gc.set_threshold(9), ["garbage collection"]),
    "a trace": (lambda: threading.settrace(_other), ["trace functions"]),
    "a trace of memory": (tracemalloc.start, ["trace functions"]),
    "a profile": (lambda: threading.setprofile(_other), ["profile functions"]),
    "switching": (lambda: sys.setswitchinterval(0.25), ["switch interval"]),
    "recursion": (lambda: sys.setrecursionlimit(500), ["recursion limit"]),
    "warnings": (
        lambda: warnings.simplefilter("error", UserWarning),
        ["warnings that are errors"],
    ),
    "the search path": (_reordered, ["module search path"]),
    "a signal": (
        lambda: signal.signal(signal.SIGUSR2, _other),
        ["signal handlers"],
    ),
    "threads of BLAS": (
        lambda: ThreadpoolController().limit(limits=3, user_api="blas"),
        ["threads of libscipy_openblas"],
    ),
}
if sys.platform == "linux":
    CHANGES["cores"] = (
        lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}),
        ["cores of the process"],
    )


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_is_named_and_undone(change: str) -> None:
    make, named = CHANGES[change]
    if change == "cores" and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("there is one core")
    with undone() as before:
        make()
        found = before.changes()
    assert [name.partition(" (was ")[0] for name in found] == named
    assert "secret" not in "".join(found)


def test_a_value_that_cannot_be_read_any_more_is_a_change() -> None:
    values = {"mode": "on"}
    state = ProcessState(settings=lambda: {"mode": values["mode"]})
    assert state.changes() == []
    values["mode"] = "off"
    assert state.changes() == ["mode (was on, is off)"]
    del values["mode"]
    (found,) = state.changes()
    assert found == "the framework's settings"


def test_what_harms_nobody_is_not_a_change() -> None:
    with undone() as before, np.printoptions(precision=2), warnings.catch_warnings():
        sys.path.append("/of/a/plugin")
        warnings.simplefilter("ignore", UserWarning)
        np.added_by_a_plugin = _other  # type: ignore[attr-defined]
        found = before.changes()
        del np.added_by_a_plugin  # type: ignore[attr-defined]
        sys.path.remove("/of/a/plugin")
    assert found == []


def test_a_function_that_its_own_library_wraps_is_the_same_function() -> None:
    library = type(os)("library")
    exec(
        "import functools\n"
        "def step(): pass\n"
        "def wrap():\n"
        "    global step\n"
        "    inner = step\n"
        "    @functools.wraps(inner)\n"
        "    def step(): return inner()\n",
        vars(library),
    )
    functions, step = Functions([library]), library.step
    library.wrap()
    assert library.step is not step
    assert functions.changed() == []
    library.step = _other
    assert functions.changed() == ["library.step"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has times of threads")
def test_a_thread_that_computes_on_is_named() -> None:
    watched, ended, asleep = Threads(), threading.Event(), threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(range(1000))

    sleeper = threading.Thread(target=asleep.wait, name="sleeps")
    worker = threading.Thread(target=compute, name="computes")
    sleeper.start()
    assert watched.left_computing() == []
    worker.start()
    found = [watched.left_computing(asked) for asked in "ab"]
    ended.set()
    asleep.set()
    worker.join()
    sleeper.join()
    assert found == [[("a thread left computing (computes)", "a")]] * 2
    assert watched.left_computing() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has times of processes")
def test_a_child_that_computes_on_is_named_where_children_are_watched() -> None:
    watched, of_threads = Threads(children=True), Threads()
    code = "import time; print(flush=True); time.sleep(600)"
    asleep = [sys.executable, "-c", code]
    busy = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(asleep, stdout=subprocess.PIPE) as sleeper:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        with subprocess.Popen(busy) as worker:
            # It may still be starting when it is first looked at.
            assert not any(left.asked != "a" for left in watched.left_computing("a"))
            helpers.wait_for(watched.left_computing, "the child to compute")
            found = [watched.left_computing("b") for _ in range(2)]
            name = Path(f"/proc/{worker.pid}/comm").read_text().strip()
            assert of_threads.left_computing() == []
            watched.accept()
            accepted = watched.left_computing("c")
            worker.kill()
        sleeper.kill()
    assert found == [[(f"a process left computing ({name})", "a")]] * 2
    assert accepted == []
    assert watched.left_computing() == []
