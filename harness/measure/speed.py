"""How fast is it? Phases timed in turns, and what the timed calls computed.

A turn is one dropped reading and a few kept ones. Whoever holds several meters gives
them turns in random order, so that a drift of the machine hits all alike. After every
turn what its calls computed is read back and held against the float64 reference. Turns
alternate between two sets of weights: a call that returned what it computed before
would be found out.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from harness.contract import Array, Quantity, TrainableNetwork, Weights
from harness.measure.certificate import TOLERANCES, relative_error
from harness.measure.problem import Measurement, Problem
from harness.measure.timing import (
    loops_for,
    median_interval,
    no_garbage_collection,
    reading_s,
    warm_up,
)
from harness.store import Reading

PHASES = ("forward", "loss_and_gradients", "train_step")

DRAWS = 2
"""Sets of weights that turns alternate between."""

FLOPS_PER_FORWARD = {"forward": 1, "loss_and_gradients": 3, "train_step": 3}
"""A backward pass is counted as two forward passes; the optimiser's step as none."""

QUANTITIES = {
    "time_s": Quantity("s", "lower"),
    "time_low_s": Quantity("s", "lower"),
    "time_high_s": Quantity("s", "lower"),
    "sample_s": Quantity("s", "lower"),
    "first_call_s": Quantity("s", "lower"),
    "tokens_per_s": Quantity("tokens/s", "higher"),
    "tokens_low_per_s": Quantity("tokens/s", "higher"),
    "tokens_high_per_s": Quantity("tokens/s", "higher"),
    "flop_per_s": Quantity("FLOP/s", "higher"),
    "flops": Quantity("FLOP", "neither"),
    "loops": Quantity("calls", "neither"),
    "shaky": Quantity("yes or no", "lower"),
    "ok": Quantity("yes or no", "higher"),
    "error": Quantity("relative error", "lower"),
}


@dataclass
class _Phase:
    """One phase: the call under the clock, and what it must have computed.

    Attributes:
        call: Queues the work and waits for it; keeps its handle for `found`.
        found: Reads back what the calls since the last `load_weights` computed.
        expected: Makes the same with the reference, given the number of calls.
    """

    call: Callable[[], None]
    found: Callable[[], Weights]
    expected: Callable[[int], Weights]
    loops: int = 1
    first_call_s: float = 0.0
    stationary: bool = True
    references: list[Weights] = field(default_factory=list)
    turns: list[list[float]] = field(default_factory=list)


