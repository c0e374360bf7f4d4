"""A program that a file of somebody else names is not run unless the user says so."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from harness.interpreters.choose import user_config
from harness.store import RunFolder
from harness.suite import load_suite
from tests import helpers

SUITE = helpers.suite(
    helpers.learning(updates=4, evaluate_every=4, seeds=[0]),
    helpers.speed("numpy-reference"),
)


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a program that leaves a file beside itself when it is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = tmp_path / "program"
    helpers.write(file, f"#!/bin/sh\ntouch {tmp_path}/was-run\necho Hello\n")
    file.chmod(0o755)
    helpers.write(tmp_path / "plain.toml", SUITE)
    return file


def was_run(folder: Path) -> bool:
    return (folder / "was-run").exists()


def naming(program: Path, framework: str = "numpy") -> str:
    return f'{SUITE}[environments]\n{framework} = "{program}"\n'


@pytest.mark.parametrize(
    "verb", ["run FILE", "run FILE --dry-run", "run FILE --why", "gate FILE --base x"]
)
@pytest.mark.parametrize("name", ["absolute", "beside", "variable", "another"])
def test_a_suite_file_that_names_a_program_is_refused(
    verb: str,
    name: str,
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HERE", str(tmp_path))
    text = {
        "absolute": naming(program),
        "beside": naming(Path("program")),
        "variable": naming(Path("${HERE}/program")),
        "another": naming(program, "torch"),  # of which the suite asks nothing
    }[name]
    file = helpers.write(tmp_path / "theirs.toml", text)
    line = verb.replace("FILE", str(file)).split()
    code, _, err = helpers.call(line, monkeypatch, capsys)
    assert code == 2
    assert (
        f"names programs to run in [environments]: {'torch' * (name == 'another')}"
        in err
    )
    assert f"'{program}'; if you trust them, add --allow-environments" in err
    assert not was_run(tmp_path)
    assert not (tmp_path / "results").exists()


def test_what_the_user_names_or_allows_is_run(
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    helpers.write(tmp_path / "theirs.toml", naming(program))
    dry = ["--dry-run", "-k", "parity"]
    own = f"--set=environments.numpy={program}"
    allowed = "--allow-environments"
    git = ["git", "-c", "user.name=me", "-c", "user.email=me@here"]
    for command in (["init", "-q"], ["commit", "-qm", "none", "--allow-empty"]):
        subprocess.run([*git, *command], check=True)
    for line, config in (
        (["run", "theirs.toml", allowed, *dry], ""),
        (["gate", "theirs.toml", allowed, "--base", "HEAD"], ""),
        (["run", "plain.toml", own, *dry], ""),
        (["run", "smoke", own, *dry], ""),
        (["run", "theirs.toml", own, *dry], ""),  # the user's word replaces the file's
        (["run", "plain.toml", *dry], f'[environments]\nnumpy = "{program}"\n'),
    ):
        if config:
            user_config().parent.mkdir(parents=True)
            helpers.write(user_config(), config)
        code, _, err = helpers.call(line, monkeypatch, capsys)
        assert code == 2, err
        assert "is not a working Python 3.11 or later: Hello" in err
        assert was_run(tmp_path), line
        (tmp_path / "was-run").unlink()


def test_a_setting_for_one_framework_allows_no_program_for_another(
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = naming(program) + f'torch = "{program}"\n'
    helpers.write(tmp_path / "theirs.toml", text)
    own = f"environments.torch={sys.executable}"
    line = ["run", "theirs.toml", "--dry-run", "--set", own]
    code, _, err = helpers.call(line, monkeypatch, capsys)
    assert code == 2
    assert f"in [environments]: numpy = '{program}'; if" in err
    assert not was_run(tmp_path)


def test_a_run_folder_that_names_programs_is_continued_without_them(
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = {"python": str(program), "prefix": "/", "versions": "x", "missing": None}
    suite = load_suite("plain.toml", helpers.REGISTRY).model_dump(mode="json")
    programs = {"environments": {"numpy": str(program)}, "interpreters": {"numpy": own}}
    run = RunFolder.create(tmp_path / "out")
    run.write_info({"suite": {**suite, **programs}, "device": "cpu", **programs, **own})
    for line in (
        ["run", "plain.toml", "-o", "out", "--dry-run"],
        ["run", "plain.toml", "-o", "out", "-k", "parity"],
        *([verb, "out"] for verb in ("show", "report", "export")),
    ):
        _, _, err = helpers.call(line, monkeypatch, capsys)
        assert "Traceback" not in err
        assert not was_run(tmp_path)


@pytest.mark.parametrize("home", ["", ".", "relative"])
@pytest.mark.parametrize("variable", ["HOME", "XDG_CONFIG_HOME"])
def test_a_config_in_the_current_folder_is_not_the_users(
    variable: str,
    home: str,
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv(variable, home)
    for base in (tmp_path, tmp_path / "relative"):
        for folder in (base / "rnn-harness", base / ".config" / "rnn-harness"):
            folder.mkdir(parents=True)
            text = f'[environments]\nnumpy = "{program}"\n'
            helpers.write(folder / "config.toml", text)
    line = ["run", "plain.toml", "--dry-run"]
    code, _, err = helpers.call(line, monkeypatch, capsys)
    assert code == 0, err
    assert not was_run(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "runs"), [("y", True), ("n", False), ("", False)])
def test_at_a_terminal_the_user_is_asked(
    answer: str, runs: bool, program: Path, tmp_path: Path
) -> None:
    helpers.write(tmp_path / "theirs.toml", naming(program))
    own, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from harness.cli import main; main()"),
            *("run", "theirs.toml", "--dry-run"),
        ],
        cwd=tmp_path,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(helpers.ROOT)},
    )
    os.write(own, f"{answer}\n".encode())
    out, _ = process.communicate(timeout=helpers.PATIENCE_S)
    os.close(theirs)
    said = os.read(own, 100_000).decode()
    os.close(own)
    assert process.returncode == 2, said
    assert out == b""
    assert f"environments.numpy = '{program}'" in said
    assert "run them? [y/N]" in said
    assert was_run(tmp_path) is runs
