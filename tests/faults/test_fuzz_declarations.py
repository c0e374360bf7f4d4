"""Plugin files that break while they are read: a sentence each, and the rest is read.

The inputs are the same in each run; `RNN_HARNESS_FUZZ=10000` tries many more.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from harness import declarations, declared
from harness.declarations import Declaration
from harness.declared import answer_to, found_in, from_json, to_json
from harness.errors import PluginError
from harness.messages.channel import Channel
from harness.messages.pipe import Message, send
from harness.registry import Registry
from tests import fuzz, helpers

COUNT = int(os.environ.get("RNN_HARNESS_FUZZ", "300"))

DECLARES = "from harness import declare_task\ndeclare_task('{name}', factory='x:y')\n"
EACH = "import os\nfor number in range(3, 100):\n    try:\n        {}\n"
EACH += "    except OSError:\n        pass\n"

BROKEN = {
    "big": ("raise Exception('z' * 50_000_000)", "Exception: zzz"),
    "unsaid": (
        "class Odd(Exception):\n"
        "    def __str__(self):\n        raise ValueError\n"
        "raise Odd",
        "Odd: its text cannot be read (unsaid.py:4)",
    ),
    "long": (
        "from harness import declare_implementation\n"
        "declare_implementation('x', framework='numpy', cells=['gru'] * 3_000_000, "
        "factory='x:y')",
        "cells has 3000000 items; give at most 1000",
    ),
    "closes": (
        DECLARES.format(name="closes") + EACH.format("os.close(number)"),
        "closes an open file that is not its own",
    ),
    "reopens": (
        DECLARES.format(name="reopens")
        + EACH.format("os.close(number)")
        + "kept = [open(__file__ + '.txt', 'ab') for _ in range(40)]",
        "closes an open file that is not its own",
    ),
    "junk": (
        DECLARES.format(name="junk") + EACH.format("os.write(number, b'junk\\n')"),
        "writes into an open file that is not its own",
    ),
    "thousands": (
        "from harness import declare_task\nfor n in range(200_000):\n"
        "    declare_task(f'task-{n}', factory='x:y')",
        "more than 1000 plugins are declared",
    ),
    "changed": (
        DECLARES.replace("declare_task(", "task = declare_task(", 1).format(name="a")
        + "object.__setattr__(task, 'summary', object())",
        "summary must be one line",
    ),
    "exits-hard": ("import os\nos._exit(0)", "exits with 0 when its declarations"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "kills": (
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\n"
        "time.sleep(100)",
        "ends with SIGKILL when its declarations are read",
    ),
}  # fmt: skip
"""The text of a plugin file, and what is said of it."""

ENDLESS = """\
import subprocess, sys
code = "import time; time.sleep(1000)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
with open(__file__ + ".pid", "w") as file:
    file.write(str(child.pid))
while True:
    pass
