"""A cell of a plugin is certified without a reference."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.measure.certificate import certify as parity
from harness.measure.certificate import differences, peers, shapes
from harness.measure.certificate.certify import measure_parity
from harness.measure.problem import Measurement
from harness.measure.subject import Subject
from harness.registry import Registry
from harness.report.certificate import certificate_json, certificate_text
from harness.store import TrialRecord
from harness.trial import Trial
from tests import helpers
from tests.helpers import needs_torch

DOCS = helpers.ROOT / "docs" / "plugins.md"
FILES = ("min_gru.py", "min_gru_bare.py", "min_gru_mistakes.py")
CAUSES = {
    "exchanged-gate": {"matches if z and 1 - z are exchanged"},
    "wrong-gradient": {"the gradient of layer0.b is 0.5 times the reference"},
}
INVARIANTS = {"batch order", "causality", "state passed on"}

pytestmark = needs_torch


def certify(implementation: str, cell: str = "min-gru") -> Measurement:
    registry = Registry.discover([helpers.PLUGINS / file for file in FILES])
    assert registry.problems == []
    return measure_parity(registry, Trial("parity", implementation, cell))


def broken(found: Measurement) -> set[str]:
    return {
        r.split
        for r in found.readings[1:]
        if r.values.get("error", 0.0) > r.values["tolerance"]
    }


def errors(found: Measurement) -> dict[str, float]:
    return {r.split: r.values["error"] for r in found.readings[1:]}


@pytest.fixture
def two_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use two short shapes, one of them unpadded, and no optimisers."""
    few = tuple(s for s in shapes.PAIRWISE if s.time_steps == 13 and s.batch > 1)
    assert len(few) == 2
    for module in (parity, differences, peers):
        monkeypatch.setattr(module, "PAIRWISE", few)
    monkeypatch.setattr(parity, "compare_optimizers", lambda *_: None)


def test_the_loop_of_every_framework_computes_a_cell_from_its_equations() -> None:
    registry = Registry.discover([helpers.PLUGINS / "min_gru.py"])
    computing = {n for n, d in registry.implementations.items() if "min-gru" in d.cells}
    loops = {"torch-loop", "torch-compile", "jax-scan", "tensorflow-loop"}
    assert computing == {*loops, "torch-parallel"}
    assert "min-gru" not in registry.implementation("numpy-reference").cells


# --- comparison with the equations ----------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_parallel_form_of_min_gru_is_certified_by_its_equations() -> None:
    found = certify("torch-parallel")
    assert broken(found) == set()
    assert found.readings[0].values["certified"] == 1
    assert found.facts["against"] == (
        "the cell's equations in float64, finite differences in float64 and invariants"
    )
    assert found.facts["unproven"] is None
    of = errors(found)
    for check in ("outputs", "grad w_ih", "grad state at split"):
        assert 0 < of[check] < 1e-5
    for check in INVARIANTS:
        assert of[check] < 1e-5
    for check in ("differences w_ih", "differences b", "differences state"):
        assert 0 < of[check] < 1e-7


@pytest.mark.slow
@pytest.mark.usefixtures("two_shapes")
@pytest.mark.parametrize(
    ("mistake", "expected", "sound"),
    [
        # Each has the right gradient of its outputs and passes every invariant.
        ("exchanged-gate", {"outputs", "grad w_ih"}, {"differences b", *INVARIANTS}),
        ("tanh-candidate", {"outputs", "grad w_ih"}, {"differences b", *INVARIANTS}),
        ("wrong-gradient", {"grad b", "differences b"}, {"outputs", *INVARIANTS}),
    ],
)
def test_a_mistake_in_both_forms_breaks_the_comparison_with_the_equations(
    mistake: str, expected: set[str], sound: set[str]
) -> None:
    found = certify(f"min-gru-{mistake}")
    assert expected <= broken(found)
    assert broken(found).isdisjoint(sound)
    assert set(found.facts["causes"].values()) == CAUSES.get(mistake, set())
    # It declares no float64, but can compute in it.
    assert "finite differences in float64 and" in found.facts["against"]


@pytest.mark.usefixtures("two_shapes")
def test_an_implementation_without_training_is_compared_with_equations_alone() -> None:
    registry = Registry.discover([helpers.PLUGINS / "min_gru.py"])
    declared = registry.implementation("torch-parallel")
    registry.implementations["torch-parallel"] = replace(declared, trains=False)
    found = measure_parity(registry, Trial("parity", "torch-parallel", "min-gru"))
    assert broken(found) == set()
    assert found.facts["against"] == "the cell's equations in float64 and invariants"
    assert not [r for r in found.readings if r.split.startswith("differences")]


