import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cli.exits import verdict
from tests import helpers

Call = Callable[..., tuple[int, str, str]]
SLOWED = helpers.PLUGINS / "slowed.py"
TINY = helpers.suite(
    helpers.learning(implementations=["slowed"], updates=240, evaluate_every=4)
)


@pytest.fixture(scope="session", autouse=True)
def slowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Name the file for which the plugin `slowed` looks."""
    file = tmp_path_factory.mktemp("slowed") / "slow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLOWED", str(file))
        yield file


@pytest.fixture
def slow(slowed: Path) -> Iterator[Path]:
    """Return a file; until a test removes it, a trial learns for half a minute."""
    slowed.write_text("0")
    yield slowed
    slowed.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that nothing interrupts; the workers of xdist share it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "whole"
    with (root / "whole.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            made = tmp_path_factory.mktemp("whole")
            helpers.write(made / "tiny.toml", TINY)
            command = ("run", "tiny.toml", "-o", "out", "-j", 1, "--plugin", SLOWED)
            # Under a memory limit, the highest rates of a machine are not measured.
            code, _, err = helpers.run(*command, "--memory-limit", "8G", cwd=made)
            assert code == 0, err
            made.rename(folder)
    return folder


@pytest.fixture
def fresh(whole: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies the run, without its learning."""

    def copy(name: str) -> Path:
        learning = shutil.ignore_patterns("learning-*")
        return Path(shutil.copytree(whole, tmp_path / name, ignore=learning))

    return copy


@pytest.fixture(scope="session")
def undisturbed(whole: Path) -> dict[str, bytes]:
    """Return the curves of a run that nothing interrupts."""
    found = helpers.curves(whole / "out")
    assert len(found) == 2
    return found


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that calls the command in this process, without its report."""

    def call(*arguments: object, cwd: Path) -> tuple[int, str, str]:
        monkeypatch.chdir(cwd)
        return helpers.call([*map(str, arguments)], monkeypatch, capsys)

    monkeypatch.setattr("harness.cli.run.finish", lambda s, *_: verdict(s.records()))
    return call
