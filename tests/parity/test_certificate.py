"""The certificate: what is correct passes it, what is broken does not, and why."""

from __future__ import annotations

import importlib.util
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from harness.measure.certificate import TOLERANCES, relative_error
from harness.measure.parity import SHAPES, measure_parity
from harness.measure.problem import Measurement
from harness.registry import Registry
from harness.trial import Trial

SABOTAGE = Path(__file__).parent.parent / "fake_plugins" / "sabotage.py"
REGISTRY = Registry.discover()

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


def errors(measurement: Measurement) -> dict[str, float]:
    return {r.split: r.values.get("error", 0.0) for r in measurement.readings[1:]}


def broken(measurement: Measurement) -> set[str]:
    tolerance = TOLERANCES["float32", "highest"].certified
    return {check for check, error in errors(measurement).items() if error > tolerance}


@pytest.mark.parametrize(
    ("implementation", "cell"),
    [(d.name, cell) for d in REGISTRY.implementations.values() for cell in d.cells],
)
def test_every_built_in_implementation_is_certified_for_every_cell(
    implementation: str, cell: str
) -> None:
    if (reason := REGISTRY.unavailable(implementation)) is not None:
        pytest.skip(reason)
    found = measure_parity(REGISTRY, Trial("parity", implementation, cell))
    assert broken(found) == set()
    assert found.readings[0].values["certified"] == 1
    # An error of exactly zero in float32 would mean that nothing was compared.
    assert all(error > 0 for error in errors(found).values())


@needs_torch
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_in_float64_torch_and_the_reference_agree_to_rounding(cell: str) -> None:
    trial = Trial("parity", "torch-native", cell, dtype="float64")
    found = measure_parity(REGISTRY, trial)
    assert found.readings[0].values["certified"] == 1
    assert max(errors(found).values()) < TOLERANCES["float64", "highest"].certified


SABOTAGED = [
    ("gates-swapped", "gru", {"outputs", "grad w_hh", "one time step"}),
    ("reset-before", "gru", {"outputs", "grad w_hh", "one time step"}),
    ("truncated", "rnn", {"grad w_hh", "grad initial state"}),
    ("truncated", "gru", {"grad w_hh", "grad initial state"}),
    ("truncated", "lstm", {"grad w_hh", "grad initial state"}),
    ("clipped-per-tensor", "gru", {"adam updates", "sgd updates", "rmsprop updates"}),
]


@needs_torch
@pytest.mark.parametrize("framework", ["torch", "numpy"])
@pytest.mark.parametrize(("mistake", "cell", "expected"), SABOTAGED)
def test_a_planted_mistake_is_refused_for_the_right_reason(
    framework: str, mistake: str, cell: str, expected: set[str]
) -> None:
    registry = Registry.discover([SABOTAGE])
    assert registry.problems == []
    found = measure_parity(registry, Trial("parity", f"{framework}-{mistake}", cell))
    assert found.readings[0].values["certified"] == 0
    assert expected <= broken(found)
    if mistake == "truncated":
        assert {"outputs", "final state", "loss"}.isdisjoint(broken(found))
    if mistake == "clipped-per-tensor":
        updates = {
            f"{n} {w}"
            for n in ("adam", "rmsprop", "sgd")
            for w in ("updates", "moments")
        }
        assert broken(found) <= updates


def test_every_pair_of_levels_occurs_in_some_shape() -> None:
    rows = [
        (
            shape.inputs.kind,
            shape.time_steps,
            shape.batch,
            shape.hidden_size,
            shape.num_layers,
            shape.readout,
            shape.padded,
        )
        for shape in SHAPES
    ]
    assert len(rows) <= 8
    for a, b in combinations(range(len(rows[0])), 2):
        levels = product({row[a] for row in rows}, {row[b] for row in rows})
        assert set(levels) <= {(row[a], row[b]) for row in rows}


def test_the_relative_error_is_of_norms_and_knows_underflow() -> None:
    reference = np.array([3.0, 4.0])
    assert relative_error(np.array([3.0, 4.5]), reference) == pytest.approx(0.1)
    assert relative_error(np.array([3.0]), reference) == float("inf")
    assert relative_error(np.array([np.nan, 4.0]), reference) == float("inf")
    assert relative_error(np.zeros(2), np.full(2, 1e-31)) is None
