import importlib.metadata
import json
import os
import shutil
import tomllib
from pathlib import Path

import pytest

from harness.machine import devices
from harness.store import RunFolder
from harness.trial import Trial
from tests import helpers

TYPOS = (
    helpers.TINY.replace("hidden_size", "hiden_size")
    .replace("batch = 8", "batch = 0")
    .replace("length = 10", "length = -10")
    .replace("0.001", '"fast"')
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with suites and a finished trial in `done`; hide any GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "gpu_names", list)
    helpers.write(tmp_path / "tiny.toml", helpers.TINY)
    helpers.write(tmp_path / "typos.toml", TYPOS)
    helpers.write(tmp_path / "broken.toml", "name = \n")
    (tmp_path / "utf16.toml").write_text(helpers.TINY, encoding="utf-16")
    names = helpers.TINY.replace('"adding"', '"addin"').replace('"rnn"', '"rrn"')
    helpers.write(tmp_path / "names.toml", names)
    helpers.write(tmp_path / "a_file", "mine")
    for name in ("loop", "loop.py", "loop.toml"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "theirs").mkdir()
    helpers.write(tmp_path / "theirs" / "thesis.txt", "mine")
    (tmp_path / "empty").mkdir()
    _finished(tmp_path / "done")
    for name in ("newer", "damaged", "other_suite", "cut"):
        shutil.copytree(tmp_path / "done", tmp_path / name)
    helpers.write(tmp_path / "newer" / "run.json", '{"schema": 99}')
    helpers.write(tmp_path / "damaged" / "run.json", '{"schema": 1, "sui')
    info = json.loads((tmp_path / "done" / "run.json").read_text(encoding="utf-8"))
    info["suite"]["learning"][0]["updates"] = 77
    del info["schema"], info["checksum"]
    RunFolder(tmp_path / "other_suite").write_info(info)
    (file,) = (tmp_path / "cut").rglob("result.json")
    os.truncate(file, 40)
    return tmp_path


def _finished(folder: Path) -> None:
    from harness.registry import Registry
    from harness.suite import load_suite

    run = RunFolder.create(folder)
    suite = load_suite("tiny.toml", Registry.discover())
    run.write_info({"suite": suite.model_dump(mode="json"), "device": "cpu"})
    trial = Trial("parity", "numpy-reference", "rnn")
    attempt = run.begin(trial, trial.identity({}), {})
    attempt.commit({"outcome": "ok", "reason": None})


TWO_TIMINGS = helpers.suite(helpers.speed("numpy-reference", threads=[1, 2]))

BIG, LONG = "9" * 5000, "x" * 5000
MANY = ",".join(map(str, range(1, 701)))
DIGITS = "an integer has more than 18 digits"

