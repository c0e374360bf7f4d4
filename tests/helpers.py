"""Shared by tests of runs: tiny suites, plugin files, commands, snapshots."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness import cli
from harness.files.text import parse_object, sealed
from harness.registry import Registry
from harness.run.estimate.calibration import Calibration
from harness.run.estimate.model import CostModel
from harness.run.progress import Progress
from harness.store import RunFolder
from harness.trial import Trial

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PLUGINS = HERE / "fake_plugins"
PATIENCE_S = 600.0
"""For what ends by itself, but late on a machine with many other processes."""

REGISTRY = Registry.discover()
"""What is installed here, for tests that only read it."""

LEARNING = Trial(
    "learning",
    "numpy-reference",
    "gru",
    task="adding",
    length=10,
    hidden_size=8,
    batch=8,
    seed=0,
    data_seed=0,
)
"""A small trial that learns; `dataclasses.replace` changes it."""

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


def suite(*sections: str, name: str = "tiny") -> str:
    """Return a suite of these sections, as TOML."""
    return "\n".join([f'name = "{name}"\nwhy = "For tests."\n', *sections])


def learning(**changes: Any) -> str:
    """Return a section in which a small network learns; `changes` override it."""
    section = {
        "task": "adding",
        "length": 10,
        "cells": ["rnn"],
        "implementations": ["numpy-reference"],
        "hidden_size": 8,
        "batch": 8,
        "learning_rate": 1e-3,
        "updates": 1200,
        "evaluate_every": 400,
        "evaluate_sequences": 20,
        "seeds": [0, 1],
        "gradients": False,
    }
    return _section("learning", {**section, **changes})


def speed(*implementations: str, **changes: Any) -> str:
    """Return a section that times a small network; `changes` override it."""
    shape = {"batch": 2, "time_steps": 5, "input_size": 2, "hidden_size": 4}
    section = {
        "cells": ["rnn"],
        "implementations": list(implementations),
        "phases": ["forward"],
        "rounds": 3,
        "readings": 2,
        "target": 1e9,
        "shapes": [shape],
    }
    return _section("speed", {**section, **changes})


def _section(name: str, values: Mapping[str, Any]) -> str:
    """Return a section as TOML, without the values that are None."""
    given = {key: value for key, value in values.items() if value is not None}
    lines = [f"{key} = {_toml(value)}" for key, value in given.items()]
    return "\n".join([f"[[{name}]]", *lines, ""])


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        pairs = [f"{key} = {_toml(v)}" for key, v in value.items()]
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(value)


TINY = suite(learning())


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def reseal(file: Path, **changes: Any) -> None:
    """Change values of a stored JSON object, as somebody would who knows checksums."""
    found = {**parse_object(file.read_bytes()), **changes}
    write(file, sealed(json.dumps(found)))


def distribution(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Install a distribution "theirs" whose module declares `thing` as a task."""
    write(folder / "their_tasks.py", text)
    info = folder / "theirs-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    entry = "[rnn_harness.tasks]\ntheirs = their_tasks:thing\n"
    write(info / "entry_points.txt", entry)
    monkeypatch.syspath_prepend(folder)


def plugin(name: str, folder: Path) -> Path:
    """Return the file of a fake plugin; one with a syntax error is stored as text."""
    if (PLUGINS / f"{name}.py").exists():
        return PLUGINS / f"{name}.py"
    return Path(shutil.copy(PLUGINS / f"{name}.py.txt", folder / f"{name}.py"))


def start(*arguments: object, cwd: Path, report: bool = False) -> subprocess.Popen[str]:
    """Start `rnn-harness` as a process, by default without its report."""
    command = [str(HERE / "bare_cli.py")]
    if report:
        command = ["-c", "from rnn_harness import main; main()"]
    return subprocess.Popen(
        [sys.executable, *command, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a process: exit code, standard output, standard error."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


def run(*arguments: object, cwd: Path) -> tuple[int, str, str]:
    return finish(start(*arguments, cwd=cwd))


def read(*arguments: object, cwd: Path) -> tuple[int, str, str]:
    """Call a command that only reads in this process, which has its libraries.

    A process of its own would import them all: more than a second each time.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["rnn-harness", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out.getvalue(), err.getvalue()


def call(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, str, str]:
    """Call the command in this process: exit code, standard output and error."""
    monkeypatch.setattr(sys, "argv", ["rnn-harness", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def without_modules(monkeypatch: pytest.MonkeyPatch, *absent: str) -> None:
    """Make modules appear not to be installed."""

    def first_missing(modules: Iterable[str]) -> str | None:
        return next((name for name in modules if name in absent), None)

    monkeypatch.setattr("harness.registry.first_missing", first_missing)


def progress(registry: Registry) -> Progress:
    """Return progress that knows no costs of trials."""
    model = CostModel(registry, calibration=lambda: Calibration(1e-6, 1e9))
    return Progress(Console(stderr=True), 1, model)


def marked(mark: str) -> list[str]:
    """Return the processes, zombies included, that a command of this mark left."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and folder.name != str(os.getpid()):
            try:
                of = b"".join((folder / n).read_bytes() for n in ("environ", "cmdline"))
                if mark.encode() in of:
                    found.append((folder / "cmdline").read_text())
            except OSError:
                continue
    return found


_FORKS = """
import os, time
os.setsid()
for _ in range(200):
    time.sleep(0.005)
    if os.fork():
        os._exit(0)
time.sleep(600)
"""
"""A process that is another one every 5 ms for a second, and then sleeps."""

_WORKER = f"""
import subprocess, sys
from harness.machine.orphans import adopt_orphans
adopt_orphans()
command = [sys.executable, "-S", "-c", {_FORKS!r}, sys.argv[1]]
started = [subprocess.Popen(command, env={{}}) for _ in range(8)]
[one.wait() for one in started]
print(flush=True)
input()
"""


def worker_whose_children_fork(token: str) -> subprocess.Popen[bytes]:
    """Start what adopts orphans, and eight of these with a token in their commands."""
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, token],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert worker.stdout is not None
    worker.stdout.readline()
    assert marked(token)
    return worker


def wait_for(
    condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S
) -> Any:
    """Poll until a condition is true and return its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


def line_with(word: str, process: subprocess.Popen[str]) -> str:
    """Wait until a process prints a line with a word on standard error; return it."""
    assert process.stderr is not None
    return next(line for line in process.stderr if word in line)


def snapshot(folder: Path) -> Mapping[str, str]:
    """Return a hash of every file below a folder; empty if it does not exist."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def curves(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each learning trial's committed events, by label."""
    run = RunFolder.open(folder)
    found = {}
    for record in run.records():
        if record.trial.measure == "learning":
            files = [n for n in record.result["files"] if n.endswith("events.jsonl")]
            assert len(files) == 1
            found[record.trial.label] = (run.trials / record.id / files[0]).read_bytes()
    return found


def workers_of(parent: int) -> list[int]:
    """Return the ids of the worker processes that a process started."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
            status = (folder / "status").read_text(encoding="utf-8")
        except OSError:
            continue
        if b"harness.run.worker.main" in command and f"PPid:\t{parent}\n" in status:
            found.append(int(folder.name))
    return found


def alive(process: int) -> bool:
    """Say whether a process still runs; a zombie does not."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    return "State:\tZ" not in status


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
