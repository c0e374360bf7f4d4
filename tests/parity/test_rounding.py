"""What no float32 code can reach is not asked, and no mistake passes for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.declarations import declare_cell
from harness.errors import PluginError
from harness.measure.certificate import certify, differences
from harness.measure.certificate.certify import PairComparison, measure_parity
from harness.measure.certificate.network_pair import NetworkPair
from harness.measure.certificate.record import TOLERANCES, Certificate
from harness.measure.certificate.rounding import NUDGES, ROOM, Responses, allowed
from harness.measure.certificate.shapes import PAIRWISE
from harness.measure.certificate.trajectories import compare_optimizers
from harness.registry import Registry
from harness.report.certificate import certificate_json, certificate_text
from harness.store import TrialRecord
from harness.trial import Trial
from tests import helpers
from tests.helpers import needs_torch
from tests.planted import certificate_of, subject_of

ILL = replace(PAIRWISE[1], hidden_size=20)  # where the LayerNorm LSTM loses most digits
USUAL = TOLERANCES["float32", "highest"].certified


def registry_of(*files: str) -> Registry:
    found = Registry.discover([helpers.PLUGINS / file for file in files])
    assert found.problems == []
    return found


# --- the allowance -------------------------------------------------------------------


def test_an_error_is_allowed_up_to_some_times_what_rounding_makes() -> None:
    assert allowed(5e-6, 1e-5, iter([1.0])) == 1e-5
    assert allowed(5e-5, 1e-5, iter([1e-5])) == ROOM * 1e-5
    assert allowed(5e-5, 1e-5, iter([1e-7])) == 1e-5
    # By chance one nudge may show nothing; the next one does.
    assert allowed(5e-5, 1e-5, iter([0.0, 1e-5])) == ROOM * 1e-5
    assert allowed(0.3, 1e-5, iter([1.0]), most=0.25) == 1e-5
    assert allowed(0.2, 1e-5, iter([1.0]), most=0.25) == 0.25
    assert allowed(0.2, 1e-5, iter([float("inf")])) == 1e-5


def test_the_reference_is_computed_again_only_where_an_error_needs_it() -> None:
    asked = []

    def expected(nudge: int) -> dict[str, np.ndarray]:
        asked.append(nudge)
        return {"a": np.array([1 + 1e-6])}

    responses = Responses(expected, {"a": np.ones(1)})
    allowed(5e-6, 1e-5, responses.of("a"))
    assert asked == []
    allowed(0.5, 1e-5, responses.of("a"))  # far too large for rounding
    assert asked == [0]
    allowed(5e-5, 1e-5, responses.of("a"))
    assert asked == list(range(NUDGES))


def test_a_wider_tolerance_is_recorded_beside_the_usual_one() -> None:
    certificate = Certificate(TOLERANCES["float32", "highest"], 1)
    one = np.ones(4)
    certificate.compare("outputs", one * (1 + 5e-6), one, "near")
    certificate.compare("outputs", one * (1 + 5e-5), one, "far", None, [1e-5])
    assert certificate.broken == []
    finding = certificate.findings["outputs"]
    assert (finding.where, finding.usual) == ("far", USUAL)
    values = finding.values()
    assert values["usual_tolerance"] == USUAL
    assert values["tolerance"] == pytest.approx(ROOM * 1e-5)
    certificate.compare("outputs", one * (1 + 2e-5), one, "broken", None, [1e-7])
    assert certificate.broken == ["outputs"]
    assert certificate.findings["outputs"].where == "broken"


# --- a cell in which rounding grows --------------------------------------------------


@needs_torch
@pytest.mark.slow
def test_a_right_layer_norm_lstm_is_certified_and_the_table_says_what_is_allowed() -> (
    None
):
    import torch

    torch.set_num_threads(1)
    subject = subject_of(registry_of("norm_lstm.py"), "torch-norm", "norm-lstm")
    found = certificate_of(subject, [ILL])
    assert found.broken == []
    wider = {check for check, f in found.findings.items() if f.usual is not None}
    assert {"grad w_hh", "grad inputs"} <= wider
    assert "outputs" not in wider
    readings = tuple(found.readings())
    record = TrialRecord("t", subject.trial, "ok", None, found.facts(), readings)
    text = certificate_text(record)
    assert text.count("more than 1.0e-05 is allowed here") == len(wider)
    checks = certificate_json(record)["checks"]
    assert checks["grad w_hh"]["usual_tolerance"] == USUAL
    assert checks["grad w_hh"]["tolerance"] > USUAL
    assert "usual_tolerance" not in checks["outputs"]


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "broken"),
    [
        ("no-epsilon", "outputs"),
        ("forget-negated", "outputs"),
        ("half-gradient", "grad b"),
        ("detached", "grad w_hh"),
    ],
)
def test_a_mistake_shows_where_rounding_is_allowed_for(
    mistake: str, broken: str
) -> None:
    registry = registry_of("norm_lstm.py")
    subject = subject_of(registry, f"torch-norm-{mistake}", "norm-lstm")
    found = Certificate(TOLERANCES["float32", "highest"], 1)
    PairComparison(found, NetworkPair(subject, ILL), trains=True).run(1)
    assert broken in found.broken


@needs_torch
@pytest.mark.slow
def test_updates_that_rounding_changes_are_left_out_and_the_certificate_says_so() -> (
    None
):
    subject = subject_of(registry_of("norm_lstm.py"), "torch-norm", "norm-lstm")
    found = Certificate(TOLERANCES["float32", "highest"], 0)
    compare_optimizers(found, subject, ["rmsprop"])
    assert found.broken == []
    assert found.remarks
    for remark in found.remarks:
        assert remark.startswith("rmsprop, ")
        assert "are compared, because rounding the weights alone changes" in remark
    readings = tuple(found.readings())
    record = TrialRecord("t", subject.trial, "ok", None, found.facts(), readings)
    assert f"note: {found.remarks[0]}" in certificate_text(record)
    assert certificate_json(record)["remarks"] == found.remarks


# --- a cell whose state has a range --------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use short shapes, one with several layers and one padded, and no optimisers."""
    few = tuple(PAIRWISE[i] for i in (2, 6))
    for module in (certify, differences):
        monkeypatch.setattr(module, "PAIRWISE", few)
    monkeypatch.setattr(certify, "compare_optimizers", lambda *_: None)


