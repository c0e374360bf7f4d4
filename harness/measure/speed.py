"""How fast is it? Phases timed in turns, and what the timed calls computed.

A turn is one dropped reading and a few kept ones. Whoever holds several meters gives
them turns in random order, so that a drift of the machine hits all alike.

No call is asked what another was asked. Every turn of a phase has weights of its own,
and every call of a turn a batch of its own, placed before the clock starts; only where
a turn's batches exceed `MOST_BYTES` does it come back to them, after `FEWEST_BATCHES`
at the soonest. So an answer kept from before is the answer to another question. What
the last call of a turn computed, and of training what all its calls together made of
the weights, is read back; of `DRAWS` turns, picked by chance after they ended, it is
held against the float64 reference on the same weights and batches.

Reading it may take what copying it takes and no more than a call: an answer that is
computed only when it is read was not computed under the clock.

A right read-back says that those calls computed all they had to, at the shape timed.
It does not say so of calls in the middle of a turn that left no trace, of turns that
were not picked (a mistake in half of them escapes once in eight), or of a plugin that
behaves differently because it knows that it is timed.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from harness.contract import Batch, Placed, Quantity, TrainableNetwork, Weights
from harness.measure import readback
from harness.measure.certificate import TOLERANCES
from harness.measure.problem import Measurement, Problem
from harness.measure.readback import ReadBack, Reference
from harness.measure.timing import (
    loops_for,
    median_interval,
    no_garbage_collection,
    reading_s,
    warm_up,
)
from harness.store import Reading

PHASES = ("forward", "loss_and_gradients", "train_step")

DRAWS = 3
"""Turns of a phase, each with weights drawn for it, that are held against the
reference."""

MOST_BYTES = 64 * 2**20
"""Inputs of all batches that are placed at once."""

FEWEST_BATCHES = 8

COPY_BYTES_PER_S = 1e9
COPY_S = 2e-4
"""What reading an answer may take beside a call: its bytes, and each of its tensors."""

MOST_LOOPS = 250
"""A call that is faster than `READING_S` over this computes nothing, and the reference
would have to take as many updates as a turn has calls."""

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
    **readback.QUANTITIES,
}


@dataclass(frozen=True)
class _Turn:
    """One turn: its weights, the batches of its calls in order, what it computed."""

    draw: int
    batches: tuple[int, ...]
    found: Weights


@dataclass
class _Phase:
    """One phase: the call under the clock, and what it must have computed.

    Attributes:
        call: Queues the work on a placed batch and waits for it; keeps its handle.
        found: Reads back what the calls since the last `load_weights` computed.
        expected: Makes the same with the reference, given the batch of every call.
        picked: Turns to be held against the reference.
        late_s: Least time of reading an answer, beside what copying it takes.
    """

    call: Callable[[Placed], None]
    found: Callable[[], Weights]
    expected: Callable[[Sequence[int]], Weights]
    loops: int = 1
    first_call_s: float = 0.0
    stationary: bool = True
    picked: list[_Turn] = field(default_factory=list)
    late_s: float = math.inf
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
        self._network = problem.network()
        self._reference = Reference(problem)
        self._placed: list[Placed] = []
        self._place(FEWEST_BATCHES)
        self._chance = np.random.default_rng()  # what is picked cannot be known before
        self._done: Any = None
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
        def call(placed: Placed) -> None:
            self._done = self._network.forward(placed)
            self._done.wait()

        return _Phase(
            call,
            lambda: {"outputs": self._done.read().outputs},
            lambda calls: {"outputs": self._reference.outputs(self._batch(calls[-1]))},
        )

    def _loss_and_gradients(self) -> _Phase:
        network = cast(TrainableNetwork, self._network)

        def call(placed: Placed) -> None:
            self._done = network.loss_and_gradients(placed)
            self._done.wait()

        def found() -> Weights:
            done = self._done.read()
            return {"loss": np.array(done.loss), **done.gradients}

        def expected(calls: Sequence[int]) -> Weights:
            return self._reference.loss_and_gradients(self._batch(calls[-1]))

        return _Phase(call, found, expected)

    def _train_step(self) -> _Phase:
        network = cast(TrainableNetwork, self._network)

        def call(placed: Placed) -> None:
            self._done = network.train_steps([placed])
            self._done.wait()

        def found() -> Weights:
            return {"losses": self._done.read().losses, **network.weights()}

        def expected(calls: Sequence[int]) -> Weights:
            return self._reference.train(self._batch(index) for index in calls)

        return _Phase(call, found, expected)

    # --- the batches -----------------------------------------------------------------

    def _batch(self, index: int) -> Batch:
        size = self._problem.trial.batch
        assert size is not None
        return self._problem.batch("train", index, size)

    def _place(self, count: int) -> None:
        """Place batches until there are `count`, or as many as may be held at once."""
        while len(self._placed) < count:
            batch = self._batch(len(self._placed))
            most = max(FEWEST_BATCHES, MOST_BYTES // batch.inputs.nbytes)
            if len(self._placed) >= most:
                return
            self._placed.append(self._network.place(batch))

    def _calls(self, phase: _Phase, batches: Sequence[int]) -> Callable[[], None]:
        """Return a call of a phase that takes one batch after the other."""
        placed = iter([self._placed[index] for index in batches])
        call = phase.call
        return lambda: call(next(placed))

    def _in_order(self, count: int) -> tuple[int, ...]:
        """Return so many batches in a row, from anywhere in the ring."""
        ring = len(self._placed)
        start = int(self._chance.integers(ring))
        return tuple((start + i) % ring for i in range(count))

    # --- the clock -------------------------------------------------------------------

    def warm_up(self) -> None:
        """Call every phase until it is stationary, and place a turn's batches."""
        for phase in self._phases.values():
            self._load(0)
            gc.collect()
            ring = itertools.cycle(self._placed[:FEWEST_BATCHES])
            call = phase.call
            warm = warm_up(lambda call=call, ring=ring: call(next(ring)))  # type: ignore[misc]
            phase.first_call_s, phase.stationary = warm.first_call_s, warm.stationary
            phase.loops = min(loops_for(self._fresh_call_s(phase)), MOST_LOOPS)
            self._place(phase.loops * (1 + self._readings))

    def _fresh_call_s(self, phase: _Phase) -> float:
        """Return the seconds of a call when weights and batch are ones not yet seen."""
        self._load(1)
        call = self._calls(phase, range(FEWEST_BATCHES))
        return min(reading_s(call, 1) for _ in range(FEWEST_BATCHES))

    def _load(self, draw: int) -> None:
        self._network.load_weights(self._problem.initial_weights(draw))

    def turn(self, name: str) -> list[float]:
        """Take one turn of a phase; return its kept readings in seconds."""
        phase = self._phases[name]
        draw = 2 + len(phase.turns)  # two were used to warm up
        batches = self._in_order(phase.loops * (1 + self._readings))
        call = self._calls(phase, batches)
        self._load(draw)
        with no_garbage_collection():
            readings = [
                reading_s(call, phase.loops) for _ in range(1 + self._readings)
            ][1:]
        start_s = time.perf_counter()
        # Copied: a network may answer with the very memory that it computes in.
        computed = {n: np.array(tensor) for n, tensor in phase.found().items()}
        late_s = time.perf_counter() - start_s - _copy_s(computed)
        phase.late_s = min(phase.late_s, late_s)
        self._pick(phase, _Turn(draw, batches, computed))
        phase.turns.append(readings)
        return readings

    def _pick(self, phase: _Phase, turn: _Turn) -> None:
        """Keep `DRAWS` turns of those seen so far, each with the same probability."""
        if len(phase.picked) < DRAWS:
            phase.picked.append(turn)
        elif (place := int(self._chance.integers(1 + len(phase.turns)))) < DRAWS:
            phase.picked[place] = turn

    def _read_back(self) -> ReadBack:
        trial = self._problem.trial
        tolerance = TOLERANCES[trial.dtype, trial.precision].certified
        found = ReadBack(tolerance)
        for name, phase in self._phases.items():
            for turn in phase.picked:
                self._compare(found, name, turn, tolerance)
            if phase.late_s > (call_s := median_interval(phase.turns).median):
                found.refuse(
                    f"{name}: computed when it was read, {phase.late_s:.2g} s after a "
                    f"call of {call_s:.2g} s"
                )
        return found

    def _compare(
        self, found: ReadBack, name: str, turn: _Turn, tolerance: float
    ) -> None:
        weights = self._problem.initial_weights(turn.draw)
        expected = self._phases[name].expected

        def nudged(nudge: int) -> Weights:
            self._reference.load_nudged(weights, nudge)
            return expected(turn.batches)

        self._reference.load(weights)
        right = expected(turn.batches)
        found.compare(turn.found, right, name, tolerance, nudged)

    # --- the result ------------------------------------------------------------------

    def finish(self) -> Measurement:
        """Return every phase's median, interval, rates and raw samples."""
        read_back = self._read_back()
        readings = [read_back.reading()]
        for name, phase in self._phases.items():
            readings += self._phase_readings(name, phase)
        return Measurement(
            readings=readings,
            facts={
                "kernel": self._network.kernel(),
                "parameters": self._problem.parameters(),
                "time_steps": self._problem.time_steps,
                "read_back_at": read_back.where,
            },
            quantities=QUANTITIES,
        )

    def _phase_readings(self, name: str, phase: _Phase) -> list[Reading]:
        size = self._problem.trial.batch
        assert size is not None
        found = median_interval(phase.turns)
        tokens = size * self._problem.time_steps
        flops = self._problem.forward_flops(size) * FLOPS_PER_FORWARD[name]
        samples = [sample for turn in phase.turns for sample in turn]
        return [
            Reading(
                name,
                {
                    "time_s": found.median,
                    "time_low_s": found.low,
                    "time_high_s": found.high,
                    "first_call_s": phase.first_call_s,
                    "tokens_per_s": tokens / found.median,
                    "tokens_low_per_s": tokens / found.high,
                    "tokens_high_per_s": tokens / found.low,
                    "flop_per_s": flops / found.median,
                    "flops": flops,
                    "loops": phase.loops,
                    "shaky": int(found.shaky or not phase.stationary),
                },
            ),
            Reading(name, {"sample_s": samples}, list(range(len(samples))), "readings"),
        ]


def _copy_s(tensors: Weights) -> float:
    """Return what copying tensors to the host may take."""
    count = sum(tensor.nbytes for tensor in tensors.values())
    return COPY_S * (1 + len(tensors)) + count / COPY_BYTES_PER_S
