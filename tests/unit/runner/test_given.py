"""What a network is given stays as it is, and writing into it is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.errors import PluginError
from harness.measure.certificate.certify import measure_parity
from harness.measure.learning.training import Observer, measure_learning
from harness.measure.problem import Problem
from harness.registry import Registry
from harness.runner.given import Given
from harness.runner.runner import InProcess
from harness.trial import LearningSettings, Trial
from tests import helpers

REGISTRY = Registry.discover([helpers.PLUGINS / "writes.py"])


def certificate(name: str) -> tuple[dict[str, Any], str | None]:
    """Return the broken checks of an implementation, and what it wrote into."""
    found = measure_parity(REGISTRY, Trial("parity", name, "gru"))
    errors = {r.split: r.values for r in found.readings if "error" in r.values}
    broken = {n: v for n, v in errors.items() if v["error"] > v["tolerance"]}
    return broken, found.facts["where"].get("given arrays")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "written", "also"),
    [
        ("zeroes-inputs", "`place` wrote into batch.inputs", "outputs"),
        pytest.param(
            *("zeroes-targets", "`place` wrote into batch.targets", "loss"),
            marks=pytest.mark.long,
        ),
        ("doubles-cotangents", "`vjp` wrote into d_outputs", "grad w_hh"),
        pytest.param(
            *("scales-weights", "`load_weights` wrote into weights['readout.w']", None),
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_network_that_writes_into_what_it_is_given_is_not_certified(
    name: str, written: str, also: str | None
) -> None:
    broken, where = certificate(name)
    assert "given arrays" in broken
    assert where == f"{written}; copy it first"
    assert also is None or also in broken


def test_only_the_writing_is_wrong_with_a_network_that_computes_what_is_right() -> None:
    broken, where = certificate("returns-the-given-state")
    assert list(broken) == ["given arrays"]
    assert where is not None
    assert where.startswith("`forward` wrote into state[0]")
    assert certificate("leaves-all-alone") == ({}, None)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("zeroes-targets", "`place` wrote into batch.targets"),
        ("zeroes-targets-later", "`train_steps` wrote into batch.targets"),
    ],
)
def test_learning_ends_where_a_network_writes_into_its_batch(
    name: str, written: str
) -> None:
    trial = replace(
        helpers.LEARNING,
        implementation=name,
        cell="gru",
        settings=LearningSettings(60, evaluate_every=20, evaluate_sequences=20),
    )
    with pytest.raises(PluginError, match=f"{written}.*must copy what it is given"):
        measure_learning(Problem(REGISTRY, trial), Observer(lambda _: None))


def test_a_batch_of_a_task_stays_what_it_was_when_it_was_drawn() -> None:
    problem = Problem(helpers.REGISTRY, helpers.LEARNING)
    batch = problem.batch("train", 0)
    for array in vars(batch).values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    runner = InProcess(helpers.REGISTRY)
    network: Any = runner.network("numpy-reference", problem.spec, "cpu")
    network.load_weights(problem.initial_weights())
    placed = network.place(batch)
    assert all(array.flags.writeable for array in placed.given.copies.values())


def test_writing_is_reported_once() -> None:
    given = Given({"h": np.zeros(3), "nan": np.full(2, np.nan)}, "state['{}']")
    assert given.written() == []
    given.copies["h"][1] = 1
    assert given.written() == ["state['h']"]
    assert given.written() == []
    given.copies["h"][1] = 0
    assert given.written() == ["state['h']"]
