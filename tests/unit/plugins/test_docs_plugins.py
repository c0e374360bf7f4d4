"""docs/plugins.md: every file and command in it runs, and what it shows is shown."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.registry import Registry
from harness.scaffold import NewPlugin, write_plugin
from tests import helpers

DOCS = helpers.ROOT / "docs"
TEXT = (DOCS / "plugins.md").read_text(encoding="utf-8")
REGISTRY = Registry.discover()

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [text for word, text in found if word == language]


def block(first_line: str, language: str = "python") -> str:
    """Return a block without its first line, which says what it is."""
    (found,) = [b for b in blocks(language) if b.startswith(f"# {first_line}\n")]
    return found.partition("\n")[2]


def shown(command: str) -> list[str]:
    """Return what the page shows below a command."""
    (found,) = [b for b in blocks("") if f"$ {command}\n" in b]
    after = found.partition(f"$ {command}\n")[2]
    return after.partition("\n$ ")[0].rstrip("\n").split("\n")


def written(new: NewPlugin, folder: Path) -> str:
    """Return what `rnn-harness new` writes as NAME.py."""
    file = folder / f"{new.name.replace('-', '_')}.py"
    return write_plugin(replace(new, file=file), REGISTRY).read_text()


MY_GRU = NewPlugin("implementation", "my-gru", "torch")
UGRNN = NewPlugin("cell", "ugrnn")
FIRST_VALUE = NewPlugin("task", "first-value")
RIGHT, WRONG = "h = z * h + (1 - z) * n", "h = z * n + (1 - z) * h"


# --- files and small commands --------------------------------------------------------


def test_files_that_new_writes_are_shown_as_they_are(tmp_path: Path) -> None:
    assert written(MY_GRU, tmp_path) == block("my_gru.py")
    assert written(FIRST_VALUE, tmp_path) == block("first_value.py")
    assert block("from ugrnn.py") in written(UGRNN, tmp_path)
    min_gru = (helpers.PLUGINS / "min_gru.py").read_text()
    for first_line in ("from min_gru.py", "from min_gru.py: its equations"):
        assert block(first_line) in min_gru
    assert RIGHT in block("my_gru.py")
    assert f"`{WRONG}`" in TEXT


@pytest.mark.parametrize("name", ["unflattened.py", "stock_keras.py"])
def test_a_layer_that_is_there_takes_at_most_15_lines(name: str) -> None:
    assert len([line for line in block(name).splitlines() if line]) <= 15


@pytest.mark.parametrize(
    "command",
    [
        "rnn-harness new implementation my-gru --framework torch",
        "rnn-harness new cell ugrnn",
        "rnn-harness new task first-value",
    ],
)
def test_new_prints_what_is_shown(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = helpers.call(command.split()[1:], monkeypatch, capsys)
    assert code == 0
    assert out.splitlines() == shown(command)


def test_the_check_of_a_task_prints_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = helpers.write(tmp_path / "first_value.py", block("first_value.py"))
    command = ["check", "first_value.py"]
    code, out, _ = helpers.call(command, monkeypatch, capsys)
    assert code == 0
    assert out.splitlines()[:-1] == shown("rnn-harness check first_value.py")
    helpers.write(file, file.read_text().replace("1 / 12}", "1 / 6}"))
    code, out, _ = helpers.call(command, monkeypatch, capsys)
    assert code == 3
    (told,) = [b for b in blocks("") if "floor says" in b]
    assert told in out


@needs_torch
def test_the_runs_of_the_page_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("my_gru.py", "first_value.py"):
        helpers.write(tmp_path / name, block(name))
    written(UGRNN, tmp_path)
    helpers.write(tmp_path / "ugrnn.toml", block("ugrnn.toml", "toml"))
    commands = [
        line.split()[1:]
        for text in blocks("")
        for line in text.splitlines()
        if line.startswith("rnn-harness run ")
    ]
    assert len(commands) == 3
    for command in commands:
        code, out, _ = helpers.call([*command, "--dry-run"], monkeypatch, capsys)
        assert code == 0
        assert "learning: " in out
        assert "0 are done" in out


def test_every_link_leads_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {f"#{title.lower().replace(' ', '-')}" for title in titles}
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    for link in links:
        assert link in anchors or (DOCS / link).exists(), link


# --- certificates --------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """What one `rnn-harness check` certifies, in a process of its own.

    Attributes:
        files: What is written and named on the command line.
        names: Implementations to certify, each with a built-in one of its framework.
        arguments: What else is on the command line.
    """

    files: Mapping[str, str]
    names: Mapping[str, str]
    arguments: tuple[str, ...] = ()

    def start(self, folder: Path) -> subprocess.Popen[str] | None:
        """Start with whatever is installed here."""
        here = [n for n, other in self.names.items() if not REGISTRY.unavailable(other)]
        if not here:
            return None
        folder.mkdir()
        for name, text in self.files.items():
            helpers.write(folder / name, text)
        only = ("-k", " or ".join(here))
        command = ("check", "-j", 1, *self.files, *only, *self.arguments)
        return helpers.start(*command, cwd=folder)


COMPILED = {
    "own-jax": "jax-scan",
    "jax-scan": "jax-scan",
    "own-tensorflow": "tensorflow-loop",
    "stock-tensorflow": "tensorflow-loop",
    "tensorflow-loop": "tensorflow-loop",
    "stock-keras-jax": "keras-jax",
}
"""Implementations whose framework takes seconds to compile each shape."""


def groups(folder: Path) -> dict[str, Group]:
    ugrnn, my_gru = written(UGRNN, folder), block("my_gru.py")
    own = {
        f"own_{name}.py": written(
            NewPlugin("implementation", f"own-{name}", name), folder
        )
        for name in ("numpy", "tensorflow", "jax")
    }
    methods = block("into the class of ugrnn.py")
    with_reference = f"{ugrnn}\n{methods}".replace(", reference=False", "")
    few = ("--json", "--plugin", str(helpers.PLUGINS / "few_shapes.py"))
    return {
        "whole": Group(
            {
                "ugrnn.py": ugrnn,
                "my_gru.py": my_gru,
                "unflattened.py": block("unflattened.py"),
                "own_numpy.py": own["own_numpy.py"],
            },
            {
                "torch-loop": "torch-loop",
                "my-gru": "torch-loop",
                "unflattened": "torch-loop",
                "own-numpy": "numpy-reference",
            },
        ),
        "mistaken": Group(
            {"my_gru.py": my_gru.replace(RIGHT, WRONG)}, {"my-gru": "torch-loop"}
        ),
        "reference": Group(
            {"ugrnn.py": with_reference}, {"torch-loop": "torch-loop"}, ("--json",)
        ),
        "few": Group(
            {
                "ugrnn.py": ugrnn,
                "stock_keras.py": block("stock_keras.py"),
                "own_tensorflow.py": own["own_tensorflow.py"],
                "own_jax.py": own["own_jax.py"],
            },
            COMPILED,
            few,
        ),
    }


Ended = Mapping[str, tuple[int, str, str]]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """Run all groups side by side: exit code, standard output, standard error."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "new").mkdir()
    started = {
        name: process
        for name, group in groups(folder / "new").items()
        if (process := group.start(folder / name)) is not None
    }
    try:
        found = {}
        for name, process in started.items():
            out, err = process.communicate(timeout=850)
            found[name] = (process.returncode, out, err)
        yield found
    finally:
        for process in started.values():
            process.kill()


