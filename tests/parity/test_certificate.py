"""The certificate: a mistake does not pass, and its cause is reported."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pytest

from harness.measure.certificate.certify import measure_parity
from harness.measure.certificate.distance import relative_error
from harness.measure.certificate.record import Certificate, Tolerance
from harness.measure.certificate.shapes import PAIRWISE, Shape, full_grid
from harness.measure.certificate.trajectories import NAMES, Name
from harness.measure.problem import Measurement
from harness.registry import Registry
from harness.trial import Trial
from tests import helpers
from tests.helpers import REGISTRY, needs_torch
from tests.planted import certificate_of, subject_of

SABOTAGE = helpers.PLUGINS / "sabotage.py"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


def errors(measurement: Measurement) -> dict[str, float]:
    return {r.split: r.values.get("error", 0.0) for r in measurement.readings[1:]}


def broken(measurement: Measurement) -> set[str]:
    return {
        r.split
        for r in measurement.readings[1:]
        if r.values.get("error", 0.0) > r.values["tolerance"]
    }


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize(
    "cell", ["gru", *(pytest.param(c, marks=pytest.mark.long) for c in ("rnn", "lstm"))]
)
def test_in_float64_torch_and_the_reference_agree_to_rounding(cell: str) -> None:
    trial = Trial("parity", "torch-native", cell, dtype="float64")
    found = measure_parity(REGISTRY, trial)
    assert found.readings[0].values["certified"] == 1
    assert broken(found) == set()
    assert 0 < max(errors(found).values()) < 2e-13


UPDATES = {
    f"{n} {w}" for n in ("adam", "rmsprop", "sgd") for w in ("updates", "moments")
}
GRADIENTS = {"grad w_hh", "grad initial state"}
FORWARD = {"outputs", "final state", "one time step", "grad w_hh"}

# Unpadded with 100 and 13 time steps, scored at every position, and padded.
LONG, SHORT, SCORED, PADDED = (PAIRWISE[i] for i in (0, 7, 5, 2))


@dataclass(frozen=True)
class Planted:
    """A mistake, and what a certificate finds of it.

    Attributes:
        cells: Cells that it is planted in.
        breaks: Checks that must break.
        holds: Checks that must hold.
        cause: The likely cause that is reported.
        shapes: Shapes at which it shows.
        optimizers: The optimisers that are compared.
        frameworks: Frameworks that it is planted in.
    """

    mistake: str
    breaks: set[str]
    holds: set[str]
    cause: str
    shapes: tuple[Shape, ...] = (SHORT,)
    optimizers: tuple[Name, ...] = ()
    cells: tuple[str, ...] = ("gru",)
    frameworks: tuple[str, ...] = ("torch",)


BOTH = ("torch", "numpy")
PLANTED = [
    Planted(
        "gates-swapped",
        FORWARD,
        {"grad readout.b"},
        "matches if gates r and z are exchanged",
        frameworks=BOTH,
    ),
    Planted(
        "reset-before",
        FORWARD,
        {"grad readout.b"},
        "this is the cell gru-reset-before",
        frameworks=BOTH,
    ),
    Planted(
        "truncated",
        GRADIENTS,
        {"outputs", "final state", "loss"},
        "the gradient is truncated every 50 time steps",
        shapes=(LONG,),
        cells=("rnn", "gru", "lstm"),
        frameworks=BOTH,
    ),
    Planted(
        "clipped-per-tensor",
        {"adam updates", "sgd updates", "rmsprop updates"},
        {"outputs", "grad w_hh", "loss", "grad of loss"},
        "gradients are clipped per tensor",
        optimizers=NAMES,
        frameworks=BOTH,
    ),
    Planted(
        "bias-forgotten", FORWARD, {"grad readout.b"}, "matches if b_hn is forgotten"
    ),
    Planted(
        "update-gate-negated",
        FORWARD,
        {"grad readout.b"},
        "matches if z and 1 - z are exchanged",
    ),
    Planted(
        "wrong-bias-gradient",
        {"grad b", "grad of loss", "adam updates"},
        {"outputs", "grad w_hh", "grad b_hn", "loss"},
        "the gradient of layer0.b is 0.5 times the reference",
        optimizers=("adam",),
    ),
    Planted(
        "loss-over-every-position",
        {"loss", "grad of loss", *UPDATES},
        {"outputs", "grad w_hh", "grad b"},
        "the loss is averaged over every position, scored or not",
        shapes=(SCORED,),
        optimizers=NAMES,
    ),
    Planted(
        "epsilon-inside",
        {"rmsprop updates"},
        {"outputs", "grad of loss", "adam updates", "sgd updates"},
        "epsilon is added inside the root",
        optimizers=NAMES,
    ),
    Planted(
        "padding-leaks",
        {"outputs", "final state", "grad w_hh", "sgd updates"},
        {"one time step", "grad state at split"},
        "padding leaks: sequences are run on beyond their end",
        shapes=(PADDED, SHORT),
        optimizers=("sgd",),
    ),
    Planted(
        "trains-nothing",
        {"adam updates", "sgd updates", "rmsprop updates"},
        {"outputs", "loss", "grad of loss"},
        "no update is taken: the weights stay as they were",
        optimizers=NAMES,
    ),
]
EACH = [
    pytest.param(
        row,
        f"{framework}-{row.mistake}",
        cell,
        id=f"{framework}-{row.mistake}-{cell}",
        # The checks are the same for both, and NumPy's are quicker.
        marks=[pytest.mark.long] * (framework != row.frameworks[-1]),
    )
    for row in PLANTED
    for framework in row.frameworks
    for cell in row.cells
]


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize(("row", "implementation", "cell"), EACH)
def test_a_planted_mistake_breaks_its_checks_and_gets_its_likely_cause(
    row: Planted, implementation: str, cell: str
) -> None:
    registry = Registry.discover([SABOTAGE])
    assert registry.problems == []
    subject = subject_of(registry, implementation, cell)
    found = certificate_of(subject, row.shapes, row.optimizers)
    assert row.breaks <= set(found.broken)
    assert row.holds <= set(found.findings) - set(found.broken)
    assert {found.causes.get(check) for check in row.breaks} == {row.cause}


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "cell"),
    [
        pytest.param("torch-gates-swapped", "gru", marks=pytest.mark.long),
        ("numpy-truncated", "rnn"),
    ],
)
def test_a_whole_measurement_has_the_broken_checks_and_their_causes(
    mistake: str, cell: str
) -> None:
    (row,) = [row for row in PLANTED if mistake.endswith(row.mistake)]
    registry = Registry.discover([SABOTAGE])
    found = measure_parity(registry, Trial("parity", mistake, cell))
    assert found.readings[0].values["certified"] == 0
    assert row.breaks <= broken(found)
    assert broken(found).isdisjoint(row.holds)
    assert row.holds <= set(errors(found))
    assert {found.facts["causes"].get(check) for check in row.breaks} == {row.cause}


def test_every_pair_of_levels_occurs_in_some_shape() -> None:
    rows = [
        (
            shape.inputs.kind,
            shape.time_steps,
            shape.batch,
            shape.hidden_size,
            shape.num_layers > 1,
            shape.readout,
            shape.padded,
        )
        for shape in PAIRWISE
    ]
    assert len(rows) <= 8
    for a, b in combinations(range(len(rows[0])), 2):
        levels = product({row[a] for row in rows}, {row[b] for row in rows})
        assert set(levels) <= {(row[a], row[b]) for row in rows}


def test_the_full_grid_has_every_combination_once() -> None:
    grid = full_grid()
    assert len(set(grid)) == len(grid) == 4 * 2**5 * 3  # one, two and three layers
    assert set(PAIRWISE) <= set(grid)


def test_the_relative_error_compares_norms_and_allows_for_underflow() -> None:
    reference = np.array([3.0, 4.0])
    assert relative_error(np.array([3.0, 4.5]), reference) == pytest.approx(0.1)
    assert relative_error(np.array([3.0]), reference) == float("inf")
    assert relative_error(np.array([np.nan, 4.0]), reference) == float("inf")
    assert relative_error(np.zeros(2), np.full(2, 1e-31)) is None


def test_a_check_keeps_its_worst_comparison_with_its_place() -> None:
    certificate = Certificate(Tolerance(1e-2, 1e-3), shapes=1)
    one, two = np.array([1.0]), np.array([2.0])
    certificate.compare("outputs", one, one, "here")
    certificate.compare("outputs", np.array([2.002]), two, "there")
    assert certificate.broken == []
    certificate.compare("outputs", np.array([np.nan]), two, "nowhere")
    certificate.compare("outputs", np.array([1.5]), two, "elsewhere")
    (finding,) = certificate.findings.values()
    assert (finding.where, finding.expected) == ("nowhere", 2.0)
    assert finding.found == float("inf")  # it would be None for a different shape
    assert certificate.broken == ["outputs"]


def test_weights_that_must_come_back_bit_for_bit_have_no_tolerance() -> None:
    certificate = Certificate(Tolerance(1e-2, 1e-3), shapes=1)
    one = np.ones(4, np.float32)
    certificate.require_equal("round trip", one, one)
    assert certificate.broken == []
    near = one.copy()
    near[0] = np.nextafter(np.float32(1), np.float32(2))
    certificate.require_equal("round trip", near, one)
    assert certificate.findings["round trip"].error == 0.25
    wider = Certificate(Tolerance(1e-2, 1e-3), shapes=1)
    wider.require_equal("round trip", one.astype(np.float64), one)
    assert wider.broken == ["round trip"]
