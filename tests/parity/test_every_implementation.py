"""Every built-in implementation is certified for every cell in its own worker.

Only the quickest are certified in `make test`. The others need up to a minute for
each cell, so `make test-all` certifies them; in `make test` the tests of each backend
compare every cell with the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.analysis.certificates import checks_of
from harness.run.certify import CheckRequest, certify
from harness.store import TrialRecord
from tests.helpers import REGISTRY

SOON = {"numpy-reference", "onnxruntime"}
"""Those that `make test` certifies."""


def _cases() -> Iterator[Any]:
    """Yield an implementation and the cells to certify it for."""
    for name, declared in REGISTRY.implementations.items():
        if name in SOON:
            yield pytest.param(name, declared.cells, id=name)
            continue
        for cell in declared.cells:
            marks = pytest.mark.long
            yield pytest.param(name, (cell,), id=f"{name}: {cell}", marks=marks)


INFERENCE = {"weights come back", "outputs", "final state", "one time step"}
INFERENCE |= {"given arrays"}
TRAINING = {
    "grad w_hh",
    "grad state at split",
    "loss",
    "one update",
    "adam updates",
    "rmsprop updates",
    "sgd updates",
    "optimiser state comes back",
}


def test_those_that_are_certified_soon_are_declared() -> None:
    assert {*REGISTRY.implementations} > SOON


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("whole_work")
@pytest.mark.parametrize(("implementation", "cells"), [*_cases()])
def test_an_implementation_is_certified_for_its_cells(
    implementation: str, cells: tuple[str, ...], tmp_path: Path
) -> None:
    """Certify it as `rnn-harness check` does, at every shape of the pairwise set."""
    declared = REGISTRY.implementation(implementation)
    if (reason := REGISTRY.unavailable(implementation)) is not None:
        pytest.skip(reason)
    if "cpu" not in declared.devices:
        pytest.skip("it does not compute on a CPU")
    with (tmp_path / "progress").open("w") as log:
        request = CheckRequest((implementation,), expression=" or ".join(cells))
        records = certify(REGISTRY, request, 1, tmp_path / "check", Console(file=log))
    assert tuple(r.trial.cell for r in records) == cells
    for record in records:
        assert_certified(record, declared.trains)


def assert_certified(record: TrialRecord, trains: bool) -> None:
    cell = record.trial.cell
    assert (record.outcome, record.reason) == ("ok", None), cell
    checks = {check.name: check for check in checks_of(record)}
    assert {n: c.error for n, c in checks.items() if c.broken} == {}, cell
    assert record.value("certificate", "certified") == 1, cell
    assert record.value("certificate", "shapes") == 8, cell
    assert record.result["kernel"], cell
    assert "changed_process" not in record.result, cell
    if trains:
        assert checks.keys() >= INFERENCE | TRAINING, cell
    else:
        assert checks.keys() == INFERENCE, cell
    # An error of exactly zero in float32 would mean that nothing was compared. Only an
    # invariant, of which both sides are computed in float32, may hold to the last bit.
    for name in checks.keys() & (INFERENCE | TRAINING):
        error, tolerance = checks[name].error, checks[name].tolerance
        assert not tolerance or (error is not None and error > 0), (cell, name)
