"""A cell that nobody knew before: certified without a reference."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from harness.measure.parity import measure_parity
from harness.measure.problem import Measurement
from harness.registry import Registry
from harness.trial import Trial

PLUGINS = Path(__file__).parent.parent / "fake_plugins"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


def certify(implementation: str, file: str) -> Measurement:
    files = [PLUGINS / "min_gru.py"]
    if file != "min_gru.py":
        files.append(PLUGINS / file)
    registry = Registry.discover(files)
    assert registry.problems == []
    return measure_parity(registry, Trial("parity", implementation, "min-gru"))


def broken(found: Measurement) -> set[str]:
    return {
        r.split
        for r in found.readings[1:]
        if r.values.get("error", 0.0) > r.values["tolerance"]
    }


def test_loops_of_every_framework_compute_a_cell_that_has_equations() -> None:
    registry = Registry.discover([PLUGINS / "min_gru.py"])
    computing = {n for n, d in registry.implementations.items() if "min-gru" in d.cells}
    loops = {"torch-loop", "torch-compile", "jax-scan", "tensorflow-loop"}
    assert computing == {*loops, "torch-parallel"}
    assert "min-gru" not in registry.implementation("numpy-reference").cells


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_parallel_form_of_min_gru_is_certified_by_its_own_single_steps() -> None:
    found = certify("torch-parallel", "min_gru.py")
    assert broken(found) == set()
    assert found.readings[0].values["certified"] == 1
    assert "own single time steps" in found.facts["against"]
    errors = {r.split: r.values["error"] for r in found.readings[1:]}
    assert 0 < errors["outputs"] < 1e-5
    for check in ("batch order", "causality", "state passed on"):
        assert errors[check] < 1e-5
    for check in ("differences w_ih", "differences b", "differences state"):
        assert 0 < errors[check] < 1e-6


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("mistake", "expected", "sound"),
    [
        ("looks-ahead", {"causality", "outputs"}, {"batch order"}),
        ("forgets-state", {"state passed on"}, {"batch order", "causality"}),
        ("mixes-batch", {"batch order"}, {"causality"}),
        (
            "wrong-gradient",
            {"differences b"},
            {"outputs", "grad b", "causality", "state passed on", "batch order"},
        ),
    ],
)
def test_without_a_reference_a_mistake_breaks_an_invariant(
    mistake: str, expected: set[str], sound: set[str], monkeypatch: Any
) -> None:
    from harness.measure import parity, shapes

    # Two shapes show it: reals and tokens, one of them with a readout at every step.
    few = tuple(s for s in shapes.PAIRWISE if s.time_steps == 13)
    monkeypatch.setattr(parity, "PAIRWISE", few)
    monkeypatch.setattr(parity, "UPDATES", 2)
    found = certify(f"min-gru-{mistake}", "min_gru_mistakes.py")
    assert expected <= broken(found)
    assert broken(found).isdisjoint(sound)