"""

WHOLE = {
    "fine": DECLARES.format(name="fine"),
    "forks": "import os\nos.fork()\n" + DECLARES.format(name="forks"),
    "silent": "import os, sys\nsys.stdout = sys.stderr = None\nos.closerange(0, 3)\n"
    + DECLARES.format(name="silent"),
    "prints": "import os\nprint('\\x1b[31mred\\x07')\n"
    "os.write(1, b'\\x1b]0;title\\x07\\xff\\n' + b'x' * 5_000_000)\n"
    + DECLARES.format(name="prints"),
}
"""Files that can be read whatever they do besides."""


def write_all(folder: Path, texts: dict[str, str]) -> list[Path]:
    return [helpers.write(folder / f"{name}.py", text) for name, text in texts.items()]


def test_each_broken_file_gets_one_sentence_and_the_others_are_listed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = write_all(tmp_path, WHOLE | {n: text for n, (text, _) in BROKEN.items()})
    with (tmp_path / "wide.py").open("wb") as stream:
        stream.write(WHOLE["fine"].encode("utf-16"))
    registry = Registry.discover([*files, tmp_path / "wide.py"])
    said = {problem.plugin: problem.reason for problem in registry.problems}
    broken = {f"{name}.py": words for name, (_, words) in BROKEN.items()}
    assert said.keys() == {*broken, "wide.py"}
    for name, words in broken.items():
        assert words in said[name]
        assert len(said[name]) < 3000
    assert "save it as UTF-8" in said["wide.py"]
    assert {*WHOLE} <= {*registry.tasks}
    assert registry.tasks["fine"].file == tmp_path / "fine.py"
    assert not (tmp_path / "reopens.py.txt").read_bytes()
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert "prints.py:  [31mred" in err
    assert err.replace("\n", "").isprintable()
    assert len(err) < 12_000


def test_a_file_that_never_ends_is_ended_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared, "MOST_S", 10.0)
    file = helpers.write(tmp_path / "endless.py", ENDLESS)
    (problem,) = Registry.discover([file]).problems
    assert "takes longer than 10 s when its declarations are read" in problem.reason
    child = int((tmp_path / "endless.py.pid").read_text())
    helpers.wait_for(lambda: not helpers.alive(child), "what it has started to end")


# --- odd declarations ----------------------------------------------------------------

REFERENCES = ("x:y", "x", ":", "x.y:z", "x y:z", "x:y\n")
WORDS = (*fuzz.ODD, *REFERENCES, "my-gru", "gru", "GRU", "a" * 101, "equations")
VALUES: tuple[Any, ...] = (
    *(*WORDS, object(), b"x", {1}, (1,), [10**400, 0], [0.0, 1.0], ["cpu"] * 2000),
    *(range(10**9), {"h": [0, 1]}, {"h": (0, 10**400)}, {"A": "b"}, {"a=": "\0"}),
    *(["canonical", "chrono"], ["gru"], {"gru"}, "reference", float("nan"), type),
)
USUAL = {
    "declare_framework": {"modules": ["numpy"], "factory": "x:y"},
    "declare_cell": {"factory": "x:y", "states": {"h": (0.0, 1.0)}},
    "declare_task": {"factory": "x:y"},
    "declare_implementation": {"framework": "numpy", "cells": ["gru"], "layer": "x:y"},
}
MORE = ("summary", "files", "inits", "extra", "environment", "trains", "devices")


def odd_call(rng: random.Random) -> tuple[str, Any, dict[str, Any]]:
    """Return a function that declares, a name and arguments, some of them odd."""
    function = rng.choice([*USUAL])
    name = rng.choice(WORDS) if rng.random() < 0.2 else "mine"
    arguments: dict[str, Any] = dict(USUAL[function])
    for _ in range(rng.choice((0, 1, 1, 2))):
        given = rng.choice([*arguments, *arguments, *MORE])
        arguments[given] = rng.choice(VALUES)
    return function, name, arguments


def test_an_odd_declaration_is_refused_in_words_or_means_the_same_elsewhere() -> None:
    said: list[str] = []
    for number in range(COUNT):
        function, name, arguments = odd_call(random.Random(number))
        try:
            made = getattr(declarations, function)(name, **arguments)
        except (ValueError, TypeError) as error:
            said.append(str(error))
            continue
        sent = json.loads(json.dumps(to_json([made])))
        assert from_json(sent) == [made]
    assert COUNT / 5 < len(said) < COUNT
    # The last is Python's own, about an argument that there is not.
    right = r"(name|must be|has \d+ items|give one of|unexpected keyword)"
    for words in said:
        assert re.search(right, words)
        assert len(words) < 1000


def found_for(content: bytes) -> Any:
    """Return what a process is taken to have found that answers with some bytes."""
    channel = Channel(io.BytesIO(content), io.BytesIO())
    answer = answer_to("asked", channel)
    return None if answer is None else found_in(answer, "odd.py")


def test_an_odd_answer_is_a_sentence_and_names_the_file() -> None:
    right: list[Declaration] = [
        getattr(declarations, function)("mine", **arguments)
        for function, arguments in USUAL.items()
    ]
    values = {"request": "asked", "found": [to_json(right)], "printed": ""}
    problems = 0
    for number in range(COUNT):
        rng = random.Random(number)
        some = fuzz.odd(values, rng) if number % 2 else values
        stream = io.BytesIO()
        try:
            send(stream, Message(some if isinstance(some, dict) else {}))
        except ValueError:  # a name that JSON cannot have
            continue
        content = stream.getvalue()
        if number % 2 == 0:
            content = fuzz.damaged(content, rng)
        for found in found_for(content) or ():
            if isinstance(found, PluginError):
                problems += 1
                assert len(found.plugin) <= 100
                assert 0 < len(found.reason) < 3000
            else:
                assert all(isinstance(each, Declaration) for each in found)
    assert problems > COUNT / 5


# --- odd files -----------------------------------------------------------------------

STATEMENTS = (
    *("import os, sys, threading, signal, atexit", "raise BaseException('\\ud800')"),
    *("raise SystemExit(object())", "raise SyntaxError(1, (2, 3, 4, 5))", "1 / 0"),
    *("sys.modules.clear()", "sys.stdout = 1", "sys.path[:] = [None]", "del print"),
    *("os.write(1, bytes(range(256)))", "print('\\u202e' * 10**6)", "x = [0] * 10**6"),
    *("threading.Thread(target=print, args=('x',)).start()", "def f(): return f()"),
    *("f()", "import no_such_module", "import json as harness", "os.dup2(2, 9)"),
    *("signal.signal(15, signal.SIG_IGN)", "atexit.register(lambda: 1 / 0)"),
    *("os.fork()", "sys.stdin.close()", "threading.excepthook = None"),
    *("sys.setrecursionlimit(60)", "globals().clear()", "import harness", "os.abort()"),
    *("harness.declare_task('a', factory='x:y')", "harness.declare_cell(*range(9))"),
    *("harness.declare_task(str(os.getpid()), factory='x:y')", "os.closerange(3, 99)"),
    *("os.kill(os.getpid(), 15)", "sys.excepthook = None", "os.chdir('/')", "(" * 300),
)  # fmt: skip


def odd_file(rng: random.Random) -> bytes:
    """Return a plugin file of a few statements, which may be damaged."""
    lines = [*STATEMENTS[:1], *rng.choices(STATEMENTS, k=rng.randint(1, 4))]
    content = "\n".join(lines).encode()
    return fuzz.damaged(content, rng) if rng.random() < 0.2 else content


@pytest.mark.slow
def test_odd_files_are_read_or_refused_and_stop_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"odd_{number}.py" for number in range(max(8, COUNT // 20))]
    for number, file in enumerate(files):
        file.write_bytes(odd_file(random.Random(number)))
    files.insert(1, helpers.write(tmp_path / "fine.py", WHOLE["fine"]))
    registry = Registry.discover(files)
    assert registry.tasks["fine"].file == tmp_path / "fine.py"
    assert registry.problems
    for problem in registry.problems:
        assert 0 < len(problem.reason) < 3000
    _, err = capfd.readouterr()
    assert "Traceback" not in err.replace("harness.declare", "")
    assert len(err) < 12_000 * len(files)
