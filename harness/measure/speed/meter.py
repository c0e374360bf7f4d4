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

import gc
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from harness.contract import DeviceProbe, FrameworkState, Weights
from harness.errors import PluginError, RefusedError, UnavailableError
from harness.intervals import MedianInterval, median_interval
from harness.machine import clock
from harness.machine.load import OtherLoad
from harness.measure.arithmetic import FLOPS_PER_FORWARD, work_of
from harness.measure.capacity import check_memory, check_threads
from harness.measure.problem import Measurement, Problem
from harness.measure.readback import ReadBack, Reference, tolerance_of
from harness.measure.speed.phases import Batches, Phase, phases_of
from harness.measure.speed.results import QUANTITIES, placement, results
from harness.measure.speed.stability import unstable
from harness.measure.speed.turns import Turns
from harness.measure.work import Work
from harness.registry import Registry
from harness.trial import SpeedSettings, Trial

DRAWS = 3
"""Turns of a phase that are compared with the reference."""

COPY_BYTES_PER_S = 1e9
COPY_S = 2e-4
"""Reading a result may take this long: a rate for its bytes, and a time per tensor."""

_READ_S = 5e-5
"""Reading a result may take this much longer the first time than the second time."""

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
        self._reference = Reference(problem)
        self._chance = np.random.default_rng()  # without a seed: no plugin can know it
        self._made = time.perf_counter()
        self._clock, self._other_load = clock.ClockCheck(), OtherLoad()
        threads = trial.threads if trial.device == "cpu" else None
        self._probe = _probe_of(problem)
        self._timer = None if self._probe is None else self._probe.timer()
        phases = phases_of(problem, self._network, self._reference)
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
            gc.collect()
            phase.inputs.grow(_WARM_UP_INPUTS)
            ring = itertools.cycle(range(min(_WARM_UP_INPUTS, len(phase.inputs))))
            warm = clock.warm_up(lambda p=phase, r=ring: p.call(p.inputs[next(r)]))  # type: ignore[misc]
            turns.first_call_s = warm.first_call_s
            turns.stationary = warm.stationary
            turns.loops = min(clock.loops_for(self._fresh_call_s(phase)), MOST_LOOPS)
            phase.inputs.grow(turns.loops * (1 + self._readings))

    def _fresh_call_s(self, phase: Phase) -> float:
        """Return the seconds of a call with new weights and a new input."""
        self._load(phase, 1)
        count = min(_WARM_UP_INPUTS, len(phase.inputs))
        call = _calls(phase, range(count))
        return min(clock.reading_s(call, 1) for _ in range(count))

    def _load(self, phase: Phase, draw: int) -> None:
        self._network.load_weights(self._problem.initial_weights(draw))
        phase.begin()

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
        call = _calls(phase, inputs)
        self._load(phase, draw)
        with clock.no_garbage_collection():
            clock.reading_s(call, seen.loops)
            begun_s = time.perf_counter()
            readings = self._timed(call, clocked)
        # Copied, because a network may return the memory that it computes in.
        first_s, computed = _timed_copy(phase.found)
        second_s, _ = _timed_copy(phase.found)
        # If a result was computed when it was read, reading it is faster the second
        # time, or takes longer than any copy.
        late_s = max(first_s - second_s - _READ_S, first_s - _copy_s(computed))
        clocked.late_s = min(clocked.late_s, late_s)
        seen.latencies_s += phase.latencies_s[seen.loops :]
        self._pick(clocked, _Turn(draw, inputs, computed))
        number = len(seen.readings) if number is None else number
        seen.rounds.append((number, begun_s - self._made))
        seen.readings.append(readings)
        return readings

    def _timed(self, call: Callable[[], None], clocked: _Clocked) -> list[float]:
        """Take the kept readings of a turn, and record the machine's load meanwhile."""
        seen, before = clocked.turns, self._state()
        self._clock.look()
        self._other_load.begin()
        taken = [self._reading(call, clocked) for _ in range(self._readings)]
        other_load = self._other_load.end()
        self._clock.look()
        after = self._state()
        if self._other_load.readable:
            seen.other_load.append(other_load)
        seen.own_load.append(self._other_load.own)
        seen.waited_s.append(self._other_load.waited_s)
        seen.clock_wrong |= self._clock.wrong
        seen.pieces.append(np.concatenate([reading.pieces for reading in taken]))
        seen.built.append(after.builds > before.builds)
        if after.threads is not None:
            seen.set_threads.append(after.threads)
        return [reading.call_s for reading in taken]

    def _state(self) -> FrameworkState:
        return FrameworkState() if self._probe is None else self._probe.state()

    def _reading(self, call: Callable[[], None], clocked: _Clocked) -> clock.Reading:
        """Take one reading by the wall clock, and also by the device's clock."""
        loops = clocked.turns.loops
        if self._timer is None:
            return clock.reading(call, loops)
        self._timer.start()
        found = clock.reading(call, loops)
        clocked.turns.device_s.append(self._timer.stop() / loops)
        return found

    def _pick(self, clocked: _Clocked, turn: _Turn) -> None:
        """Keep `DRAWS` of the turns so far, each with the same probability."""
        picked, count = clocked.picked, 1 + len(clocked.turns.readings)
        if len(picked) < DRAWS:
            picked.append(turn)
        elif (place := int(self._chance.integers(count))) < DRAWS:
            picked[place] = turn

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
        doubts = {name: unstable(t, intervals[name]) for name, t in turns.items()}
        readings = [read_back.reading()]
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
                "read_back_at": read_back.where,
                "unstable": {
                    name: [doubt.to_json() for doubt in found]
                    for name, found in doubts.items()
                    if found
                },
            },
            quantities=QUANTITIES,
        )


def _probe_of(problem: Problem) -> DeviceProbe | None:
    """Return the probe of a trial's framework, or None if it has none.

    On the CPU the probe is needed only for doubts, so an unusable probe is ignored.
    """
    unusable = (RefusedError, UnavailableError, PluginError)
    with suppress(*(unusable if problem.trial.device == "cpu" else ())):
        return problem.probe()
    return None


def _calls(phase: Phase, inputs: Sequence[int]) -> Callable[[], None]:
    """Return a call of a phase that takes the next input each time."""
    ready, call = iter([phase.inputs[index] for index in inputs]), phase.call
    return lambda: call(next(ready))


def _timed_copy(found: Callable[[], Weights]) -> tuple[float, Weights]:
    """Read a result; return how long that took, and a copy."""
    start_s = time.perf_counter()
    computed = {name: np.array(tensor) for name, tensor in found().items()}
    return time.perf_counter() - start_s, computed


def _copy_s(tensors: Weights) -> float:
    """Return the seconds that copying tensors to the host may take."""
    count = sum(tensor.nbytes for tensor in tensors.values())
    return COPY_S * (1 + len(tensors)) + count / COPY_BYTES_PER_S


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
