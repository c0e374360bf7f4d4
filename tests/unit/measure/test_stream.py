"""`stream` passes the state on, keeps each latency and has its outputs checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.contract import Handle, Optimizer
from harness.errors import RefusedError
from harness.measure.problem import Measurement, Problem
from harness.measure.speed.meter import SpeedMeter
from harness.runner.given import own
from harness.trial import SpeedSettings, Trial
from tests.helpers import REGISTRY

TRIAL = Trial(
    "speed",
    "numpy-reference",
    "lstm",
    batch=32,
    time_steps=7,
    input_size=3,
    hidden_size=8,
    num_layers=2,
    seed=0,
    data_seed=0,
    optimizer=Optimizer(learning_rate=1e-3, epsilon=1e-3, clip_norm=0.01),
    settings=SpeedSettings(("stream",), readings=2),
)
TASK = replace(
    TRIAL, task="copy-memory", length=5, time_steps=None, input_size=None, num_layers=1
)


def measure(problem: Problem, turns: int = 4) -> Measurement:
    meter = SpeedMeter(problem)
    meter.warm_up()
    for _ in range(turns):
        assert len(meter.turn("stream")) == 2
    return meter.finish()


def values(found: Measurement) -> dict[str, Any]:
    return {n: v for r in found.readings for n, v in r.values.items() if r.x is None}


@pytest.mark.parametrize(
    "implementation",
    ["numpy-reference", "torch-native", "jax-scan", "onnxruntime"],
)
@pytest.mark.parametrize("trial", [TRIAL, TASK], ids=["reals", "tokens, every"])
def test_a_stream_has_the_outputs_of_the_whole_sequence(
    implementation: str, trial: Trial
) -> None:
    if (reason := REGISTRY.unavailable(implementation)) is not None:
        pytest.skip(reason)
    found = values(
        measure(Problem(REGISTRY, replace(trial, implementation=implementation)))
    )
    assert found["ok"] == 1
    assert 0 < found["error"] < 1e-5


def test_a_call_is_one_time_step_of_one_sequence_whatever_the_batch() -> None:
    found = measure(Problem(REGISTRY, TRIAL))
    known = values(found)
    assert known["tokens_per_s"] == pytest.approx(1 / known["time_s"])
    # 2 · 4 · H · (I + H) + 2 · 4 · H · 2H, the layers' gates, and the readout.
    cell = Problem(REGISTRY, TRIAL).cell
    assert known["flops"] == cell.flops(3, 8) + cell.flops(8, 8) + 2 * 8


def test_every_latency_is_kept_except_those_of_dropped_readings() -> None:
    found = measure(Problem(REGISTRY, TRIAL), turns=4)
    known = values(found)
    (kept,) = [r.values["latency_s"] for r in found.readings if "latency_s" in r.values]
    assert len(kept) == min(4000, 4 * 2 * known["loops"])
    samples = [s for r in found.readings for s in r.values.get("sample_s", ())]
    # A reading is the mean of its latencies and of reading the clock.
    assert np.mean(kept) <= np.mean(samples) < np.mean(kept) + 20e-6
    low, middle, high = (known[f"latency_p{p}_s"] for p in (50, 95, 99))
    assert low <= middle <= high
    assert low == pytest.approx(np.percentile(kept, 50))


class Forgetful:
    """A network that drops the state, or keeps that of the first turn."""

    def __init__(self, network: Any, mistake: str) -> None:
        self.network, self.mistake = network, mistake
        self.kept: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def step(self, x: Any, state: Any) -> Any:
        if self.mistake == "forgets":
            state = tuple(np.zeros_like(part) for part in state)
        if self.mistake == "answers late":
            return Handle(lambda: None, lambda: self.late(x, state))
        done = self.network.step(x, state)
        if self.mistake == "keeps":
            self.kept = self.kept or done.read()
            return Handle(lambda: None, lambda: self.kept)
        return done

    def late(self, x: Any, state: Any) -> Any:
        return self.network.step(x, state).read()


@pytest.mark.parametrize(
    ("mistake", "ok"), [("none", 1), ("answers late", 1), ("forgets", 0), ("keeps", 0)]
)
def test_a_stream_that_loses_its_state_is_not_certified(mistake: str, ok: int) -> None:
    problem = Problem(REGISTRY, TRIAL)
    network = Forgetful(own(problem.network()), mistake)
    problem.network = lambda: network  # type: ignore[method-assign,assignment]
    assert values(measure(problem))["ok"] == ok


def test_a_phase_that_an_implementation_lacks_is_refused() -> None:
    if REGISTRY.unavailable("onnxruntime"):
        pytest.skip("no onnxruntime")
    settings = SpeedSettings(("train_step",), readings=1)
    trial = replace(TRIAL, implementation="onnxruntime", settings=settings)
    with pytest.raises(RefusedError, match="onnxruntime does not train"):
        SpeedMeter(Problem(REGISTRY, trial))