# --- finite differences --------------------------------------------------------------


@pytest.mark.usefixtures("two_shapes")
def test_the_heading_says_that_differences_are_in_float32_where_float64_fails() -> None:
    found = certify("min-gru-in-single")
    assert broken(found) == set()
    assert "finite differences in float32 and" in found.facts["against"]
    allowed = {
        r.values["tolerance"]
        for r in found.readings
        if r.split.startswith("differences")
    }
    assert allowed == {differences.SINGLE.tolerance(13).certified}
    assert 0.05 < min(allowed) < 0.07


@pytest.mark.usefixtures("two_shapes")
def test_half_a_gradient_shows_in_float32_too() -> None:
    found = certify("min-gru-wrong-in-single", "min-gru-bare")
    assert "finite differences in float32," in found.facts["against"]
    assert {c for c in broken(found) if not c.startswith("as ")} == {"differences b"}
    assert errors(found)["differences b"] == pytest.approx(0.5, rel=0.1)


def test_half_a_gradient_shows_at_every_shape_and_seed() -> None:
    registry = Registry.discover([helpers.PLUGINS / file for file in FILES])
    trial = Trial("parity", "min-gru-wrong-gradient", "min-gru")
    subject = Subject.of(registry, trial)
    shape = min(shapes.PAIRWISE, key=lambda s: (s.time_steps, s.num_layers))
    for seed in range(8):
        network = differences._Differences(subject, shape, differences.DOUBLE, seed)
        of = dict(network.errors())
        assert of["differences b"] == pytest.approx(0.5, abs=1e-3)
        assert of["differences w_ih"] < 1e-7


# --- neither a reference nor equations -----------------------------------------------


@pytest.mark.usefixtures("two_shapes")
@pytest.mark.parametrize(
    ("mistake", "expected", "sound"),
    [
        ("looks-ahead", {"causality", "outputs"}, {"batch order"}),
        ("forgets-state", {"state passed on"}, {"batch order", "causality"}),
        ("mixes-batch", {"batch order"}, {"causality"}),
        ("wrong-gradient", {"differences b"}, {"outputs", "grad b", *INVARIANTS}),
    ],
)
def test_without_a_reference_a_mistake_breaks_an_invariant(
    mistake: str, expected: set[str], sound: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "compare_peers", lambda *_: [])
    found = certify(f"min-gru-{mistake}", "min-gru-bare")
    assert expected <= broken(found)
    assert broken(found).isdisjoint(sound)
    assert found.facts["against"] == (
        "its own single time steps, finite differences in float64 and invariants"
    )


@pytest.mark.usefixtures("two_shapes")
def test_two_implementations_that_compute_different_functions_are_both_broken() -> None:
    right, wrong = (
        certify("bare-parallel", "min-gru-bare"),
        certify("bare-exchanged", "min-gru-bare"),
    )
    assert broken(right) == {"as bare-exchanged"}
    assert broken(wrong) == {"as bare-parallel"}
    # The one that raises an error did not run, and is not named.
    assert "and computes what bare-exchanged computes;" in right.facts["unproven"]
    assert right.facts["against"].endswith("invariants and bare-exchanged")


@pytest.mark.usefixtures("two_shapes")
def test_the_output_says_what_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "compare_peers", lambda *_: [])
    found = certify("bare-exchanged", "min-gru-bare")
    assert found.readings[0].values["certified"] == 1
    unproven = found.facts["unproven"]
    assert unproven.startswith(
        "cell min-gru-bare declares neither a reference nor equations: bare-exchanged "
        "is consistent with itself; that any other"
    )
    # The page wraps this line, which is too long for it.
    page = " ".join(DOCS.read_text(encoding="utf-8").split())
    assert f"`not proven: {unproven}`" in page
    record = TrialRecord(
        "t",
        Trial("parity", "bare-exchanged", "min-gru-bare"),
        "ok",
        None,
        found.facts,
        tuple(found.readings),
    )
    *_, verdict, left_open = certificate_text(record).splitlines()
    assert verdict.startswith("certified: ")
    assert left_open == f"not proven: {unproven}"
    assert certificate_json(record)["unproven"] == unproven