NUMBER = re.compile(r"\d\.\d+(e[-+]\d+)?|\d+\.\d+")


def agree(expected: str, found: str) -> bool:
    """Say whether two lines are the same but for rounding, and torch's version.

    Numbers above 0.001 must agree to 2 %; smaller ones are rounding errors.
    """
    words = [
        re.sub(r"torch [\d.]+(\+\w+)?", "torch", t).split() for t in (expected, found)
    ]
    if len(words[0]) != len(words[1]):
        return False
    return all(map(_same_word, *words))


def _same_word(a: str, b: str) -> bool:
    if not (NUMBER.fullmatch(a) and NUMBER.fullmatch(b)):
        return a == b
    return float(b) == pytest.approx(float(a), rel=0.02, abs=1e-3)


def assert_shown(command: str, out: str) -> None:
    """Assert that the page shows lines of an output, in order."""
    remaining = iter(out.splitlines())
    for line in shown(command):
        if line.strip() != "...":
            assert any(agree(line, other) for other in remaining), line


def certificates(out: str) -> dict[str, str]:
    """Return the certificates of an output by implementation."""
    found = re.split(r"\n\n", out.strip())
    return {text.partition(" · ")[0]: text for text in found}


@needs_torch
@pytest.mark.slow
@pytest.mark.timeout(900)  # the first of them waits for all
def test_what_is_written_and_what_is_there_already_is_certified(ended: Ended) -> None:
    code, out, err = ended["whole"]
    assert code == 0, err
    found = certificates(out)
    assert set(found) == {"torch-loop", "my-gru", "unflattened", "own-numpy"}
    for name, text in found.items():
        last = text.splitlines()[-1]
        assert last == f"certified: {33 if name == 'torch-loop' else 23} checks"
    assert "8 shapes against the float64 reference" in found["my-gru"]
    assert_shown("rnn-harness check ugrnn.py -k torch-loop", found["torch-loop"])


@needs_torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_mistake_is_shown_with_its_cause(ended: Ended) -> None:
    code, out, _ = ended["mistaken"]
    assert code == 3
    assert_shown("rnn-harness check my_gru.py", out)


@needs_torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_names_every_check(ended: Ended) -> None:
    rows = re.findall(r"^\| ([^|]+) \|", TEXT, re.MULTILINE)
    names = [name for row in rows for name in row.split(", ")]
    patterns = [re.sub("TENSOR", ".+", name) for name in names]
    patterns = [re.sub("OPTIMISER", "(adam|rmsprop|sgd)", p) for p in patterns]
    for text in certificates(ended["whole"][1]).values():
        checks = [line[2:28].strip() for line in text.splitlines()[2:-1]]
        assert len(checks) in (23, 33)
        for check in checks:
            assert any(re.fullmatch(p, check) for p in patterns), check


@needs_torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_reference_of_the_page_is_that_of_its_equations(ended: Ended) -> None:
    code, out, err = ended["reference"]
    assert code == 0, err
    (found,) = json.loads(out)
    assert found["against"] == "the float64 reference"
    assert found["checks"]["certificate"]["certified"] == 1
    assert found["checks"]["grad w_hh"]["error"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", COMPILED)
def test_the_same_holds_in_every_framework(name: str, ended: Ended) -> None:
    if (reason := REGISTRY.unavailable(COMPILED[name])) is not None:
        pytest.skip(reason)
    code, out, err = ended["few"]
    assert code == 0, err
    (found,) = [c for c in json.loads(out) if c["implementation"] == name]
    cell = "ugrnn" if name in ("jax-scan", "tensorflow-loop") else "gru"
    assert (found["cell"], found["outcome"]) == (cell, "ok")
    assert found["checks"]["certificate"] == {
        **found["checks"]["certificate"],
        "certified": 1,
        "broken": 0,
        "shapes": 2,
    }
    assert 0 < found["checks"]["grad w_hh"]["error"] < 1e-5
    if cell == "ugrnn":
        assert 0 < found["checks"]["differences w_hh"]["error"] < 1e-6