class SpeedMeter:
    """The phases of one trial, timed a turn at a time.

    Settings: `phases`; `readings`, kept in a turn beside the first, which is dropped.

    Raises:
        RefusedError: If the implementation does not offer what the trial asks.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._readings = int(problem.trial.settings["readings"])
        self._weights = [problem.initial_weights(draw) for draw in range(DRAWS)]
        size = problem.trial.batch
        assert size is not None
        batch = problem.batch("train", 0, size)
        self._network = problem.network()
        self._oracle = problem.oracle()
        self._placed = self._network.place(batch)
        self._reference = self._oracle.place(batch)
        self._done: Any = None
        self._worst_error = 0.0
        asked = [p for p in PHASES if p in problem.trial.settings["phases"]]
        make = {
            "forward": self._forward,
            "loss_and_gradients": self._loss_and_gradients,
            "train_step": self._train_step,
        }
        self._phases = {
            name: make[name]() for name in asked if problem.trains or name == "forward"
        }

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases that are measured."""
        return tuple(self._phases)

    # --- the phases ------------------------------------------------------------------

    def _forward(self) -> _Phase:
        def call() -> None:
            self._done = self._network.forward(self._placed)
            self._done.wait()

        def expected(_: int) -> Weights:
            return {"outputs": self._oracle.forward(self._reference).read().outputs}

        return _Phase(call, lambda: {"outputs": self._done.read().outputs}, expected)

    def _loss_and_gradients(self) -> _Phase:
        network = cast(TrainableNetwork, self._network)

        def call() -> None:
            self._done = network.loss_and_gradients(self._placed)
            self._done.wait()

        def tensors(done: Any) -> Weights:
            return {"loss": np.array(done.loss), **done.gradients}

        return _Phase(
            call,
            lambda: tensors(self._done.read()),
            lambda _: tensors(self._oracle.loss_and_gradients(self._reference).read()),
        )

    def _train_step(self) -> _Phase:
        network = cast(TrainableNetwork, self._network)

        def call() -> None:
            self._done = network.train_steps([self._placed])
            self._done.wait()

        def found() -> Weights:
            return {"losses": self._done.read().losses, **network.weights()}

        def expected(calls: int) -> Weights:
            done = self._oracle.train_steps([self._reference] * calls).read()
            return {"losses": done.losses[-1:], **self._oracle.weights()}

        return _Phase(call, found, expected)

    # --- the clock -------------------------------------------------------------------

    def warm_up(self) -> None:
        """Call every phase until it is stationary, and learn what it must compute."""
        for phase in self._phases.values():
            self._network.load_weights(self._weights[0])
            gc.collect()
            warm = warm_up(phase.call)
            phase.first_call_s, phase.stationary = warm.first_call_s, warm.stationary
            phase.loops = loops_for(warm.call_s)
            for weights in self._weights:
                self._oracle.load_weights(self._rounded(weights))
                expected = phase.expected(phase.loops * (1 + self._readings))
                phase.references.append(expected)

    def _rounded(self, weights: Weights) -> Weights:
        dtype = self._problem.spec.dtype
        return {name: tensor.astype(dtype) for name, tensor in weights.items()}

    def turn(self, name: str) -> list[float]:
        """Take one turn of a phase; return its kept readings in seconds."""
        phase = self._phases[name]
        draw = len(phase.turns) % DRAWS
        self._network.load_weights(self._weights[draw])
        with no_garbage_collection():
            readings = [
                reading_s(phase.call, phase.loops) for _ in range(1 + self._readings)
            ][1:]
        phase.turns.append(readings)
        self._check(phase.found(), phase.references[draw])
        return readings

    def _check(self, found: Weights, reference: Weights) -> None:
        for name, expected in reference.items():
            error = _error(found.get(name), expected)
            self._worst_error = max(self._worst_error, error)

    # --- the result ------------------------------------------------------------------

    def finish(self) -> Measurement:
        """Return every phase's median, interval, rates and raw samples."""
        trial = self._problem.trial
        tolerance = TOLERANCES[trial.dtype, trial.precision].certified
        ok = self._worst_error <= tolerance
        readings = [
            Reading("readback", {"ok": int(ok), "error": min(self._worst_error, 1e300)})
        ]
        for name, phase in self._phases.items():
            readings += self._phase_readings(name, phase)
        return Measurement(
            readings=readings,
            facts={
                "kernel": self._network.kernel(),
                "parameters": self._problem.parameters(),
                "time_steps": self._problem.time_steps,
            },
            quantities=QUANTITIES,
        )

    def _phase_readings(self, name: str, phase: _Phase) -> list[Reading]:
        size = self._problem.trial.batch
        assert size is not None
        time = median_interval(phase.turns)
        tokens = size * self._problem.time_steps
        flops = self._problem.forward_flops(size) * FLOPS_PER_FORWARD[name]
        samples = [sample for turn in phase.turns for sample in turn]
        return [
            Reading(
                name,
                {
                    "time_s": time.median,
                    "time_low_s": time.low,
                    "time_high_s": time.high,
                    "first_call_s": phase.first_call_s,
                    "tokens_per_s": tokens / time.median,
                    "tokens_low_per_s": tokens / time.high,
                    "tokens_high_per_s": tokens / time.low,
                    "flop_per_s": flops / time.median,
                    "flops": flops,
                    "loops": phase.loops,
                    "shaky": int(time.shaky or not phase.stationary),
                },
            ),
            Reading(name, {"sample_s": samples}, list(range(len(samples))), "readings"),
        ]


def _error(found: Array | None, expected: Array) -> float:
    if found is None:
        return float("inf")
    error = relative_error(np.asarray(found), np.asarray(expected, np.float64))
    return 0.0 if error is None else error
