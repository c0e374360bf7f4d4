"""The gate in real repositories: the code of each side, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.analysis.comparison.compare import Compared, Comparison, Verdict
from harness.analysis.comparison.effect import Effect
from harness.cli.compare import print_comparison
from harness.intervals import Interval
from harness.run.worktree import Checkout, checked_out, overlay
from harness.store import RunFolder, TrialRecord
from harness.trial import Trial
from tests import helpers

PLUGIN = """
from harness import declare_implementation

declare_implementation("mine", framework="numpy", cells=["rnn"], factory="mine:build")


def build(spec, cell, device):
    import beside
    from implementations.numpy_reference.network import NumpyNetwork

    class Mine(NumpyNetwork):
        def forward(self, placed, state=None):
            beside.spin()
            return super().forward(placed, state)

        def kernel(self):
            return f"{super().kernel()}, spins {beside.SPIN_S}"

    return Mine(spec, cell, device)
"""

BESIDE = """
import time

SPIN_S = 0.0


def spin():
    end_s = time.perf_counter() + SPIN_S
    while time.perf_counter() < end_s:
        pass
"""

NOW = BESIDE.replace("0.0", "0.002")
"""Many times as slow as a forward pass of the suite."""

SUITE = helpers.suite(helpers.speed("mine", rounds=8, time_budget_s=60.0), name="small")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "state")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files of a command."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def repository(tmp_path: Path, scratch: Path) -> Path:
    """Return a repository of a plugin that is slow only in the working tree."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    helpers.write(folder / "mine.py", PLUGIN)
    helpers.write(folder / "beside.py", BESIDE)
    helpers.write(folder / "suite.toml", SUITE)
    commit(folder)
    helpers.write(folder / "beside.py", NOW)
    return folder


GATE = ("gate", "suite.toml", "--base", "trunk", "--plugin", "mine.py")


def timing(folder: Path, implementation: str) -> TrialRecord:
    (record,) = [
        record
        for record in RunFolder.open(folder).records()
        if record.trial.measure == "speed"
        and record.trial.implementation == implementation
    ]
    return record


def nothing_left(repository: Path, scratch: Path) -> bool:
    return git(repository, "worktree", "list").count("\n") == 1 and not [
        *scratch.glob("rnn-harness-gate-*")
    ]


