"""Thousands of odd command lines: each ends in a sentence and a documented exit code.

They run in this process, which would show a crash, a hang or a growing memory. What
would measure, import a framework or draw is replaced by a refusal.
"""

from __future__ import annotations

import gc
import io
import os
import random
import resource
import string
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from harness import cli
from harness.cli.main import cli as group
from harness.errors import MisuseError
from harness.store import RunFolder
from harness.trial import Trial
from tests import helpers

COUNT = int(os.environ.get("RNN_HARNESS_FUZZ", "600"))
"""How many command lines; `make test-all` tries many more."""

EXIT_CODES = {0, 2, 3, 5}
"""Of those that are documented; 1 is an internal error, and nothing is measured."""

MOST_GROWTH_BYTES = 200 << 20

WORK = (
    "harness.run.execution.Execution.execute",
    "harness.run.certify.certify",
    "harness.run.gate.gate",
    "harness.run.doctor.diagnose",
    "harness.run.availability.build_each",
    "harness.report.page.write_report",
)
"""What takes long, and is not tried here."""

Draw = Callable[[random.Random], str]


def _characters(draw: random.Random) -> str:
    """Return text of any characters, among them those that a terminal obeys."""
    odd = "\x00\x01\x1b[31m\n\r\t\x7f\x85\u202e\u2028\ud800\udcff\U0001f600é²٣"
    letters = string.ascii_letters + string.digits + "-_./=,:;%~ '\"\\`$(){}" + odd
    return "".join(draw.choices(letters, k=draw.choice((0, 1, 3, 12, 60))))


def _long(draw: random.Random) -> str:
    unit = draw.choice(("x", "9", "(", "not ", "a.", "[", "{a=", "/", "1,", "../", "é"))
    return unit * draw.choice((100, 300, 5000))


def _number(draw: random.Random) -> str:
    words = "0 -1 1e999 nan inf 0x10 1_0 ² 5% 4GiB 1e-400 0-4 2,1 0-99999999 1.5 -0 +7"
    return draw.choice(["", " 1 ", "9" * 5000, *words.split()])


def _expression(draw: random.Random) -> str:
    words = ("and", "or", "not", "(", ")", "adding", "rnn", "parity", "gru", "s0", "")
    return " ".join(draw.choices(words, k=draw.randrange(12)))


def _setting(draw: random.Random) -> str:
    keys = ("learning", "0", "1", "updates", "task", "length", "cells", "seeds", "name")
    keys += ("environments", "numpy", "speed", "shapes", "why", "task_options", "a", "")
    words = "1 -1 [] {} [1,2] 'x' true nan 1979-05-27 {a=1} [[1]] 0b1 inf"
    values = [*words.split()]
    values += ["'''", "1\nb=2", '"\\ud800"', "[1, 'x', {}]"]
    key = ".".join(draw.choices(keys, k=draw.randrange(1, 5)))
    return f"{key}={draw.choice((*values, _characters(draw), _number(draw)))}"


def _name(draw: random.Random) -> str:
    names = "tiny.toml broken.toml done empty a_file nowhere smoke odd.py cuda:7 cpu"
    names += " numpy-reference gru adding torch task cell implementation mine dask csv"
    return draw.choice(names.split())


DRAWS: tuple[Draw, ...] = (_characters, _long, _number, _expression, _setting, _name)


def command_line(draw: random.Random) -> list[str]:
    """Return a verb with options and arguments, of which most make no sense."""
    name = draw.choice([*group.commands, draw.choice(("", "rum", "--version", "-h"))])
    command = group.commands.get(name)
    words = [name]
    options = [] if command is None else command.params
    for option in draw.sample(options, k=min(len(options), draw.randrange(5))):
        if isinstance(option, click.Option):
            words.append(draw.choice(option.opts))
        flag = isinstance(option, click.Option) and option.is_flag
        if not flag or draw.random() < 0.05:
            words.append(_value_for(option, draw))
    words += [draw.choice(DRAWS)(draw) for _ in range(draw.choice((0, 0, 1, 2)))]
    if draw.random() < 0.1:
        draw.shuffle(words)
    return words


def _value_for(option: click.Parameter, draw: random.Random) -> str:
    """Return a value for an option, which is often of the kind that it takes."""
    likely = {"settings": _setting, "expression": _expression}.get(option.name or "")
    if likely is None and draw.random() < 0.5:
        likely = _name
    return (likely if likely and draw.random() < 0.7 else draw.choice(DRAWS))(draw)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with what the names of `_name` stand for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("harness.machine.devices.gpu_names", list)
    helpers.write(tmp_path / "tiny.toml", helpers.TINY)
    helpers.write(tmp_path / "broken.toml", "name = [\n")
    helpers.write(tmp_path / "odd.py", "from harness import *\ndeclare_cell(1)\n")
    helpers.write(tmp_path / "a_file", "mine")
    (tmp_path / "empty").mkdir()
    run = RunFolder.create(tmp_path / "done")
    run.write_info({"suite": {}, "device": "cpu"})
    trial = Trial("parity", "numpy-reference", "rnn")
    run.begin(trial, trial.identity({}), {}).commit({"outcome": "ok", "reason": None})
    for name in WORK:
        monkeypatch.setattr(name, _refuse)
    return tmp_path


def _refuse(*_: object, **__: object) -> None:
    raise MisuseError("nothing is measured in this test")


def test_each_odd_command_line_ends_in_a_sentence_and_a_documented_exit_code(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(0)
    codes: Counter[object] = Counter()
    before = 0
    for number in range(COUNT):
        line = command_line(draw)
        begin_s = time.process_time()
        monkeypatch.setattr(sys, "argv", ["rnn-harness", *line])
        code = _code_of(line)
        took_s = time.process_time() - begin_s
        out, err = capfd.readouterr()
        codes[code] += 1
        assert code in EXIT_CODES, (line, code, err[-2000:])
        assert "Traceback" not in out + err, (line, err[-2000:])
        assert code in (0, 3) or err.strip(), line
        assert len(err) < 40_000, (line, len(err))
        assert took_s < 20, (line, took_s)
        if number == COUNT // 3:
            before = _memory_bytes()
    gc.collect()
    assert _memory_bytes() - before < MOST_GROWTH_BYTES
    assert codes[0] > COUNT / 50  # some lines are understood
    assert codes[2] > COUNT / 2


def _code_of(line: list[str]) -> int | str | None:
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code
    except BaseException as error:
        raise AssertionError(f"{line!r:.2000} raised {error!r:.500}") from error
    raise AssertionError(f"{line!r:.2000} did not exit")


def _memory_bytes() -> int:
    """Return the most memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
