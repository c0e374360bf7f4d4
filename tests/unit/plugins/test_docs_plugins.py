"""docs/plugins.md: every file and command runs, and prints what the page shows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from harness.scaffold import NewPlugin, write_plugin
from tests import helpers
from tests.helpers import REGISTRY, needs_torch

DOCS = helpers.ROOT / "docs"
TEXT = (DOCS / "plugins.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [text for word, text in found if word == language]


def block(first_line: str, language: str = "python") -> str:
    """Return a block of code without its first line, which names it."""
    (found,) = [b for b in blocks(language) if b.startswith(f"# {first_line}\n")]
    return found.partition("\n")[2]


def shown(command: str) -> list[str]:
    """Return the output that the page shows below a command."""
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


def test_the_page_shows_the_files_of_new_as_they_are(tmp_path: Path) -> None:
    assert written(MY_GRU, tmp_path) == block("my_gru.py")
    assert written(FIRST_VALUE, tmp_path) == block("first_value.py")
    assert block("from ugrnn.py") in written(UGRNN, tmp_path)
    min_gru = (helpers.PLUGINS / "min_gru.py").read_text()
    for first_line in ("from min_gru.py", "from min_gru.py: its equations"):
        assert block(first_line) in min_gru
    assert RIGHT in block("my_gru.py")
    assert f"`{WRONG}`" in TEXT


@pytest.mark.parametrize("name", ["unflattened.py", "stock_keras.py"])
def test_an_existing_layer_takes_at_most_15_lines(name: str) -> None:
    assert len([line for line in block(name).splitlines() if line]) <= 15


@pytest.mark.parametrize(
    "command",
    [
        "rnn-harness new implementation my-gru --framework torch",
        "rnn-harness new cell ugrnn",
        "rnn-harness new task first-value",
    ],
)
def test_new_prints_what_the_page_shows(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = helpers.call(command.split()[1:], monkeypatch, capsys)
    assert code == 0
    assert out.splitlines() == shown(command)


def test_the_check_of_a_task_prints_what_the_page_shows(
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
    (printed,) = [b for b in blocks("") if "floor says" in b]
    assert printed in out


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


def test_every_link_of_the_page_has_a_target() -> None:
    titles = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {f"#{title.lower().replace(' ', '-')}" for title in titles}
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    for link in links:
        assert link in anchors or (DOCS / link).exists(), link


# --- certificates --------------------------------------------------------------------


def check(
    folder: Path, files: Mapping[str, str], names: Sequence[str], *options: object
) -> tuple[int, str, str]:
    """Certify implementations of files: exit code, standard output and error."""
    for name, text in files.items():
        helpers.write(folder / name, text)
    only = ("-k", " or ".join(names))
    return helpers.run("check", "-j", 1, *files, *only, *options, cwd=folder)


NUMBER = re.compile(r"\d\.\d+(e[-+]\d+)?|\d+\.\d+")


def agree(expected: str, found: str) -> bool:
    """Say whether two lines are equal except for rounding and the version of torch.

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


def assert_every_check_is_named(certificate: str) -> None:
    """Assert that the page names the checks of a certificate."""
    rows = re.findall(r"^\| ([^|]+) \|", TEXT, re.MULTILINE)
    names = [name for row in rows for name in row.split(", ")]
    patterns = [re.sub("TENSOR", ".+", name) for name in names]
    patterns = [re.sub("OPTIMISER", "(adam|rmsprop|sgd)", p) for p in patterns]
    checks = [line[2:28].strip() for line in certificate.splitlines()[2:-1]]
    assert len(checks) in (25, 35)
    for name in checks:
        assert any(re.fullmatch(p, name) for p in patterns), name


@pytest.mark.long
@needs_torch
@pytest.mark.slow
@pytest.mark.usefixtures("whole_work")
def test_the_cell_of_new_is_certified_as_the_page_shows(tmp_path: Path) -> None:
    files = {"ugrnn.py": written(UGRNN, tmp_path)}
    code, out, err = check(tmp_path, files, ["torch-loop"])
    assert code == 0, err
    text = certificates(out)["torch-loop"]
    assert text.splitlines()[-1] == "certified: 35 checks"
    assert_every_check_is_named(text)
    assert_shown("rnn-harness check ugrnn.py -k torch-loop", text)


