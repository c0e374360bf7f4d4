"""Run folders made before the rooms of the harness moved are read with equal numbers.

`tests/data/before/runs.tar.xz` holds two runs of `before.toml`, made at commit 620a3e0,
and beside it lies what that commit printed of them.
"""

import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests import helpers

DATA = helpers.HERE / "data" / "before"

PROSE = {"sentence", "notes", "words", "advice"}
"""Keys of `--json` that hold sentences, which may be worded anew."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two run folders, `a` and `b`."""
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(DATA / "runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def expected(name: str) -> str:
    return lzma.decompress((DATA / f"{name}.xz").read_bytes()).decode()


def numbers(value: Any) -> Any:
    """Return a JSON value without the sentences in it."""
    if isinstance(value, dict):
        return {k: numbers(v) for k, v in value.items() if k not in PROSE}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return value


@pytest.mark.parametrize("run", ["a", "b"])
def test_the_csv_is_the_same_byte_for_byte(
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
def test_the_tables_hold_the_same_numbers(
    folder: Path,
    run: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["show", str(folder / run), "--json"]
    code, out, _ = helpers.call(arguments, monkeypatch, capsys)
    assert code == 0
    assert numbers(json.loads(out)) == numbers(json.loads(expected(f"{run}.show.json")))


def test_a_comparison_comes_to_the_same_numbers_and_verdicts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", str(folder / "a"), str(folder / "b"), "--json"]
    code, out, _ = helpers.call(arguments, monkeypatch, capsys)
    assert code == 5  # too few rounds to say
    assert numbers(json.loads(out)) == numbers(json.loads(expected("compare.json")))


def test_the_report_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, _ = helpers.call(["report", str(folder / "a")], monkeypatch, capsys)
    assert code == 0
    assert (folder / "a" / "report.html").stat().st_size > 100_000
    assert "| gru |" in (folder / "a" / "summary.md").read_text(encoding="utf-8")