@needs_torch
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("cell", ["log-min-gru", "log-min-gru-bare"])
def test_a_cell_that_needs_a_positive_state_is_given_one(cell: str) -> None:
    registry = registry_of("min_gru.py", "log_min_gru.py")
    found = measure_parity(registry, Trial("parity", "torch-log", cell))
    assert found.readings[0].values["broken"] == 0
    checks = {reading.split for reading in found.readings}
    assert {"grad initial state", "differences state", "state passed on"} <= checks


@needs_torch
@pytest.mark.usefixtures("short")
def test_without_a_declared_range_the_same_layer_answers_nan() -> None:
    registry = registry_of("min_gru.py", "log_min_gru.py")
    with pytest.raises(PluginError, match="logarithm below 0"):
        measure_parity(registry, Trial("parity", "torch-log", "log-min-gru-undeclared"))


def test_a_state_is_drawn_from_what_the_cell_declares() -> None:
    registry = registry_of()
    registry.cells["lstm"] = replace(registry.cell("lstm"), states={"c": (2.0, 3.0)})
    pair = NetworkPair(subject_of(registry, "numpy-reference", "lstm"), ILL)
    h, c = pair.state(np.random.default_rng(0))
    assert (np.abs(h).max() <= 0.5, c.min() >= 2, c.max() <= 3) == (True, True, True)
    assert not pair.subject.takes_zeros
    registry.cells["lstm"] = replace(registry.cell("lstm"), states={"d": (2.0, 3.0)})
    with pytest.raises(PluginError, match="states names 'd'; its state has h, c"):
        pair.state(np.random.default_rng(0))


@pytest.mark.parametrize(
    "given", [(1.0, 0.0), (0.0, float("inf")), (0.0,), 1.0, "ab", ("a", "b")]
)
def test_a_range_of_states_that_is_none_is_refused(given: object) -> None:
    with pytest.raises(
        ValueError, match="states must be two finite numbers by state part"
    ):
        declare_cell("a", factory="a:b", states={"h": given})  # type: ignore[dict-item]
