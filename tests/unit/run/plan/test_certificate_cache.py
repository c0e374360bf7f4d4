"""A certificate of an earlier run holds for a later one if nothing has changed."""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from harness.files.text import read_sealed, sealed
from harness.machine.cache import user_cache
from harness.registry import Registry
from harness.run.plan.certificate_cache import CachedCertificate, CertificateCache
from harness.run.plan.fingerprint import forget_files
from harness.run.plan.todo import planned
from harness.store import RunFolder, TrialRecord
from harness.trial import Trial
from tests import helpers
from tests.helpers import REGISTRY

pytestmark = pytest.mark.slow

SUITE = helpers.suite(helpers.speed("numpy-reference"))
CHECK = ("check", "numpy-reference", "-k", "rnn")
SAYS = "certificates from earlier runs"
PLUGIN = """
from harness import declare_implementation

declare_implementation("mine", framework="numpy", cells=["rnn"], factory="mine:build")


def build(spec, cell, device):
    open(__file__.replace("mine.py", "settings.json")).close()
    from implementations.numpy_reference.network import NumpyNetwork

    return NumpyNetwork(spec, cell, device)
"""


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


@pytest.fixture(scope="module")
def one_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, TrialRecord]:
    """Run the suite once; return its folder, the cache and the certificate."""
    folder, cache = tmp_path_factory.mktemp("first"), user_cache()
    assert cache is not None
    return folder, cache, certified(folder)


@pytest.fixture
def first(one_run: tuple[Path, Path, TrialRecord], tmp_path: Path) -> TrialRecord:
    """Give the test a copy of the first run's folder and cache."""
    folder, cache, record = one_run
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    own = user_cache()
    assert own is not None
    shutil.copytree(cache, own)
    return record


def test_a_later_run_reuses_the_certificate_of_an_earlier_one(
    tmp_path: Path, first: TrialRecord
) -> None:
    before = kept()[0].read_bytes()
    second = certified(tmp_path)
    assert kept()[0].read_bytes() == before  # it was not written again
    assert "made" not in first.result
    made = time.strptime(second.result["made"], "%Y-%m-%d %H:%M:%S")
    assert abs(time.mktime(made) - time.mktime(time.gmtime())) < 3600
    assert second.readings == first.readings
    same = ("kernel", "against", "where", "framework", "processor", "quantities")
    assert {n: second.result[n] for n in same} == {n: first.result[n] for n in same}


@pytest.mark.usefixtures("first")
def test_a_certificate_that_a_run_folder_already_held_is_not_cached(
    tmp_path: Path,
) -> None:
    """The code may have changed since the folder was written."""
    (file,) = kept()
    file.unlink()
    assert helpers.run("run", "suite.toml", "-o", "out0", cwd=tmp_path)[0] == 0
    assert kept() == []


@pytest.mark.usefixtures("first")
def test_force_certifies_again_and_a_dry_run_says_what_it_would_do(
    tmp_path: Path,
) -> None:
    assert "made" not in certified(tmp_path, "--force").result
    _, out, _ = helpers.run("run", "suite.toml", "-o", "new", "--why", cwd=tmp_path)
    (line,) = [line for line in out.splitlines() if "parity" in line and "rnn" in line]
    assert "with the same compared files, libraries and processor" in line


@pytest.mark.usefixtures("first")
def test_check_never_reuses_a_certificate_and_stores_its_own(tmp_path: Path) -> None:
    before = read_sealed(kept()[0])
    code, _, err = helpers.run(*CHECK, cwd=tmp_path)
    assert code == 0
    assert "certified (" in err
    (file,) = kept()
    after = read_sealed(file)
    assert after["result"]["compute_time_s"] != before["result"]["compute_time_s"]
    assert (after["id"], after["by"]) == (before["id"], before["by"])


def test_a_changed_source_or_setting_is_certified_again(tmp_path: Path) -> None:
    file = helpers.write(tmp_path / "mine.py", PLUGIN)
    settings = helpers.write(tmp_path / "settings.json", "1")
    suite = helpers.suite(helpers.speed("mine"))
    certified(tmp_path, "--plugin", file, suite=suite)
    assert holds(file)
    helpers.write(settings, "2")
    assert not holds(file)
    helpers.write(settings, "1")
    assert holds(file)
    helpers.write(file, f"{file.read_text()}\n# another\n")
    assert not holds(file)
    again = certified(tmp_path, "--plugin", file, suite=suite)
    assert "made" not in again.result


def holds(plugin: Path) -> bool:
    """Say whether a cached certificate holds for "mine" of a plugin file."""
    forget_files()  # a later command is another process
    registry = Registry.discover([plugin])
    run = RunFolder.create(Path(tempfile.mkdtemp(dir=plugin.parent)) / "empty")
    todo = planned(Trial("parity", "mine", "rnn"), registry, run)
    return CertificateCache(registry).find(todo) is not None


def test_a_broken_certificate_is_not_cached(tmp_path: Path) -> None:
    sabotage = helpers.PLUGINS / "sabotage.py"
    only = ("-k", "numpy-truncated and rnn")
    code, out, _ = helpers.run("check", sabotage, *only, cwd=tmp_path)
    assert code == 3, out
    assert kept() == []


def found(folder: Path) -> CachedCertificate | None:
    """Return the cached certificate that `CHECK` makes, or None."""
    trial = Trial("parity", "numpy-reference", "rnn")
    todo = planned(trial, REGISTRY, RunFolder.create(folder / "empty"))
    return CertificateCache(REGISTRY).find(todo)


@pytest.fixture(scope="module")
def whole(one_run: tuple[Path, Path, TrialRecord]) -> dict[str, Any]:
    """Return the cached file of one certificate."""
    (file,) = (one_run[1] / "certificates").iterdir()
    return {"name": file.name, **read_sealed(file)}


def keep(name: str, text: str) -> None:
    folder = user_cache()
    assert folder is not None
    (folder / "certificates").mkdir(parents=True)
    helpers.write(folder / "certificates" / name, text)


def keep_values(values: dict[str, Any]) -> None:
    """Keep values with their checksum, as `CertificateCache.keep` does."""
    keep(values["name"], sealed(json.dumps(values)))


@pytest.mark.parametrize(
    "change",
    [
        {"by": {"harness": "another"}},
        {"id": "parity-rnn-numpy-reference-0000"},
        {"readings": None},
        {"readings": [{"x": 3}]},
        {"result": 3},
        {"result": {"outcome": "ok", "reason": None, "kernel": 3}},
    ],
)
def test_an_invalid_file_is_not_read_as_a_certificate(
    tmp_path: Path, whole: dict[str, Any], change: dict[str, Any]
) -> None:
    keep_values({**whole, **change})
    assert found(tmp_path) is None


def test_a_certificate_without_its_checksum_is_made_again(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    keep(whole["name"], json.dumps(whole))
    assert found(tmp_path) is None


def test_a_valid_file_is_read_as_a_certificate(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    keep_values(whole)
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
