"""The trajectories of the optimisers cover the cases that they are made for."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from harness.contract import Optimizer
from harness.measure.certificate.network_pair import NetworkPair
from harness.measure.certificate.record import TOLERANCES, Certificate
from harness.measure.certificate.trajectories import (
    NAMES,
    Name,
    compare_optimizers,
    steady_weights,
    trajectories,
    typical_norm,
)
from harness.registry import Registry
from tests import helpers
from tests.helpers import REGISTRY, needs_torch
from tests.planted import subject_of

CELLS = REGISTRY.implementation("numpy-reference").cells
USED = {"adam": {"beta1", "beta2"}, "rmsprop": {"decay"}, "sgd": {"momentum"}}


@pytest.mark.parametrize("cell", CELLS)
def test_all_updates_are_clipped_then_none_then_about_half(cell: str) -> None:
    subject = subject_of(REGISTRY, "numpy-reference", cell)
    typical = typical_norm(subject)
    for name in NAMES:
        shares = []
        for trajectory in trajectories(name, typical):
            pair = NetworkPair(subject, trajectory.shape, trajectory.optimizer)
            oracle = pair.oracle
            oracle.load_weights(steady_weights(pair))
            placed = [oracle.place(batch) for batch in trajectory.batches()]
            done = oracle.train_steps(placed).read()
            clip_norm = trajectory.optimizer.clip_norm or np.inf
            shares.append(np.mean(done.gradient_norms > clip_norm))
        every, none, half = shares
        assert (every, none) == (1, 0)
        assert 0.2 <= half <= 0.8


@pytest.mark.parametrize("name", NAMES)
def test_no_constant_is_the_same_in_every_trajectory_or_a_default(
    name: Name,
) -> None:
    steady, *others = (asdict(t.optimizer) for t in trajectories(name, 0.5))
    used = {"learning_rate", "clip_norm"} | USED[name]
    if name != "sgd":
        used |= {"epsilon"}
    for other in others:
        for constant in used:
            assert other[constant] not in (
                steady[constant],
                getattr(Optimizer(), constant),
            )


@needs_torch
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mistake", ["moments-not-loaded", "moments-reset"])
def test_moments_that_are_stored_and_not_used_are_noticed(
    mistake: str, name: Name
) -> None:
    registry = Registry.discover([helpers.PLUGINS / "sabotage_optimizers.py"])
    assert registry.problems == []
    subject = subject_of(registry, f"torch-{mistake}", "rnn")
    found = Certificate(TOLERANCES["float32", "highest"], 0)
    compare_optimizers(found, subject, [name])
    assert set(found.broken) == {f"{name} updates", f"{name} moments"}
    assert "optimiser state comes back" in found.findings
    assert "every update clipped" not in found.findings[f"{name} updates"].where
