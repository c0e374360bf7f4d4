"""The tests of `pytest tests/benchmarks --benchmark-only`, and the JSON it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.registry import Registry
from tests import helpers
from tests.benchmarks.test_implementations import shaky


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
    for name, declared in Registry.discover().implementations.items():
        cells = {"gru", "lstm"} & set(declared.cells)
        found = [line for line in names if f"-{name}-" in line]
        assert bool(found) == bool(cells and "cpu" in declared.devices)
        names = [line for line in names if line not in found]
    assert not names


@pytest.mark.slow
def test_the_benchmark_json_names_a_certificate_of_the_users_cache_and_doubts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    certify = ["check", "numpy-reference", "-k", "gru"]
    code, _, err = helpers.run(*certify, cwd=tmp_path)
    assert code == 0, err
    chosen = "numpy-reference and forward"
    benchmarks("-k", chosen, f"--benchmark-json={tmp_path / 'x.json'}")
    found = json.loads((tmp_path / "x.json").read_text())["benchmarks"]
    shown = {each["group"]: each["extra_info"] for each in found}
    (kept,) = (tmp_path / "rnn-harness/certificates").iterdir()
    made = json.loads(kept.read_text())["made"]
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
    tmp_path: Path,
) -> None:
    file = tmp_path / "x.json"
    chosen = "gru and numpy-reference"
    benchmarks("-k", chosen, f"--benchmark-json={file}")
    found = json.loads(file.read_text())["benchmarks"]
    assert {each["group"] for each in found} == {"gru forward", "gru train_step"}
    for each in found:
        facts = each["extra_info"]
        assert facts["shape"] == "batch 16, time steps 50, input 8, hidden 64"
        assert facts["kernel"]
        assert facts["tokens_per_s"] > 0
        assert 0 < facts["fraction_of_peak"] < 1.5
    compare = [sys.executable, "-m", "pytest_benchmark", "compare", str(file)]
    done = subprocess.run(compare, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "test_speed[gru-numpy-reference-train_step]" in done.stdout
