"""Only regular files are read, up to a size; nothing is written through a link."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.files.opening import (
    OddFileError,
    check_own_folder,
    hash_of_file,
    opened_to_append,
    read_file,
    replace_file,
)

MANY = 1 << 20


def link(file: Path) -> None:
    target = file.with_name("target")
    target.write_text("of somebody else")
    file.symlink_to(target)


def dangling(file: Path) -> None:
    file.symlink_to(file.with_name("made-through-a-link"))


def device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def a_socket(file: Path) -> None:
    here = Path.cwd()
    os.chdir(file.parent)  # the path of a socket may have 108 bytes
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(file.name)
    os.chdir(here)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (link, "is a link"),
    "dangling": (dangling, "is a link"),
    "link to a device": (device, "is a link"),
    "pipe": (os.mkfifo, "is a pipe"),
    "socket": (a_socket, "is a socket"),
    "folder": (Path.mkdir, "Is a directory"),
}


@pytest.mark.parametrize(("make", "what"), ODD.values(), ids=list(ODD))
def test_what_is_no_regular_file_is_neither_read_nor_written(
    make: Callable[[Path], object], what: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.json"
    make(file)
    for use in (
        lambda: read_file(file, MANY),
        lambda: hash_of_file(file, MANY),
        lambda: opened_to_append(file).__enter__(),
    ):
        with pytest.raises(OSError, match=what):
            use()
    assert not (tmp_path / "made-through-a-link").exists()
    if (tmp_path / "target").exists():
        assert (tmp_path / "target").read_text() == "of somebody else"


def test_a_device_is_not_opened() -> None:
    for use in (
        lambda: read_file(Path("/dev/zero"), MANY),
        lambda: opened_to_append(Path("/dev/null")).__enter__(),
    ):
        with pytest.raises(OddFileError, match="is a device"):
            use()


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(b"x" * MANY)
    assert len(read_file(file, MANY)) == MANY
    with file.open("ab") as stream:
        stream.truncate(1 << 40)  # a terabyte that takes no room on the disk
    for use in (read_file, hash_of_file):
        with pytest.raises(OddFileError, match="is larger than 1 MiB"):
            use(file, MANY)


def test_a_file_with_a_second_name_is_not_appended_to(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("of somebody else")
    (tmp_path / ".lock").hardlink_to(tmp_path / "target")
    with (
        pytest.raises(OddFileError, match="is a hard link"),
        opened_to_append(tmp_path / ".lock"),
    ):
        pass


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    link(tmp_path / "result.json")
    replace_file(tmp_path / "result.json", lambda stream: stream.write(b"new"))
    assert (tmp_path / "result.json").read_text() == "new"
    assert not (tmp_path / "result.json").is_symlink()
    assert (tmp_path / "target").read_text() == "of somebody else"


def test_a_temporary_file_that_is_a_link_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    temporary = tmp_path / f".result.json.{os.getpid()}.known.tmp"
    dangling(temporary)
    with pytest.raises(FileExistsError):
        replace_file(tmp_path / "result.json", lambda stream: stream.write(b"new"))
    assert not (tmp_path / "made-through-a-link").exists()


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        replace_file(tmp_path / "result.json", lambda stream: stream.write(b"new"))
    assert raised.value.filename == str(tmp_path / "result.json")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_must_be_one_itself(tmp_path: Path) -> None:
    check_own_folder(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "file").touch()
    for name, what in (("link", "is a link"), ("file", "is a file")):
        with pytest.raises(OddFileError, match=what):
            check_own_folder(tmp_path / name)