# command line, exit code, words of the message
TABLE: list[tuple[str, int, tuple[str, ...]]] = [
    (
        "run typos.toml",
        2,
        ("5 problems", "did you mean 'hidden_size'", "batch", "length", '"fast"'),
    ),
    ("run names.toml", 2, ("'addin'; did you mean 'adding'", "'rrn'; did you mean")),
    ("run broken.toml", 2, ("broken.toml is not valid TOML", "line 1")),
    (
        "run utf16.toml",
        2,
        (
            "utf16.toml is not",
            "not text in UTF-8; save it as",
        ),
    ),
    ("run quik", 2, ("unknown suite 'quik'; did you mean 'quick'?",)),
    ("run nowhere.toml", 2, ("nowhere.toml does not exist",)),
    ("run empty", 2, ("unknown suite 'empty'",)),
    ("run", 2, ("Missing argument 'SUITE'",)),
    ("run tiny.toml --oops", 2, ("No such option",)),
    ("oops", 2, ("No such command 'oops'",)),
    # filters
    ("run tiny.toml -k xyzzy", 2, ("no trial has the word 'xyzzy'",)),
    ("run tiny.toml -k addin", 2, ("did you mean 'adding'?",)),
    ("run tiny.toml -k seed0+and+seed1", 2, ("matches no trial", "--dry-run")),
    ("run tiny.toml -k adding+and", 2, ("a word is missing", "such as")),
    ("run tiny.toml -k (adding", 2, ("a parenthesis is not closed",)),
    # settings
    ("run tiny.toml --set nonsense", 2, ("give KEY=VALUE",)),
    ("run tiny.toml --set learning.length=-5", 2, ("learning[0].length", "not -5")),
    ("run tiny.toml --set learning.batch=0", 2, ("learning[0].batch", "not 0")),
    ("run tiny.toml --set learning.cells=['ltsm']", 2, ("did you mean 'lstm'?",)),
    (
        "run tiny.toml --set learning.implementations=['nope']",
        2,
        ("unknown implementation 'nope'", "numpy-reference"),
    ),
    ("run tiny.toml --seeds nonsense", 2, ("--seeds nonsense", "e.g. 0-4 or 0,2,5")),
    ("run tiny.toml --seeds 4-2", 2, ("e.g. 0-4 or 0,2,5",)),
    ("run tiny.toml --seeds=-1", 2, ("e.g. 0-4 or 0,2,5",)),
    ("run tiny.toml --seeds 0-99999999", 2, ("at most 1000 seeds",)),
    ("run tiny.toml -j 0", 2, ("0 is not in the range 1<=x<=10000",)),
    ("run tiny.toml -j 99999999999999 --dry-run", 2, ("not in the range 1<=x<=10000",)),
    ("check rnn -j 10001", 2, ("10001 is not in the range 1<=x<=10000",)),
    # links in a circle
    ("check loop.py", 2, ("loop.py cannot be read (Too many levels of symb",)),
    ("check loop/x.py", 2, ("x.py cannot be read (Too many levels of symb",)),
    ("list --plugin loop.py", 2, ("loop.py cannot be read (Too many levels",)),
    ("run tiny.toml --plugin loop.py --dry-run", 2, ("Too many levels",)),
    ("run loop.toml", 2, ("loop.toml",)),
    ("run tiny.toml -o loop", 2, ("loop",)),
    ("show loop", 2, ("loop",)),
    ("report loop", 2, ("loop",)),
    ("compare loop done", 2, ("loop",)),
    ("export done -o loop", 2, ("loop cannot be written",)),
    ("new task mine -o loop.py", 2, ("loop.py",)),
    ("run tiny.toml --set environments.numpy='loop'", 2, ("loop",)),
    ("run tiny.toml --set learning.².updates=1", 2, ("unknown key",)),
    ("run tiny.toml --set learning.7.updates=1", 2, ("has sections 0 to 0",)),
    (f"run tiny.toml --set learning.{BIG}.updates=1", 2, ("has sections 0 to 0",)),
    (f"run tiny.toml --set learning.updates={BIG}", 2, (DIGITS,)),
    (f"run tiny.toml --set learning.updates=-{BIG}", 2, (DIGITS,)),
    (f"run tiny.toml --set learning.updates=0x{BIG}", 2, (DIGITS,)),
    (f"run tiny.toml --set learning.seeds=[1,{BIG}]", 2, (DIGITS,)),
    (f"run tiny.toml --set learning.updates={'[' * 5000}", 2, ("nested more than 32",)),
    (
        f"run tiny.toml --set learning.x={'{{a=' * 999}1{'}}' * 999}",
        2,
        ("nested more than 32",),
    ),
    (f"run tiny.toml --set learning.{'a.' * 20000}b=1", 2, ("has 20002 parts",)),
    (f"run tiny.toml --set learning.x={{{{{'a.' * 20000}b=1}}}}", 2, ("200 dots",)),
    (f"run tiny.toml --set name={LONG}", 2, ("at most 100 characters",)),
    (f"run tiny.toml --set {LONG}=1", 2, ("unknown key",)),
    (f"run tiny.toml --set learning.task={LONG}", 2, ("unknown task 'xxx",)),
    (f"run tiny.toml --set learning.cells=['{LONG}']", 2, ("unknown cell 'xxx",)),
    (f"run tiny.toml --set environments.{LONG}=x", 2, ("unknown framework 'xxx",)),
    (f"run tiny.toml --set environments.numpy={LONG}", 2, ("cannot be started",)),
    (
        f"run tiny.toml --set learning.seeds=[{'1,' * 20000}]",
        2,
        ("at most 1000 items",),
    ),
    (
        f"run tiny.toml --set learning.length=[{MANY}] --set learning.seeds=[{MANY}]",
        2,
        ("asks for 4.9e+05 trials of each implementation; at most 100000",),
    ),
    (f"run {LONG}", 2, ("unknown suite 'xxx",)),
    (f"run {LONG}.toml", 2, ("does not exist",)),
    (f"run tiny.toml -k {LONG}", 2, ("no trial has the word 'xxx",)),
    (f"run tiny.toml -k {'(' * 3000}", 2, ("at most 1000 are read",)),
    (f"run tiny.toml --seeds {BIG}", 2, ("e.g. 0-4 or 0,2,5",)),
    (f"run tiny.toml --device {LONG}", 2, ("unknown device",)),
    (f"run tiny.toml --timeout 1e{BIG}", 2, ("give a number of seconds",)),
    (f"run tiny.toml -j {BIG}", 2, ("is not a valid integer",)),
    (f"run tiny.toml --memory-limit {BIG}", 2, ("give a size",)),
    (f"run tiny.toml --plugin {LONG}.py --dry-run", 2, ("cannot be read",)),
    (f"check {LONG}", 2, ("unknown implementation 'xxx",)),
    (f"check {LONG}.py", 2, ("cannot be read",)),
    (f"new task {LONG}", 2, ("use lower-case letters",)),
    (f"new {LONG} mine", 2, ("unknown kind 'xxx",)),
    (f"new implementation mine --framework {LONG}", 2, ("framework",)),
    (f"new implementation mine --framework numpy --cell {LONG}", 2, ("cell",)),
    (f"show {LONG}", 2, ("cannot be read",)),
    (f"compare {LONG} done", 2, ("cannot be read",)),
    (f"export done -o {LONG}", 2, ("cannot be read",)),
    (f"gate --base {LONG}", 2, ("",)),
    (f"doctor --threads {BIG}", 2, ("is not a count of threads",)),
    (f"list --{LONG}", 2, ("No such option",)),
    (f"{LONG}", 2, ("No such command",)),
    # devices
    ("run tiny.toml --device cuda", 2, ("no device 'cuda' here", "--device cpu")),
    ("run tiny.toml --device cuda:3", 2, ("no device 'cuda:3' here",)),
    ("run tiny.toml --device tpu", 2, ("unknown device 'tpu'", "auto, cpu, cuda")),
    ("check numpy-reference --device cuda", 2, ("no device 'cuda' here",)),
    (
        "check numpy-reference --dtype float16",
        2,
        ("is not one of 'float32', 'float64'",),
    ),
    ("run tiny.toml -o new --timeout nan", 2, ("--timeout nan: give a number of",)),
    ("run tiny.toml -o new --timeout inf", 2, ("--timeout inf: give a number of",)),
    (
        "run tiny.toml -o new --checkpoint-every nan",
        2,
        ("--checkpoint-every nan: give a number of seconds",),
    ),
    # folders
    ("run tiny.toml -o a_file", 2, ("a_file is a file; give a folder with -o",)),
    ("run tiny.toml -o a_file/below", 2, ("cannot be written", "give another folder")),
    ("run tiny.toml -o /proc/nowhere", 2, ("cannot be written", "give another")),
    (f"run tiny.toml -o {'x' * 300}", 2, ("cannot be read (File name too long)",)),
    ("run tiny.toml -o theirs", 2, ("not empty and holds no run.json", "with -o")),
    ("run tiny.toml -o a_file --dry-run", 2, ("a_file is a file; give a folder",)),
    ("run tiny.toml -o theirs --dry-run", 2, ("not empty and holds no run.json",)),
    ("run tiny.toml -o newer", 2, ("has schema 99", "upgrade rnn-harness")),
    ("run tiny.toml -o newer --dry-run", 2, ("has schema 99",)),
    (
        "run tiny.toml -o damaged",
        2,
        ("run.json is damaged; restore it, or move it away",),
    ),
    (
        "run tiny.toml -o other_suite",
        2,
        ("learning[0].updates = 77, now 1200", "give another folder with -o"),
    ),
    ("run quick -o done", 2, ("holds a run of suite 'tiny'", "another folder")),
    # show, report, export
    *(
        (command.format(verb), code, words)
        for verb in ("show", "report", "export")
        for command, code, words in (
            ("{} nowhere", 2, ("nowhere does not exist; give the folder of a run",)),
            ("{} empty", 2, ("empty holds no run.json",)),
            ("{} a_file", 2, ("a_file is a file",)),
            ("{} theirs", 2, ("theirs holds no run.json",)),
            ("{} newer", 2, ("has schema 99",)),
            ("{} damaged", 2, ("run.json is damaged",)),
            ("{} cut", 5, ("is left out", "measures it again", "no finished trial")),
        )
    ),
    ("export done --format xml", 2, ("'xml' is not", "'csv'")),
    ("export done -o nowhere/out.csv", 2, ("nowhere/out.csv cannot be written",)),
    # check
    ("check torch-nativ", 2, ("unknown implementation", "did you mean 'torch-native'")),
    ("check nowhere.py", 2, ("nowhere.py: no such plugin file",)),
    (
        "check numpy-reference -k not+numpy-reference",
        5,
        ("leaves nothing to certify",),
    ),
    # plugins, with every verb
    *(
        (f"{verb} --plugin {{{name}}}", 2, (words,))
        for name, words in (
            ("raises_on_import", "(raises_on_import.py:1)"),
            ("syntax_error", "(syntax_error.py:3)"),
            ("missing_module", "No module named 'a_module_nobody_has'"),
            ("declares_nothing", "declares nothing; call declare_implementation"),
            ("declares_str_cells", "cells must be a list of names"),
            ("name_taken", "the task name is taken"),
            ("unknown_framework", "unknown framework 'troch'; did you mean 'torch'?"),
            ("unknown_cell", "unknown cell 'ltsm'; did you mean 'lstm'?"),
        )
        for verb in ("list", "check nothing-of-this-name", "run tiny.toml --dry-run")
    ),
]