@pytest.fixture
def checkout(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the same in a checkout of this distribution, which Python imports from.

    Its last commit has an earlier `implementations`, without one of the plugins.
    """
    for name in ("harness", "implementations", "tasks"):
        ignored = shutil.ignore_patterns("__pycache__")
        source = helpers.HERE.parent / name
        shutil.copytree(source, repository / name, ignore=ignored)
    file = repository / "implementations/numpy_reference/network.py"
    now = file.read_text(encoding="utf-8")
    assert now.count('or "no BLAS"') == 1
    helpers.write(file, now.replace('or "no BLAS"', 'and "earlier"'))
    helpers.write(repository / "beside.py", BESIDE)
    helpers.write(repository / ".gitignore", "__pycache__/\n")
    commit(repository)
    helpers.write(file, now)
    helpers.write(repository / "beside.py", NOW)
    helpers.write(repository / "other.py", PLUGIN.replace("mine", "other"))
    monkeypatch.setenv("PYTHONPATH", str(repository), prepend=os.pathsep)
    return repository


@pytest.mark.slow
def test_a_slower_working_tree_is_found_in_one_session_with_its_base(
    checkout: Path, scratch: Path
) -> None:
    before = git(checkout, "status", "--porcelain")
    arguments = (*GATE, "--plugin", "other.py", "-o", "../out")
    code, out, err = helpers.run(*arguments, "--json", cwd=checkout)
    assert code == 3, err
    assert "UNCERTIFIED" not in err
    assert "differ in no file" not in out + err
    found = {row["implementation"]: row for row in json.loads(out)["rows"]}
    assert found["other"]["verdict"] == "missing in base"
    assert found["mine"]["verdict"] == "slower"
    assert found["mine"]["paired"] is True
    assert found["mine"]["ratio"] > 2
    assert not [mark for mark in found["mine"]["marks"] if "uncertified" in mark]
    assert "again in fresh processes: " in found["mine"]["why"]

    folder = checkout.parent / "out"
    both = [timing(folder / name, "mine") for name in ("new", "again/new")]
    assert both[0].result["worker"] != both[1].result["worker"]
    sides = [timing(folder / name, "mine") for name in ("base", "new")]
    # Each side used its own file, the files beside it, and its own imports.
    base, new = (side.result["kernel"] for side in sides)
    assert base == "earlier, spins 0.0"
    assert new.endswith(", spins 0.002")
    assert "earlier" not in new
    assert len({side.result["session"] for side in sides}) == 1
    assert len({side.result["worker"] for side in sides}) == 2
    assert all(side.result["fitness"]["verdict"] for side in sides)
    assert all(side.result["peak"]["flop_per_s"] > 1e6 for side in sides)
    info = RunFolder.open(folder / "base").info()
    assert info["gate"]["commit"] == git(checkout, "rev-parse", "HEAD").strip()

    assert nothing_left(checkout, scratch)
    assert git(checkout, "status", "--porcelain") == before
    again = helpers.run(*arguments, cwd=checkout)
    assert again[0] == 2
    assert "give a new folder with -o" in again[2]


@pytest.mark.slow
def test_a_side_that_hangs_is_ended_at_its_time_limit(
    repository: Path, scratch: Path
) -> None:
    asleep = BESIDE.replace("def spin():", "def spin():\n    time.sleep(1e9)")
    helpers.write(repository / "beside.py", asleep)
    arguments = (*GATE, "--timeout", "25", "-o", "out", "--json")
    code, out, err = helpers.run(*arguments, cwd=repository)
    assert code == 3, err
    (row,) = json.loads(out)["rows"]
    assert row["verdict"] == "failed in new"
    assert "timeout" in row["why"]
    assert timing(repository / "out/base", "mine").outcome == "ok"
    assert timing(repository / "out/new", "mine").outcome == "timeout"
    assert nothing_left(repository, scratch)


@pytest.mark.slow
def test_a_side_that_takes_too_much_memory_is_ended(
    repository: Path, scratch: Path
) -> None:
    greedy = "HELD = []\n\ndef spin():\n    HELD or HELD.append(b' ' * 2**30)"
    helpers.write(repository / "beside.py", BESIDE.replace("def spin():", greedy))
    arguments = (*GATE, "--memory-limit", "700MB", "-o", "out", "--json")
    code, out, err = helpers.run(*arguments, cwd=repository)
    assert code == 3, err
    (row,) = json.loads(out)["rows"]
    assert row["verdict"] == "failed in new"
    base = timing(repository / "out/base", "mine")
    assert base.outcome == "ok"
    assert "peak" not in base.result  # large arrays might exceed the limit
    assert timing(repository / "out/new", "mine").outcome == "out_of_memory"


@pytest.mark.slow
def test_a_note_says_that_both_sides_differ_in_no_file(
    repository: Path, scratch: Path
) -> None:
    git(repository, "checkout", "-q", "beside.py")
    helpers.write(repository / "not_imported.py", "")
    code, out, err = helpers.run(*GATE, "--json", cwd=repository)
    assert code in (0, 3, 5), err  # two processes with the same code may differ
    assert [
        n
        for n in json.loads(out)["notes"]
        if "differ in no file that is compared: " in n
    ]
    assert err.count("differ in no file that is compared: ") == 1


@pytest.mark.slow
def test_a_terminal_shows_both_sides_while_they_are_timed(
    repository: Path, scratch: Path
) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, str(helpers.HERE / "bare_cli.py"), *GATE, "-o", "out"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        command,
        cwd=repository,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # the terminal is closed with the command
        while found := os.read(ours, 4096):
            seen += found
    os.close(ours)
    assert process.wait(timeout=helpers.PATIENCE_S) == 3
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    rounds = r"base: *\d done, \d left, about .*\s.*mine .* round \d+ of at most \d+\s"
    assert re.search(f"{rounds}*{rounds.replace('base', 'new')}", text), text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "stage"),
    [(signal.SIGINT, 130, "session 1 of 1"), (signal.SIGTERM, 143, "certificates")],
)
def test_a_stopped_gate_leaves_nothing_behind(
    repository: Path, scratch: Path, number: signal.Signals, code: int, stage: str
) -> None:
    settings = ("--set", "speed.time_budget_s=60", "--set", "speed.rounds=100000")
    process = helpers.start(*GATE, *settings, "-o", "out", cwd=repository)
    assert process.stderr is not None
    stream: Iterator[str] = iter(process.stderr)
    assert next(line for line in stream if line.startswith(stage))
    assert not nothing_left(repository, scratch)
    workers = helpers.wait_for(lambda: helpers.workers_of(process.pid), "a worker")
    process.send_signal(number)
    found = helpers.finish(process)
    assert found[0] == code, found[2]
    assert nothing_left(repository, scratch)
    assert not any(helpers.alive(worker) for worker in workers)
    assert not list(repository.glob("out/*/trials/speed-*/result.json"))


# --- the exit code -------------------------------------------------------------------


def key(verdict: Verdict, *ends: float) -> Compared:
    interval = Interval(*ends) if ends else None
    effect = Effect(1.0, interval, 12, 0.5, 0.5, paired=True)
    trial = Trial("speed", "a", "gru")
    return Compared(trial, "forward", effect=effect, verdict=verdict)


SAME, SLOWER = key("same", 0.99, 1.01), key("slower", 1.2, 1.3)
OPEN, FASTER_OR_SAME = key("unclear", 0.9, 1.1), key("unclear", 0.9, 1.0)
FEW = key("unclear")


@pytest.mark.parametrize(
    ("rows", "code", "message"),
    [
        ([OPEN, OPEN, OPEN, SAME], 5, "3 of 4 keys are undecided and may be slower"),
        ([FEW, OPEN, SAME], 5, "2 of 3 keys are undecided"),
        ([OPEN, SAME], 0, "1 of 2 keys is undecided and may be slower"),
        ([OPEN, OPEN, SLOWER], 3, "2 of 3 keys are undecided"),
        ([FASTER_OR_SAME, FASTER_OR_SAME, SAME], 0, None),
        ([FASTER_OR_SAME], 5, None),
        ([OPEN], 5, "1 of 1 key is undecided"),
        ([SAME], 0, None),
    ],
)
def test_the_gate_is_too_noisy_to_say_if_most_keys_may_be_slower(
    rows: list[Compared],
    code: int,
    message: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = Comparison(tuple(rows), 0.05)
    assert print_comparison(found, as_json=False) == code
    text = capsys.readouterr().out
    assert print_comparison(found, as_json=True) == code
    notes = json.loads(capsys.readouterr().out)["notes"]
    if message is None:
        assert "may be slower" not in text
        assert not notes
    else:
        assert message in text.splitlines()[-1]
        assert "--set speed.time_budget_s=120" in text.splitlines()[-1]
        assert message in notes[-1]
        assert f"exit code {code}" in notes[-1]


# --- refusals ------------------------------------------------------------------------


def refused(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    code, _, err = helpers.call(["gate", *arguments], monkeypatch, capsys)
    assert code == 2
    return err


def test_a_folder_outside_a_repository_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    err = refused(["--base", "main"], monkeypatch, capsys)
    assert "is not in a git repository" in err


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("trunc", "did you mean 'trunk'?"),
        ("--all", "no commit"),
        ("", "no commit"),
        ("0123456789", "a branch, a tag or a hash is one"),
    ],
)
def test_an_unknown_commit_is_refused(
    repository: Path,
    reference: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(repository)
    assert message in refused([f"--base={reference}"], monkeypatch, capsys)


def test_a_suite_that_times_nothing_is_refused(
    repository: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(repository)
    suite = helpers.suite(helpers.learning(learn_on_each=True))
    helpers.write(repository / "learns.toml", suite)
    err = refused(["learns.toml", "--base", "trunk"], monkeypatch, capsys)
    assert "times nothing that is asked for" in err
    assert nothing_left(repository, scratch)


@pytest.mark.parametrize("installed", [False, True])
def test_a_repository_without_measured_code_is_refused(
    tmp_path: Path,
    scratch: Path,
    installed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "state")
    if installed:  # in an environment inside the repository, not in any commit
        (folder / "venv").mkdir()
        helpers.write(folder / "venv/installed_of_test.py", "")
        monkeypatch.syspath_prepend(str(folder / "venv"))
    monkeypatch.chdir(folder)
    elsewhere = helpers.write(tmp_path / "mine.py", PLUGIN)
    little = ["-k", "numpy-reference and gru", "--set", "speed.time_budget_s=1"]
    arguments = [*little, "--base", "HEAD", "--plugin", str(elsewhere)]
    err = refused(arguments, monkeypatch, capsys)
    assert f"nothing of the repository {folder} would be measured" in err
    assert f"`pip install -e {folder}`" in err
    assert "--plugin FILE.py" in err
    assert not (folder / "results").exists()
    assert nothing_left(folder, scratch)


def test_a_plugin_that_cannot_be_read_is_refused(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(repository)
    helpers.write(repository / "mine.py", "1 / 0")
    err = refused(["--base", "trunk", "--plugin", "mine.py"], monkeypatch, capsys)
    assert "division by zero" in err


def test_a_checkout_that_is_not_installed_is_refused(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(repository)
    (repository / "harness").mkdir()
    helpers.write(repository / "harness/contract.py", "")
    err = refused(["--base", "trunk"], monkeypatch, capsys)
    assert f"pip install -e {repository}" in err


# --- modules that Python finds --------------------------------------------------------


def test_the_overlay_has_what_python_finds_in_the_working_tree_and_no_more(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "src/mylib_of_test").mkdir(parents=True)
    helpers.write(repository / "src/mylib_of_test/__init__.py", "")
    helpers.write(repository / "json.py", "")  # the standard library's is found
    helpers.write(repository / "numpy.py", "")  # the installed one is found
    commit(repository)
    helpers.write(repository / "only_now_of_test.py", "")
    monkeypatch.chdir(repository)
    monkeypatch.syspath_prepend(str(repository / "src"))
    monkeypatch.setattr("sys.path", [*__import__("sys").path, str(repository)])
    with checked_out("trunk") as checkout:
        assert checkout.counterpart(repository / "mine.py").is_file()
        assert checkout.counterpart(tmp_path) == tmp_path
        found = {p.name: p.resolve() for p in _links(tmp_path / "o", checkout)}
        tree = checkout.tree
    assert found == {
        "harness": helpers.HERE.parent / "harness",
        "beside.py": tree / "beside.py",
        "mine.py": tree / "mine.py",
        "mylib_of_test": tree / "src/mylib_of_test",
    }
    assert not tree.exists()


def _links(folder: Path, checkout: Checkout) -> Iterator[Path]:
    return overlay(folder, checkout).iterdir()


def test_git_hooks_do_not_run_and_their_variables_are_ignored(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = repository / ".git/hooks/post-checkout"
    helpers.write(hook, f"#!/bin/sh\ntouch {tmp_path}/ran\n").chmod(0o755)
    monkeypatch.chdir(repository)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    with checked_out("trunk") as checkout:
        assert checkout.root == repository
    assert not (tmp_path / "ran").exists()
