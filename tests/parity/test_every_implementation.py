"""Every built-in implementation is certified for every cell, each in its own worker."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from rich.console import Console

from harness.analysis.certificates import checks_of
from harness.registry import Registry
from harness.run.certify import Request, certify
from harness.store import TrialRecord

REGISTRY = Registry.discover()
NAMES = [n for n, d in REGISTRY.implementations.items() if "cpu" in d.devices]
PAIRS = [(n, cell) for n in NAMES for cell in REGISTRY.implementations[n].cells]

Certificates = Mapping[tuple[str, str], TrialRecord]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certify everything that is installed here, as `rnn-harness check` does."""
    names = tuple(n for n in NAMES if not REGISTRY.unavailable(n))
    folder = tmp_path_factory.mktemp("certificates") / "check"
    with (tmp_path_factory.mktemp("log") / "progress").open("w") as log:
        records = certify(REGISTRY, Request(names), 2, folder, Console(file=log))
    return {(r.trial.implementation, r.trial.cell): r for r in records}


@pytest.mark.timeout(1800)  # the first of them waits for all
@pytest.mark.parametrize(("implementation", "cell"), PAIRS)
def test_every_implementation_is_certified_for_every_cell(
    certificates: Certificates, implementation: str, cell: str
) -> None:
    if (reason := REGISTRY.unavailable(implementation)) is not None:
        pytest.skip(reason)
    record = certificates[implementation, cell]
    assert (record.outcome, record.reason) == ("ok", None)
    checks = {check.name: check for check in checks_of(record)}
    assert {n: c.error for n, c in checks.items() if c.broken} == {}
    assert record.value("certificate", "certified") == 1
    assert record.result["kernel"]
    wanted = {"outputs", "final state", "one time step", "weights come back"}
    if REGISTRY.implementation(implementation).trains:
        wanted |= {"grad w_hh", "grad state at split", "loss", "adam updates"}
        wanted |= {"rmsprop updates", "sgd updates", "optimiser state comes back"}
    assert wanted <= set(checks)
    # An error of exactly zero in float32 would mean that nothing was compared.
    rounded = [c for c in checks.values() if c.tolerance]
    assert all(c.error is not None and c.error > 0 for c in rounded)


def test_an_implementation_that_only_infers_is_asked_for_no_gradient(
    certificates: Certificates,
) -> None:
    if (reason := REGISTRY.unavailable("onnxruntime")) is not None:
        pytest.skip(reason)
    checks = {c.name for c in checks_of(certificates["onnxruntime", "gru"])}
    assert checks == {"weights come back", "outputs", "final state", "one time step"}
