"""Properties of every export format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.report.exports import EXPORTS
from tests import fake_runs, helpers


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_writes_the_same_file_twice(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = fake_runs.only_speed(tmp_path / "run").path
    written = []
    for file in (tmp_path / "one", tmp_path / "another"):
        command = ["export", str(run), "--format", name, "-o", str(file)]
        code, _, err = helpers.call(command, monkeypatch, capsys)
        assert code == 0, err
        written.append(file.read_bytes())
    assert written[0] == written[1]
    assert b"numpy-reference" in written[0] or b"torch" in written[0]


def test_a_full_standard_output_is_reported(tmp_path: Path) -> None:
    run = fake_runs.only_speed(tmp_path / "run").path
    command = [sys.executable, helpers.HERE / "bare_cli.py", "export", run]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert "standard output cannot be written: No space left" in done.stderr


def test_the_help_text_names_every_format(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = helpers.call(["export", "--help"], monkeypatch, capsys)
    assert f"[{'|'.join(EXPORTS)}]" in out
