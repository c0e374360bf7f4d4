"""How fast is it? Phases are timed in turns, and results of timed calls are checked.

A turn is one reading that is dropped and a few that are kept. Several meters take turns
in random order, so that a drift of the machine affects all of them alike.

Batches are placed before the clock starts. Placing is timed separately.

No two calls compute the same. Every turn of a phase has its own weights, and every call
of a turn has its own batch. Batches are used again only if a turn's batches exceed
`MOST_BYTES`, and then after `FEWEST_BATCHES` others at least. So a result that was kept
from an earlier call is wrong for this one. The result of a turn's last call is read
back; in training it is the weights after all calls of the turn. It is compared with the
float64 reference on the same weights and batches, for `DRAWS` turns that are picked at
random after they have ended.

Reading a result may take as long as copying it, and no longer than a call. A result
that is computed only when it is read was not computed while the clock ran.

A correct read-back shows that those calls computed everything at the timed shape. It
shows nothing about calls in the middle of a turn whose results are not used, about
turns that were not picked (a mistake in half of them is missed once in eight times), or
about a plugin that behaves differently because it detects that it is timed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from harness.contract import Weights
from harness.errors import RefusedError
from harness.intervals import MedianInterval, median_interval
from harness.machine import clock
from harness.measure.arithmetic import FLOPS_PER_FORWARD, work_of
from harness.measure.capacity import check_memory, check_threads
from harness.measure.problem import Measurement, Problem
from harness.measure.readback import ReadBack, Reference, tolerance_of
from harness.measure.speed.phases import Batches, Phase, phases_of
from harness.measure.speed.results import placement, results
from harness.measure.speed.stability import unstable
from harness.measure.speed.subnormals import Subnormals
from harness.measure.speed.turns import Turns
from harness.measure.work import Work
from harness.quantities import SPEED
from harness.registry import Registry
from harness.trial import SpeedSettings, Trial

DRAWS = 3
"""Turns of a phase that are compared with the reference."""

MOST_LOOPS = 250
"""Most calls of a reading: the reference has to repeat every update of a turn."""

_WARM_UP_INPUTS = 8


@dataclass(frozen=True)
class _Turn:
    """One turn.

    Attributes:
        draw: The number of the draw of initial values that its weights are.
        inputs: The indices of the inputs of its calls, in order.
        found: What its calls computed.
    """

    draw: int
    inputs: tuple[int, ...]
    found: Weights


@dataclass
class _Clocked:
    """A phase and the record of its turns.

    Attributes:
        picked: Turns to compare with the reference.
        late_s: The shortest time, over turns, that reading took beyond copying.
    """

    phase: Phase
    turns: Turns
    picked: list[_Turn] = field(default_factory=list)
    late_s: float = math.inf


class SpeedMeter:
    """The phases of one trial, timed a turn at a time.

    Settings: `phases`; `readings`, which a turn keeps after one that is dropped.

    Raises:
        RefusedError: If the implementation does not offer what the trial asks for.
        MemoryError: If the trial's shape does not fit into the free memory.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        trial = problem.trial
        check_threads(problem)
        check_memory(problem, read_back=True)
        self._readings = trial.settings_as(SpeedSettings).readings
        self._network = problem.network()
        self._stopwatch = problem.stopwatch(self._network)
        self._reference = Reference(problem)
        self._chance = np.random.default_rng()  # without a seed: no plugin can know it
        threads = trial.threads if trial.device == "cpu" else None
        phases = phases_of(problem, self._stopwatch, self._reference)
        self._phases = {
            name: _Clocked(phase, Turns(threads=threads))
            for name, phase in phases.items()
        }
        if not self._phases:
            raise RefusedError(f"{trial.implementation} does not train")

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases that are measured."""
        return tuple(self._phases)

    # --- the clock -------------------------------------------------------------------

    def warm_up(self) -> None:
        """Call every phase until it gets no faster, and make the inputs of a turn."""
        for clocked in self._phases.values():
            phase, turns = clocked.phase, clocked.turns
            self._load(phase, 0)
            phase.inputs.grow(_WARM_UP_INPUTS)
            ring = min(_WARM_UP_INPUTS, len(phase.inputs))
            turns.first_call_s, turns.stationary = self._stopwatch.warm_up(
                phase.name, ring
            )
            self._load(phase, 1)
            call_s = self._stopwatch.fresh_call_s(phase.name, ring)
            turns.loops = min(clock.loops_for(call_s), MOST_LOOPS)
            phase.inputs.grow(turns.loops * (1 + self._readings))

    def _load(self, phase: Phase, draw: int) -> None:
        self._stopwatch.begin(phase.name, self._problem.initial_weights(draw))

    def turn(self, name: str, number: int | None = None) -> list[float]:
        """Take one turn of a phase; return its kept readings in seconds.

        Args:
            name: The phase.
            number: The round of the turn; if None, rounds are counted here.
        """
        clocked = self._phases[name]
        phase, seen = clocked.phase, clocked.turns
        draw = 2 + len(seen.readings)  # the warm-up used two
        # Consecutive inputs, from a random one on.
        ring, count = len(phase.inputs), seen.loops * (1 + self._readings)
        start = int(self._chance.integers(ring))
        inputs = tuple((start + i) % ring for i in range(count))
        self._load(phase, draw)
        taken = self._stopwatch.turn(name, inputs, seen.loops, self._readings)
        clocked.late_s = min(clocked.late_s, taken.late_s)
        self._pick(clocked, draw, inputs)
        seen.add(taken, len(seen.readings) if number is None else number)
        return list(taken.readings)

    def _pick(self, clocked: _Clocked, draw: int, inputs: tuple[int, ...]) -> None:
        """Keep `DRAWS` of the turns so far, each with the same probability."""
        picked, count = clocked.picked, 1 + len(clocked.turns.readings)
        place = len(picked)
        if place < DRAWS:
            picked.append(_Turn(draw, inputs, self._stopwatch.found()))
        elif (place := int(self._chance.integers(count))) < DRAWS:
            picked[place] = _Turn(draw, inputs, self._stopwatch.found())

    # --- the check -------------------------------------------------------------------

    def _read_back(self, intervals: Mapping[str, MedianInterval]) -> ReadBack:
        tolerance = tolerance_of(self._problem.trial)
        found = ReadBack(tolerance)
        for name, clocked in self._phases.items():
            for turn in clocked.picked:
                expected = partial(self._expected, clocked.phase, turn)
                found.compare(turn.found, expected, name, tolerance)
            call_s = intervals[name].median
            if clocked.late_s > call_s:
                found.refuse(
                    f"{name}: computed when it was read, {clocked.late_s:.2g} s after "
                    f"a call of {call_s:.2g} s"
                )
        return found

    def _expected(self, phase: Phase, turn: _Turn, nudge: int | None) -> Weights:
        self._reference.load(self._problem.initial_weights(turn.draw), nudge)
        return phase.expected(turn.inputs)

    # --- the result ------------------------------------------------------------------

    def finish(self) -> Measurement:
        """Return every phase's median, interval, rates, doubts and raw samples."""
        turns = {name: clocked.turns for name, clocked in self._phases.items()}
        if "train_step" in turns and "loss_and_gradients" in turns:
            # An update also uses what the first call of `loss_and_gradients` has built.
            update, gradients = turns["train_step"], turns["loss_and_gradients"]
            update.first_call_s = max(update.first_call_s, gradients.first_call_s)
        intervals = {name: median_interval(t.readings) for name, t in turns.items()}
        read_back = self._read_back(intervals)
        subnormals = Subnormals.of(self._problem, self._stopwatch, self.phases)
        doubts = {
            name: [*unstable(t, intervals[name]), *subnormals.doubts(name)]
            for name, t in turns.items()
        }
        readings = [read_back.reading(), *subnormals.readings(self.phases)]
        rings = [clocked.phase.inputs for clocked in self._phases.values()]
        batches = next((ring for ring in rings if isinstance(ring, Batches)), None)
        if batches is not None:
            readings.append(placement(batches))
        for name, seen in turns.items():
            shaky = bool(doubts[name])
            readings += results(self._problem, name, seen, intervals[name], shaky)
        return Measurement(
            readings=readings,
            facts={
                **self._problem.facts(self._network.kernel()),
                **subnormals.facts,
                "read_back_at": read_back.where,
                "unstable": {
                    name: [doubt.to_json() for doubt in found]
                    for name, found in doubts.items()
                    if found
                },
            },
            quantities=SPEED,
        )


def work(registry: Registry, trial: Trial) -> Work:
    """Return what timing computes: warm-up, turns, and their read-back.

    The fewest rounds are counted; how many a session takes is known only when it ends.
    """
    settings = trial.settings_as(SpeedSettings)
    calls = _WARM_UP_INPUTS + (settings.rounds + DRAWS) * (1 + settings.readings)
    # A time step of `stream` is repeated until it takes about as long as a pass.
    forwards = [FLOPS_PER_FORWARD.get(phase, 1) for phase in settings.phases]
    return replace(
        work_of(Problem(registry, trial), calls * sum(forwards), trial.batch or 1),
        start_s=1.0,
        least_s=2 * calls * len(forwards) * clock.READING_S,
    )


def in_words(values: Mapping[tuple[str, str], Any]) -> str:
    """Return "forward 1.27 ms, train_step 3.41 ms"."""
    times = [f"{s} {v * 1e3:.3g} ms" for (s, n), v in values.items() if n == "time_s"]
    return ", ".join(times)
