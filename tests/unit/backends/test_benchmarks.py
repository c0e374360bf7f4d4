"""The tests of `pytest tests/benchmarks --benchmark-only`, and the JSON it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.machine.cache import user_cache
from tests import helpers
from tests.benchmarks.test_implementations import shaky
from tests.helpers import REGISTRY


def benchmarks(*options: str) -> str:
    command = [sys.executable, "-m", "pytest", "tests/benchmarks", "-q"]
    done = subprocess.run(
        [*command, "-p", "no:xdist", "-o", "addopts=", "--benchmark-only", *options],
        cwd=helpers.HERE.parent,
        # pytest-benchmark measures nothing in a worker of xdist.
        env={n: v for n, v in os.environ.items() if not n.startswith("PYTEST_")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_benchmarks_are_of_every_implementation_for_the_cpu_and_of_nothing_else() -> (
    None
):
    names = [line for line in benchmarks("--collect-only").splitlines() if "::" in line]
    assert names
    for name, declared in REGISTRY.implementations.items():
        cells = {"gru", "lstm"} & set(declared.cells)
        found = [line for line in names if f"-{name}-" in line]
        assert bool(found) == bool(cells and "cpu" in declared.devices)
        names = [line for line in names if line not in found]
    assert not names


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Certify the GRU of the reference, and run its benchmarks and one of the LSTM.

    Returns:
        The JSON file of the benchmarks, and the time of the certificate.
    """
    folder = tmp_path_factory.mktemp("measured")
    code, _, err = helpers.run("check", "numpy-reference", "-k", "gru", cwd=folder)
    assert code == 0, err
    chosen = "numpy-reference and (gru or forward)"
    benchmarks("-k", chosen, f"--benchmark-json={folder / 'x.json'}")
    cache = user_cache()
    assert cache is not None
    (kept,) = (cache / "certificates").iterdir()
    return folder / "x.json", json.loads(kept.read_text())["made"]


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Return the facts of each benchmark, by its group."""
    found = json.loads(file.read_text())["benchmarks"]
    return {each["group"]: each["extra_info"] for each in found}


@pytest.mark.slow
def test_the_benchmark_json_names_a_certificate_of_the_users_cache_and_doubts(
    measured: tuple[Path, str],
) -> None:
    file, made = measured
    shown = read(file)
    assert shown["gru forward"]["certificate"] == f"certified {made}"
    assert "`rnn-harness check numpy-reference`" in shown["lstm forward"]["certificate"]
    for facts in shown.values():
        assert facts["machine"][0] in ("fit", "noisy", "unfit")
        assert facts["other_load_cores"] >= 0
        assert isinstance(facts["shaky"], list)


def test_a_round_is_shaky_if_it_is_short_or_the_machine_is_busy() -> None:
    assert not shaky([1.0] * 12, 0.0)
    assert shaky([1e-4] * 12, 0.0) == ["a reading of 1 calls took 100 µs only"]
    assert shaky([1.0] * 12, 1.5) == ["other processes kept 1.5 cores busy"]


@pytest.mark.slow
def test_the_benchmark_json_has_groups_and_can_be_read_by_pytest_benchmark(
    tmp_path: Path, measured: tuple[Path, str]
) -> None:
    file, _ = measured
    found = read(file)
    assert found.keys() == {"gru forward", "gru train_step", "lstm forward"}
    for facts in found.values():
        assert facts["shape"] == "batch 16, time steps 50, input 8, hidden 64"
        assert facts["kernel"]
        assert facts["tokens_per_s"] > 0
        assert 0 < facts["fraction_of_peak"] < 1.5
    compare = [sys.executable, "-m", "pytest_benchmark", "compare", str(file)]
    done = subprocess.run(compare, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "test_speed[gru-numpy-reference-train_step]" in done.stdout
