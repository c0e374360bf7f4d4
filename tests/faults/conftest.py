import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import helpers


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of the tiny suite whose certificate and speed are done."""
    folder = tmp_path_factory.mktemp("measured")
    helpers.write(folder / "tiny.toml", helpers.TINY)
    code, _, err = helpers.run(
        "run", "tiny.toml", "-o", "out", "-k", "parity or speed", cwd=folder
    )
    assert code == 0, err
    return folder


@pytest.fixture
def fresh(measured: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies the measured run, without its learning."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(measured, tmp_path / name))

    return copy


@pytest.fixture(scope="session")
def undisturbed(
    measured: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Return the curves of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    shutil.copytree(measured, folder)
    code, _, err = helpers.run("run", "tiny.toml", "-o", "out", cwd=folder)
    assert code == 0, err
    found = helpers.curves(folder / "out")
    assert len(found) == 2
    return found
