"""A timing whose gradients become subnormal says so, and by default none does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.contract import Readout
from harness.loading import load_probe
from harness.measure.arithmetic import flops_of_call
from harness.measure.problem import Problem
from harness.measure.speed.subnormals import Subnormals, share_of_gradients
from harness.run.plan.expand import speed_trials
from harness.runner.stopwatch import Stopwatch
from harness.suite import SpeedSection
from harness.trial import SpeedSettings, Trial
from tests.helpers import REGISTRY, needs_torch

TRIAL = Trial(
    "speed",
    "numpy-reference",
    "rnn",
    batch=32,
    time_steps=400,
    input_size=2,
    hidden_size=8,
    seed=0,
    data_seed=0,
    settings=SpeedSettings(("forward", "loss_and_gradients", "train_step")),
)
EVERY = replace(TRIAL, readout="every")


class Flushing:
    """A stopwatch at a library that sets subnormal numbers to zero, or does not."""

    def __init__(self, flushes: bool | None) -> None:
        self.flushes = flushes

    def flushes_subnormals(self) -> bool | None:
        return self.flushes


def test_subnormal_gradients_are_counted_and_zeros_are_not() -> None:
    problem = Problem(REGISTRY, TRIAL)
    share = share_of_gradients(problem)
    assert 0.05 < share < 0.95
    oracle = problem.oracle()
    oracle.load_weights(problem.initial_weights())
    batch = problem.batch("train", 0)
    (gradients,) = oracle.state_gradients(oracle.place(batch), None)
    with np.errstate(under="ignore"):
        rounded = np.abs(gradients[:, :, :8].astype(np.float32))
    below = (rounded > 0) & (rounded.view(np.uint32) < 2**23)
    assert share == pytest.approx(below.mean(), abs=0.002)


@pytest.mark.parametrize(
    "changes",
    [
        {"readout": "every"},
        {"time_steps": 50},
        {"dtype": "float64"},
    ],
    ids=str,
)
def test_none_are_counted_where_there_are_none(changes: dict[str, Any]) -> None:
    assert share_of_gradients(Problem(REGISTRY, replace(TRIAL, **changes))) == 0


def test_a_long_task_with_an_answer_at_the_end_is_counted_too() -> None:
    sizes = {"length": 300, "time_steps": None, "input_size": None}
    task = replace(TRIAL, task="adding", init="native-torch", **sizes)
    assert share_of_gradients(Problem(REGISTRY, task)) > 0.05


@pytest.mark.parametrize("flushes", [True, False, None])
def test_phases_with_gradients_are_doubted_and_say_what_the_library_does(
    flushes: bool | None,
) -> None:
    probe: Any = Flushing(flushes)
    phases = ("forward", "loss_and_gradients", "train_step")
    found = Subnormals.of(Problem(REGISTRY, TRIAL), probe, phases)
    assert found.flushes is flushes
    assert list(found.doubts("forward")) == []
    for phase in phases[1:]:
        (doubt,) = found.doubts(phase)
        assert doubt.kind == "subnormal"
        assert 'readout = "every"' in doubt.advice
    shown = [(r.split, r.values) for r in found.readings(phases)]
    assert shown == [(p, {"subnormal_share": found.share}) for p in phases[1:]]
    inference = Subnormals.of(Problem(REGISTRY, TRIAL), probe, ("forward", "stream"))
    assert inference.share is None, "nothing with gradients is timed"
    assert list(inference.readings(("forward", "stream"))) == []
    steady = Subnormals.of(Problem(REGISTRY, EVERY), probe, phases)
    assert [*steady.doubts("train_step")] == []


class Untried:
    """A plugin's probe, which cannot try what its library does."""

    def timer(self) -> None:
        return None


@pytest.mark.parametrize("probe", [None, Untried()])
def test_the_mode_is_unknown_where_a_probe_cannot_try_it(probe: Any) -> None:
    network: Any = None
    assert Stopwatch(network, (), probe).flushes_subnormals() is None


def test_numpy_keeps_subnormal_numbers() -> None:
    probe: Any = load_probe(REGISTRY, "numpy", "cpu")
    assert probe.flushes_subnormals() is False


@needs_torch
def test_torch_is_tried_and_not_asked() -> None:
    import torch

    probe: Any = load_probe(REGISTRY, "torch", "cpu")
    assert probe.flushes_subnormals() is False
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such mode")
    try:
        assert probe.flushes_subnormals() is True
    finally:
        torch.set_flush_denormal(False)
    assert probe.flushes_subnormals() is False


def section(**changes: Any) -> SpeedSection:
    sizes = {"batch": 4, "time_steps": 6, "input_size": 2, "hidden_size": 3}
    given = {"cells": ["gru"], "implementations": ["numpy-reference"]}
    return SpeedSection(**{**given, "shapes": [sizes], **changes})


def test_a_random_batch_is_scored_at_every_step_unless_the_last_is_asked_for() -> None:
    (trial,) = speed_trials(section(), REGISTRY, "cpu")
    problem = Problem(REGISTRY, trial)
    assert problem.spec.readout is Readout.EVERY
    batch = problem.batch("train", 0)
    assert batch.targets.shape == (4, 6, 1)
    assert batch.scored.all()
    (last,) = speed_trials(section(readout="last"), REGISTRY, "cpu")
    asked = Problem(REGISTRY, last)
    assert asked.spec.readout is Readout.LAST
    np.testing.assert_array_equal(batch.inputs, asked.batch("train", 0).inputs)
    # The readout has 2 * hidden * 1 operations at each of the five other steps.
    more = flops_of_call(problem, "forward", 4) - flops_of_call(asked, "forward", 4)
    assert more == 4 * 5 * 2 * 3
    assert more * 3 == flops_of_call(problem, "train_step", 4) - flops_of_call(
        asked, "train_step", 4
    )


def test_the_last_step_has_the_id_of_earlier_versions_and_every_step_another() -> None:
    """Stored timings were of the last step, and their trials do not name it."""
    stored = replace(TRIAL, readout="every").to_json()
    del stored["readout"]
    assert Trial.from_json(stored) == TRIAL
    assert TRIAL.identity({}) == "speed-rnn-numpy-reference-32x400x8-s0-d892ca844b5b"
    assert EVERY.identity({}) != TRIAL.identity({})
