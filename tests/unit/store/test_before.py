"""Run folders of an earlier layout of the harness are read with equal numbers.

`tests/data/before/runs.tar.xz` holds two runs of `before.toml`, made at commit 620a3e0.
The files beside it have the output of that commit for them, but for the interval of one
ratio in `compare.json`, whose rounds look as if they followed each other.
"""

import csv
import io
import json
import lzma
import re
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.run.plan.todo import OTHER_ID
from tests import helpers

DATA = helpers.HERE / "data" / "before"
SUITE = "before.toml"
CRASHES = helpers.PLUGINS / "crashes_when_timed.py"

PROSE = {"sentence", "notes", "words", "advice", "why"}
"""Keys of `--json` that hold sentences, which may be worded anew."""

ADDED = {"readout", "usual"}
"""Keys of `--json` that those runs had no value of."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the two run folders, `a` and `b`."""
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(DATA / "runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def expected(name: str) -> str:
    return lzma.decompress((DATA / f"{name}.xz").read_bytes()).decode()


def numbers(value: Any) -> Any:
    """Return a JSON value without the sentences in it and without later keys."""
    if isinstance(value, dict):
        return {k: numbers(v) for k, v in value.items() if k not in PROSE | ADDED}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return value


@pytest.mark.parametrize("run", ["a", "b"])
def test_the_csv_of_an_old_run_is_unchanged_byte_for_byte(
    folder: Path,
    run: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["export", str(folder / run), "--format", "csv"]
    code, out, _ = helpers.call(arguments, monkeypatch, capsys)
    assert code == 0
    assert out == expected(f"{run}.csv")


@pytest.mark.parametrize("run", ["a", "b"])
def test_the_tables_of_an_old_run_hold_the_same_numbers(
    folder: Path,
    run: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["show", str(folder / run), "--json"]
    code, out, _ = helpers.call(arguments, monkeypatch, capsys)
    assert code == 0
    assert numbers(json.loads(out)) == numbers(json.loads(expected(f"{run}.show.json")))


def test_a_comparison_of_old_runs_gives_the_same_numbers_and_verdicts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", str(folder / "a"), str(folder / "b"), "--json"]
    code, out, _ = helpers.call(arguments, monkeypatch, capsys)
    assert code == 5  # too few rounds for a verdict
    assert numbers(json.loads(out)) == numbers(json.loads(expected("compare.json")))


def numbers_of_tables(markdown: str) -> list[list[str]]:
    """Return the numbers in each row of the tables, and not those in sentences."""
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    return [re.findall(r"\d[\d.]*", row) for row in rows]


@pytest.mark.slow
def test_the_report_of_an_old_run_holds_the_same_numbers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, _ = helpers.call(["report", str(folder / "a")], monkeypatch, capsys)
    assert code == 0
    assert (folder / "a" / "report.html").stat().st_size > 100_000
    summary = (folder / "a" / "summary.md").read_text(encoding="utf-8")
    assert "| gru |" in summary
    before = numbers_of_tables(expected("a.summary.md"))
    assert sum(map(len, before)) > 500
    assert numbers_of_tables(summary) == before


# --- resuming a run -------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
def test_a_trial_with_an_id_of_an_earlier_version_says_so_and_is_measured_again(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    resumed = Path(shutil.copytree(folder / "a", tmp_path / "a"))

    def call(*arguments: str) -> tuple[int, str, str]:
        return helpers.call([*arguments], monkeypatch, capsys)

    def exported() -> dict[str, list[str]]:
        code, out, _ = call("export", str(resumed), "--format", "csv")
        assert code == 0
        trials: dict[str, list[str]] = {}
        for row in csv.DictReader(io.StringIO(out)):
            trials.setdefault(row["trial"], []).append(row["measure"])
        return trials

    # What a suite is for may be worded anew.
    text = re.sub("why = .*", 'why = "In other words."', (DATA / SUITE).read_text())
    suite = helpers.write(tmp_path / SUITE, text)
    asked = ["run", str(suite), "-o", str(resumed)]
    asked += ["--plugin", str(CRASHES), "-k", "copy-memory and learning"]
    code, out, _ = call(*asked, "--dry-run", "--why")
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith("  ")]
    assert lines
    assert all(f"runs, {OTHER_ID}" in line for line in lines)
    assert f"and that are measured again: {len(lines)}" in out

    again = len(lines)
    before = exported()
    code, _, err = call(*asked)
    assert code == 4, err  # the earlier crash is still in the folder
    assert f"and that are measured again: {again}" in err
    after = exported()
    assert len(after) == len(before)
    assert len(set(before) - set(after)) == len(set(after) - set(before)) == again
    assert Counter(m for found in after.values() for m in found[:1]) == Counter(
        m for found in before.values() for m in found[:1]
    )
    assert all((resumed / "trials" / trial).is_dir() for trial in before)
    assert call("show", str(resumed))[0] == 0
    code, out, _ = call(*asked, "--dry-run", "--why")
    assert "0 would run" in out
