"""Every built-in implementation is certified for every cell, each in its own worker."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from harness.analysis.certificates import checks_of
from harness.run.certify import Request, certify
from harness.store import TrialRecord
from tests.helpers import REGISTRY

NAMES = [n for n, d in REGISTRY.implementations.items() if "cpu" in d.devices]

INFERENCE = {"weights come back", "outputs", "final state", "one time step"}
TRAINING = {
    "grad w_hh",
    "grad state at split",
    "loss",
    "adam updates",
    "rmsprop updates",
    "sgd updates",
    "optimiser state comes back",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("implementation", NAMES)
def test_every_implementation_is_certified_for_each_of_its_cells(
    implementation: str, tmp_path: Path
) -> None:
    """Certify them as `rnn-harness check` does, at every shape of the pairwise set."""
    if (reason := REGISTRY.unavailable(implementation)) is not None:
        pytest.skip(reason)
    with (tmp_path / "progress").open("w") as log:
        request = Request((implementation,))
        records = certify(REGISTRY, request, 1, tmp_path / "check", Console(file=log))
    declared = REGISTRY.implementation(implementation)
    assert [r.trial.cell for r in records] == list(declared.cells)
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
    if trains:
        assert checks.keys() >= INFERENCE | TRAINING, cell
    else:
        assert checks.keys() == INFERENCE, cell
    # An error of exactly zero in float32 would mean that nothing was compared.
    rounded = [c for c in checks.values() if c.tolerance]
    assert all(c.error is not None and c.error > 0 for c in rounded), cell