def _arguments(line: str, folder: Path) -> list[str]:
    plugins = {
        file.name.partition(".")[0]: str(
            helpers.plugin(file.name.partition(".")[0], folder)
        )
        for file in helpers.PLUGINS.glob("*.py*")
    }
    return [
        part.replace("+", " ").format(plugins=helpers.PLUGINS, **plugins)
        for part in line.split()
    ]


@pytest.mark.parametrize(
    ("line", "code", "words"), TABLE, ids=[row[0][:60] for row in TABLE]
)
def test_bad_input_gets_a_clear_message_and_its_exit_code(
    line: str,
    code: int,
    words: tuple[str, ...],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = _arguments(line, here)
    before = helpers.snapshot(here)
    found, _, printed = helpers.call(arguments, monkeypatch, capsys)
    assert found == code, printed
    for word in words:
        assert word in printed
    assert "Traceback" not in printed
    assert len(printed) < 6000
    assert helpers.snapshot(here) == before


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("run typos.toml", 2, "typos.toml has 5 problems"),
        ("run tiny.toml -o a_file", 2, "a_file is a file"),
        ("show nowhere", 2, "nowhere does not exist"),
    ],
)
def test_a_process_of_the_command_exits_in_the_same_way(
    line: str, code: int, words: str, here: Path
) -> None:
    found, out, err = helpers.finish(
        helpers.start(*line.split(), cwd=here, report=True)
    )
    assert found == code
    assert out == ""
    assert err.startswith("rnn-harness: ")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "line",
    [
        "check x.py",
        "list --plugin x.py",
        "run smoke --plugin x.py --dry-run",
        "run suite.toml --plugin x.py --dry-run",
        "run smoke --set environments.numpy='python' --dry-run",
        "run smoke -o out",
        "run suite.toml --dry-run",
        "show out",
        "report out",
        "compare out out",
        "export out",
        "gate --base main",
        "new task mine",
    ],
)
def test_a_command_in_a_folder_that_was_removed_ends_in_a_sentence(
    line: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    removed = here / "removed"
    removed.mkdir()
    monkeypatch.chdir(removed)
    removed.rmdir()
    code, _, err = helpers.call(line.split(), monkeypatch, capsys)
    assert code == 2, err
    assert err.startswith("rnn-harness: ")
    assert "Traceback" not in err


def test_a_name_that_is_too_long_is_not_suggested(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = helpers.call(["new", "task", "n" * 5000], monkeypatch, capsys)
    assert code == 2
    assert "at most 100" in err
    assert "did you mean" not in err


def test_a_trial_of_a_later_version_stays_and_the_rest_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    helpers.write(here / "two.toml", TWO_TIMINGS)
    line = ["run", "two.toml", "-o", "out", "--no-certify"]
    code, _, err = helpers.call(line, monkeypatch, capsys)
    assert code == 0, err
    file, other = (here / "out").glob("trials/speed*/result.json")
    helpers.write(file, '{"schema": 99}')
    before, measured = file.read_bytes(), other.read_bytes()
    code, out, err = helpers.call([*line, "--dry-run", "--why"], monkeypatch, capsys)
    assert code == 0, err
    why = "result.json has schema 99, written by a newer rnn-harness; upgrade "
    assert out.count(f"stays, {why}rnn-harness, or move the trial away\n") == 1
    assert "0 would run, 2 are done" in out
    code, out, err = helpers.call([*line, "--force"], monkeypatch, capsys)
    assert code == 0, err
    assert file.read_bytes() == before
    assert other.read_bytes() != measured
    code, out, err = helpers.call(["show", "out"], monkeypatch, capsys)
    assert code == 0, err
    assert err.count("upgrade") == 1
    assert f"{file.parent.name} is left out: {why}rnn-harness, or move the" in err


def test_a_refused_run_leaves_no_folder_that_blocks_the_next_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["run", "tiny.toml", "-o", "new", "-k", "seed0 and seed1"]
    code, _, _ = helpers.call(line, monkeypatch, capsys)
    assert code == 2
    assert not (here / "new").exists()


def test_a_dry_run_writes_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = helpers.snapshot(here)
    for flag in ("--dry-run", "--why"):
        line = ["run", "tiny.toml", "-o", "new", flag]
        code, out, _ = helpers.call(line, monkeypatch, capsys)
        assert code == 0
        assert "4 would run, 0 are done; nothing was run" in out
    assert helpers.snapshot(here) == before
    assert not (here / "new").exists()


@pytest.mark.parametrize(
    "file",
    [
        "tasks/__init__.py",
        "implementations.py",
        "harness/__init__.py",
        "harness.py",
        "harness/cli/__init__.py",
    ],
)
def test_foreign_packages_with_our_names_are_reported(file: str, here: Path) -> None:
    (here / file).parent.mkdir(parents=True, exist_ok=True)
    helpers.write(here / file, "raise RuntimeError('theirs')")
    if file.count("/") == 2:
        helpers.write((here / file).parents[1] / "__init__.py", "")
    # `-c` puts the current folder first on the path, as PYTHONPATH would.
    code, out, err = helpers.finish(helpers.start("list", cwd=here, report=True))
    name = Path(file).parts[0].removesuffix(".py")
    assert (code, out) == (2, "")
    assert err.startswith(f"rnn-harness: the package '{name}' on Python's path is ")
    assert "run from another folder or rename it" in err
    assert "Traceback" not in err


def test_the_command_begins_outside_the_packages_that_may_be_hidden() -> None:
    (command,) = [
        entry
        for entry in importlib.metadata.entry_points(group="console_scripts")
        if entry.name == "rnn-harness"
    ]
    project = tomllib.loads((helpers.ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["scripts"] == {"rnn-harness": "rnn_harness:main"}
    assert command.load().__name__ == "main"


@pytest.mark.slow
def test_a_truncated_result_is_measured_again_and_the_old_one_is_kept(
    here: Path,
) -> None:
    folder = here / "cut"
    (file,) = folder.rglob("result.json")
    cut = file.read_bytes()
    code, _, err = helpers.run(
        "run", "tiny.toml", "-o", folder, "-k", "parity", cwd=here
    )
    assert code == 0, err
    run = RunFolder.open(folder)
    assert [r.trial.label for r in run.records()] == ["parity rnn numpy-reference"]
    assert cut in [f.read_bytes() for f in folder.rglob("result.json*")]
