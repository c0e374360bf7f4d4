"""A certificate of an earlier run holds for a later one if nothing has changed."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from harness.machine.cache import user_cache
from harness.registry import Registry
from harness.run.plan.certificate_cache import CachedCertificate, CertificateCache
from harness.run.plan.todo import planned
from harness.store import RunFolder, TrialRecord
from harness.trial import Trial
from tests import helpers

pytestmark = pytest.mark.slow

SUITE = helpers.suite(helpers.speed("numpy-reference"))
CHECK = ("check", "numpy-reference", "-k", "rnn")
SAYS = "certificates from earlier runs"


def certified(folder: Path, *options: object, suite: str = SUITE) -> TrialRecord:
    """Run a suite in a new folder, and return its one certificate."""
    helpers.write(folder / "suite.toml", suite)
    out = folder / f"out{len(list(folder.glob('out*')))}"
    code, _, err = helpers.run("run", "suite.toml", "-o", out, *options, cwd=folder)
    assert code == 0, err
    (found,) = [r for r in RunFolder.open(out).records() if r.trial.measure == "parity"]
    assert ("made" in found.result) == (SAYS in err)
    assert ("made" in found.result) == ("certified (" not in err)
    return found


def kept() -> list[Path]:
    folder = user_cache()
    assert folder is not None
    return sorted((folder / "certificates").glob("*"))


def test_a_later_run_reuses_the_certificate_of_an_earlier_one(tmp_path: Path) -> None:
    first = certified(tmp_path)
    before = kept()[0].read_bytes()
    second = certified(tmp_path)
    assert kept()[0].read_bytes() == before  # it was not written again
    assert "made" not in first.result
    made = time.strptime(second.result["made"], "%Y-%m-%d %H:%M:%S")
    assert abs(time.mktime(made) - time.mktime(time.gmtime())) < 3600
    assert second.readings == first.readings
    same = ("kernel", "against", "where", "framework", "processor", "quantities")
    assert {n: second.result[n] for n in same} == {n: first.result[n] for n in same}


def test_a_certificate_that_a_run_folder_already_held_is_not_cached(
    tmp_path: Path,
) -> None:
    """The code may have changed since the folder was written."""
    certified(tmp_path)
    (file,) = kept()
    file.unlink()
    assert helpers.run("run", "suite.toml", "-o", "out0", cwd=tmp_path)[0] == 0
    assert kept() == []


def test_force_certifies_again_and_a_dry_run_says_what_it_would_do(
    tmp_path: Path,
) -> None:
    certified(tmp_path)
    assert "made" not in certified(tmp_path, "--force").result
    _, out, _ = helpers.run("run", "suite.toml", "-o", "new", "--why", cwd=tmp_path)
    (line,) = [line for line in out.splitlines() if "parity" in line and "rnn" in line]
    assert "with the same sources, libraries and processor" in line


def test_check_stores_its_certificate_and_never_reuses_one(tmp_path: Path) -> None:
    for _ in range(2):
        code, _, err = helpers.run(*CHECK, cwd=tmp_path)
        assert code == 0
        assert "certified (" in err
    assert "made" in certified(tmp_path).result


def test_a_changed_source_is_certified_again(tmp_path: Path) -> None:
    file = Path(shutil.copy(helpers.PLUGINS / "with_a_child.py", tmp_path))
    suite = helpers.suite(helpers.speed("with-a-child"))
    certified(tmp_path, "--plugin", file, suite=suite)
    again = certified(tmp_path, "--plugin", file, suite=suite)
    assert "made" in again.result
    helpers.write(file, f"{file.read_text()}\n# another\n")
    assert "made" not in certified(tmp_path, "--plugin", file, suite=suite).result


def test_a_broken_certificate_is_not_cached(tmp_path: Path) -> None:
    sabotage = helpers.PLUGINS / "sabotage.py"
    only = ("-k", "torch-gates-swapped")
    code, out, _ = helpers.run("check", sabotage, *only, cwd=tmp_path)
    assert code == 3, out
    assert kept() == []


def found(folder: Path) -> CachedCertificate | None:
    """Return the cached certificate that `CHECK` makes, or None."""
    registry = Registry.discover()
    trial = Trial("parity", "numpy-reference", "rnn")
    todo = planned(trial, registry, RunFolder.create(folder / "empty"))
    return CertificateCache(registry).find(todo)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the cached file of one certificate."""
    code, _, err = helpers.run(*CHECK, cwd=tmp_path_factory.mktemp("check"))
    assert code == 0, err
    (file,) = kept()
    return {"name": file.name, **json.loads(file.read_text())}


def keep(name: str, text: str) -> None:
    folder = user_cache()
    assert folder is not None
    (folder / "certificates").mkdir(parents=True)
    helpers.write(folder / "certificates" / name, text)


@pytest.mark.parametrize(
    "change",
    [
        {"by": {"harness": "another"}},
        {"id": "parity-rnn-numpy-reference-0000"},
        {"readings": None},
        {"readings": [{"x": 3}]},
        {"result": 3},
    ],
)
def test_an_invalid_file_is_not_read_as_a_certificate(
    tmp_path: Path, whole: dict[str, Any], change: dict[str, Any]
) -> None:
    keep(whole["name"], json.dumps({**whole, **change}))
    assert found(tmp_path) is None


def test_a_valid_file_is_read_as_a_certificate(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    keep(whole["name"], json.dumps(whole))
    known = found(tmp_path)
    assert known is not None
    assert known.made == whole["made"]


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_an_unreadable_file_is_not_read_as_a_certificate(
    tmp_path: Path, whole: dict[str, Any], text: str
) -> None:
    keep(whole["name"], text)
    assert found(tmp_path) is None


def test_an_unreadable_file_is_replaced(tmp_path: Path, whole: dict[str, Any]) -> None:
    keep(whole["name"], "{")
    assert helpers.run(*CHECK, cwd=tmp_path)[0] == 0
    assert found(tmp_path) is not None
