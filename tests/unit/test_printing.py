"""What reaches a terminal is text: no escape, no markup, and never a traceback."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from harness.cli.options import fail
from harness.console import Console
from harness.errors import MisuseError
from harness.printing import Descriptor, echo, one_line, printable
from tests import fake_runs, helpers, hostile

TEXTS = hostile.TEXTS.values()


@pytest.mark.parametrize("text", TEXTS, ids=hostile.TEXTS)
def test_nothing_that_is_printed_is_more_than_text(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    echo(f"> {text} <")
    echo(f"> {text} <", err=True)
    fail(text)
    out, err = capsys.readouterr()
    assert printable(out, "\n") == out
    assert printable(err, "\n") == err
    assert one_line(out) == one_line(f"> {text} <"), "the rest is left"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("text", TEXTS, ids=hostile.TEXTS)
def test_a_console_prints_text_as_it_is(text: str, terminal: bool) -> None:
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=terminal, color_system=None, width=20_000
    )
    table = Table(box=None, show_header=False)
    table.add_row(Text(f"> {text} <"))
    console.print(f"> {text} <", soft_wrap=True)
    console.print(table)
    found = file.getvalue()
    assert printable(found, "\n") == found
    for part in one_line(f"{text}").split():
        assert found.count(part) >= 2, "no markup is taken from the text"


def test_only_a_message_of_several_lines_has_further_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = MisuseError("two problems:", "x\nrnn-harness: all is well", "y  z")
    fail(*error.lines)
    assert capsys.readouterr().err == (
        "rnn-harness: two problems:\n  x rnn-harness: all is well\n  y  z\n"
    )


def test_a_line_break_of_a_name_makes_no_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    echo("x\ncertified: 22 checks")
    file = io.StringIO()
    Console(file=file).print("x\ncertified: 22 checks", soft_wrap=True)
    for found in (capsys.readouterr().out, file.getvalue()):
        assert found == "x certified: 22 checks\n"


# --- streams that end early ----------------------------------------------------------


def into(number: int) -> io.TextIOWrapper:
    """Return a stream as the command line makes it, to an open file."""
    buffer = io.BufferedWriter(Descriptor(number, "wb", closefd=False))
    return io.TextIOWrapper(buffer, "utf-8", "replace")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made = tmp_path_factory.mktemp("runs")
    return [fake_runs.only_speed(made / name).path for name in ("one", "two")]


VERBS = {
    "check": ["check", "numpy-reference", "-k", "rnn and not rnn-relu"],
    "compare": ["compare", "one", "two"],
    "doctor": ["doctor", "--quick"],
    "export": ["export", "one"],
    "help": ["--help"],
    "list": ["list", "--json"],
    "new": ["new", "task", "my-task"],
    "report": ["report", "one"],
    "run": ["run", "quick", "--dry-run"],
    "show": ["show", "one"],
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_standard_output_is_reported_and_a_reader_that_ends_is_not(
    verb: str,
    folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in folders:
        (tmp_path / folder.name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    read, write = os.pipe()
    os.close(read)
    with Path("/dev/full").open("wb") as full:
        monkeypatch.setattr(sys, "stdout", into(full.fileno()))
        code, _, err = helpers.call(VERBS[verb], monkeypatch, capsys)
        assert code == 2
        assert "standard output cannot be written: No space left" in err
        (tmp_path / "my_task.py").unlink(missing_ok=True)
        monkeypatch.setattr(sys, "stdout", into(write))
        code, _, err = helpers.call(VERBS[verb], monkeypatch, capsys)
    # `compare` and `doctor` answer with a code of their own.
    assert code == 0 or verb in ("compare", "doctor")
    assert "standard output" not in err
    os.close(write)


@pytest.mark.slow
def test_a_run_whose_reader_ends_measures_everything(tmp_path: Path) -> None:
    helpers.write(tmp_path / "tiny.toml", helpers.suite(helpers.learning(updates=40)))
    command = ["from harness.cli import main; main()", "run", "tiny.toml", "-o", "out"]
    with subprocess.Popen(
        [sys.executable, "-c", *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(helpers.PATIENCE_S) == 0
    trials = list((tmp_path / "out" / "trials").iterdir())
    assert trials
    assert all((trial / "result.json").exists() for trial in trials)
    assert (tmp_path / "out" / "report.html").exists()


def shell(line: str, folder: Path, **environment: str) -> tuple[int, str]:
    """Run a line in which `rnn-harness` is the command: exit code and both outputs."""
    command = f"{sys.executable} -c 'from harness.cli import main; main()'"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("rnn-harness", command)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("rnn-harness show one >&-", 2, "standard output cannot be written: it is cl"),
        ("rnn-harness show one >&- 2>&- <&-", 2, ""),
        ("rnn-harness list 2>/dev/full", 0, "implementations"),
        ("rnn-harness show one | head -n 1", 0, "\n"),
        ("rnn-harness --version | true", 0, ""),
    ],
)
def test_streams_that_end_early_are_no_traceback(
    line: str, code: int, words: str, folders: list[Path]
) -> None:
    found, output = shell(line, folders[0].parent)
    assert (found, "Traceback" in output) == (code, False), output
    assert words in output


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_what_the_encoding_cannot_hold_is_replaced(
    encoding: str, tmp_path: Path
) -> None:
    writer = fake_runs.Writer.create(tmp_path / "run")
    trial = fake_runs.learning_trial("gru", 0)
    writer.commit(trial, outcome="crashed", reason="日本 \ud800 – café")
    for verb in ("show", "export"):
        line = f"rnn-harness {verb} run"
        code, output = shell(line, tmp_path, PYTHONIOENCODING=encoding)
        assert (code, "Traceback" in output) == (0, False), output
    assert {"ascii": "caf?", "cp1252": "?? ", "utf-16": ""}[encoding] in output


def test_commands_print_with_these_functions() -> None:
    for file in (helpers.ROOT / "harness" / "cli").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        found = re.search(r"click\.echo|(?<![._])\bprint\(|rich\.console", text)
        assert found is None, file