@needs_torch
@pytest.mark.slow
def test_the_layer_of_new_is_certified_and_the_page_names_every_check(
    tmp_path: Path,
) -> None:
    files = {"my_gru.py": block("my_gru.py")}
    code, out, err = check(tmp_path, files, ["my-gru"])
    assert code == 0, err
    text = certificates(out)["my-gru"]
    assert text.splitlines()[-1] == "certified: 25 checks"
    assert_every_check_is_named(text)
    assert "shapes against the float64 reference" in text


@needs_torch
@pytest.mark.slow
@pytest.mark.usefixtures("whole_work")
def test_the_page_shows_a_mistake_with_its_cause(tmp_path: Path) -> None:
    mistaken = {"my_gru.py": block("my_gru.py").replace(RIGHT, WRONG)}
    code, out, _ = check(tmp_path, mistaken, ["my-gru"])
    assert code == 3
    assert_shown("rnn-harness check my_gru.py", out)


@needs_torch
@pytest.mark.slow
def test_the_reference_on_the_page_agrees_with_its_equations(tmp_path: Path) -> None:
    methods = block("into the class of ugrnn.py")
    file = written(UGRNN, tmp_path)
    assert "    reference=False,\n" in file
    text = file.replace("    reference=False,\n", "") + f"\n{methods}"
    code, out, err = check(tmp_path, {"ugrnn.py": text}, ["torch-loop"], "--json")
    assert code == 0, err
    (found,) = json.loads(out)
    assert found["against"] == "the float64 reference"
    assert found["checks"]["certificate"]["certified"] == 1
    assert found["checks"]["grad w_hh"]["error"] > 0


@pytest.mark.slow
def test_a_reference_with_a_wrong_gradient_is_no_judge_of_itself(
    tmp_path: Path,
) -> None:
    right = "(1 - g) * (1 - n * n)"
    methods = block("into the class of ugrnn.py")
    assert right in methods
    text = written(UGRNN, tmp_path).replace("    reference=False,\n", "")
    text += "\n" + methods.replace(right, "(1 - g) * (1 - n)")
    code, out, _ = check(tmp_path, {"ugrnn.py": text}, ["numpy-reference"], "--json")
    assert code == 3
    (found,) = json.loads(out)
    del found["checks"]["certificate"]
    broken = {c for c, v in found["checks"].items() if v["error"] > v["tolerance"]}
    assert {"differences w_hh", "differences inputs"} <= broken
    assert all(check.startswith("differences") for check in broken)


long = partial(pytest.param, marks=pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("built_in", "own", "files"),
    [
        ("numpy-reference", ["own-numpy"], ["own_numpy.py"]),
        ("torch-loop", ["unflattened"], ["unflattened.py"]),
        long("jax-scan", ["own-jax", "jax-scan"], ["own_jax.py", "ugrnn.py"]),
        long("keras-jax", ["stock-keras-jax"], ["stock_keras.py"]),
        long(
            "tensorflow-loop",
            ["own-tensorflow", "stock-tensorflow", "tensorflow-loop"],
            ["own_tensorflow.py", "stock_keras.py", "ugrnn.py"],
        ),
    ],
)
def test_the_files_of_the_page_are_certified_in_every_framework(
    built_in: str,
    own: list[str],
    files: list[str],
    tmp_path: Path,
) -> None:
    """Certify the files of `new` and of the page at two shapes."""
    if (reason := REGISTRY.unavailable(built_in)) is not None:
        pytest.skip(reason)
    texts = {name: text_of(name, tmp_path) for name in files}
    code, out, err = check(tmp_path, texts, own, "--json")
    assert code == 0, err
    found = {c["implementation"]: c for c in json.loads(out)}
    assert found.keys() == set(own)
    for name, certificate in found.items():
        cell, checks = "ugrnn" if name == built_in else "gru", certificate["checks"]
        assert (certificate["cell"], certificate["outcome"]) == (cell, "ok")
        whole = {"certified": 1, "broken": 0, "shapes": 2}
        assert checks["certificate"] == {**checks["certificate"], **whole}
        assert 0 < checks["grad w_hh"]["error"] < 1e-5
        if cell == "ugrnn":
            assert 0 < checks["differences w_hh"]["error"] < 1e-6


def text_of(name: str, folder: Path) -> str:
    """Return a file that the page shows, or that `rnn-harness new` writes."""
    if name == "ugrnn.py":
        return written(UGRNN, folder)
    if name.startswith("own_"):
        framework = name.removeprefix("own_").removesuffix(".py")
        new = NewPlugin("implementation", f"own-{framework}", framework)
        return written(new, folder)
    return block(name)
