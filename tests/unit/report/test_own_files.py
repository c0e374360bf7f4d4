"""A report replaces and deletes what a report wrote, and nothing of anybody else."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from harness.files.own import LIST, write_own_files
from harness.report.page import write_report
from tests import fake_runs, helpers

ONE = {"figures/a.svg": b"a", "figures/b.svg": b"b", "report.html": b"one"}
TWO = {"figures/a.svg": b"A", "report.html": b"two"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    return made


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    made = tmp_path / "elsewhere"
    made.mkdir()
    for name in ("a.svg", "b.svg", "mine.png"):
        (made / name).write_text("mine")
    return made


def write(folder: Path, contents: dict[str, bytes]) -> list[str]:
    said: list[str] = []
    write_own_files(folder, contents, said.append)
    for name, content in contents.items():
        assert (folder / name).read_bytes() == content
    assert not [*folder.rglob("*.tmp")]
    return said


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")} - {"figures", LIST}


def test_files_of_an_earlier_report_are_replaced_and_deleted(folder: Path) -> None:
    assert write(folder, ONE) == []
    assert write(folder, ONE) == []
    assert write(folder, TWO) == []
    assert names(folder) == {*TWO}


def test_files_of_a_user_are_kept(folder: Path) -> None:
    write(folder, ONE)
    for name in ("figures/mine.png", "figures/mine.svg", "notes.html"):
        (folder / name).write_text("mine")
    (folder / "figures" / "b.svg").write_text("changed by me")
    assert write(folder, TWO) == [], "it is not in the way"
    assert (folder / "figures" / "b.svg").read_text() == "changed by me"
    kept = {"figures/mine.png", "figures/mine.svg", "notes.html", "figures/b.svg"}
    assert names(folder) == {*TWO} | kept


def test_a_file_of_a_user_with_the_name_of_ours_is_renamed(folder: Path) -> None:
    (folder / "figures").mkdir()
    (folder / "figures" / "a.svg").write_text("mine")
    (said,) = write(folder, ONE)
    assert "it is kept as a.kept-1.svg" in said
    assert (folder / "figures" / "a.kept-1.svg").read_text() == "mine"
    (folder / "report.html").write_text("my notes")
    (folder / "figures" / "a.svg").write_text("changed")
    assert len(write(folder, TWO)) == 2
    assert (folder / "report.kept-1.html").read_text() == "my notes"
    assert (folder / "figures" / "a.kept-2.svg").read_text() == "changed"


def test_a_linked_folder_is_left_alone(folder: Path, elsewhere: Path) -> None:
    (folder / "figures").symlink_to(elsewhere)
    before = helpers.snapshot(elsewhere)
    (said,) = write(folder, ONE)
    assert "figures is a link; it is kept as figures.kept-1" in said
    assert helpers.snapshot(elsewhere) == before
    assert (folder / "figures.kept-1").readlink() == elsewhere
    # A link that comes later is not followed either, and what is there is not deleted.
    for name in ("a.svg", "b.svg"):
        (elsewhere / name).write_bytes(ONE[f"figures/{name}"])
    before = helpers.snapshot(elsewhere)
    (folder / "figures").rename(folder / "moved")
    (folder / "figures").symlink_to(elsewhere)
    write(folder, TWO)
    assert helpers.snapshot(elsewhere) == before


@pytest.mark.parametrize("kind", ["link", "hard link", "folder", "pipe", "dangling"])
@pytest.mark.parametrize("name", ["figures/a.svg", "report.html", "figures"])
def test_what_is_no_file_of_ours_is_renamed(
    kind: str, name: str, folder: Path, elsewhere: Path
) -> None:
    target = folder / name
    target.parent.mkdir(exist_ok=True)
    other = elsewhere / "mine.png"
    if kind == "link":
        target.symlink_to(other)
    elif kind == "dangling":
        target.symlink_to(elsewhere / "nothing")
    elif kind == "hard link":
        target.hardlink_to(other)
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target.mkdir()
    before = helpers.snapshot(elsewhere)
    said = write(folder, ONE)
    # A page without a list is one of an earlier version.
    exempt = {("folder", "figures"), ("hard link", "report.html")}
    assert bool(said) or (kind, name) in exempt
    assert helpers.snapshot(elsewhere) == before


@pytest.mark.parametrize(
    "listed",
    [
        "../elsewhere/mine.png", "/etc/hostname", "figures/../../elsewhere/mine.png",
        "run.json", "..", "figures", "", "figures/mine.png", "x/y/z",
    ],
)  # fmt: skip
def test_a_list_of_a_stranger_deletes_nothing_elsewhere(
    listed: str, folder: Path, elsewhere: Path
) -> None:
    write(folder, ONE)
    (folder / "run.json").write_text("{}")
    (folder / "figures" / "mine.png").write_text("mine")
    for hashes in ([], ["x"], "x", {"x": []}, [1, None, []]):
        (folder / LIST).write_text(json.dumps({listed: hashes}))
        before = helpers.snapshot(elsewhere)
        write(folder, TWO)
        assert helpers.snapshot(elsewhere) == before
        assert (folder / "run.json").exists()
        assert (folder / "figures" / "mine.png").exists()


@pytest.mark.parametrize("content", ["", "[", "[]", "[" * 100_000, '{"a":1}'])
def test_a_damaged_list_keeps_everything(content: str, folder: Path) -> None:
    write(folder, ONE)
    (folder / LIST).write_text(content)
    assert len(write(folder, TWO)) == 2
    assert (folder / "figures" / "b.svg").read_bytes() == b"b"


def test_the_files_of_an_earlier_version_are_replaced(folder: Path) -> None:
    write(folder, ONE)
    (folder / LIST).unlink()
    assert write(folder, TWO) == []
    assert names(folder) == {*ONE}, "what this version does not write is kept"


def test_a_report_that_was_killed_is_continued(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, ONE)
    for count in range(3):
        left = iter(range(count))

        def killed(file: Path, content: bytes, left: object = left) -> None:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise KeyboardInterrupt
            file.write_bytes(content)

        with monkeypatch.context() as patch:
            patch.setattr("harness.files.own.write_bytes_atomically", killed)
            with pytest.raises(KeyboardInterrupt):
                write_own_files(folder, {**TWO, "summary.md": b"x"}, lambda _: None)
        assert write(folder, ONE) == [], count


def test_two_reports_at_once_keep_nothing_aside(folder: Path) -> None:
    said: list[str] = []

    def several(contents: dict[str, bytes]) -> None:
        for _ in range(20):
            write_own_files(folder, contents, said.append)

    threads = [threading.Thread(target=several, args=[each]) for each in (ONE, TWO)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == []
    assert names(folder) in ({*ONE}, {*TWO})


@pytest.mark.slow
def test_a_report_keeps_the_pictures_of_a_user(tmp_path: Path, elsewhere: Path) -> None:
    run = fake_runs.only_speed(tmp_path / "run")
    (run.path / "figures").symlink_to(elsewhere)
    before = helpers.snapshot(elsewhere)
    said: list[str] = []
    write_report(run, None, said.append)
    assert len(said) == 1
    assert helpers.snapshot(elsewhere) == before
    (run.path / "figures" / "mine.svg").write_text("<svg/>")
    write_report(run, None, said.append)
    assert len(said) == 1
    assert (run.path / "figures" / "mine.svg").exists()
