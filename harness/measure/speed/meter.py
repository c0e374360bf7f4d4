"""How fast is it? Phases timed in turns, and what the timed calls computed.

A turn is one dropped reading and a few kept ones. Whoever holds several meters gives
them turns in random order, so that a drift of the machine hits all alike.

What is placed is placed before the clock starts, and timed by itself.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.contract import DeviceProbe, FrameworkState, Quantity, Weights
from harness.errors import PluginError, RefusedError, UnavailableError
from harness.intervals import MedianInterval, median_interval
from harness.machine import clock as timing
from harness.machine.clock import (
    ClockCheck,
    loops_for,
    no_garbage_collection,
    reading_s,
    warm_up,
)
from harness.machine.load import OtherLoad
from harness.machine.reason import Reason
from harness.measure import readback
from harness.measure.arithmetic import (
    FLOPS_PER_FORWARD,
    check_memory,
    check_threads,
    flops_of_call,
    kept_bytes,
    least_bytes_of_call,
)
from harness.measure.certificate.record import TOLERANCES
from harness.measure.problem import Measurement, Problem
from harness.measure.readback import ReadBack, Reference
from harness.measure.speed.phases import Batches, Phase, phases_of
from harness.measure.speed.stability import Turns, unstable
from harness.measure.work import Work
from harness.registry import Registry
from harness.store import Reading
from harness.trial import Trial

DRAWS = 3
"""Turns of a phase, each with weights drawn for it, that are held against the
reference."""

COPY_BYTES_PER_S = 1e9
COPY_S = 2e-4
"""What reading an answer may take beside a call: its bytes, and each of its tensors."""

_READ_S = 5e-5
"""What reading an answer for the first time may take beside reading it once more."""

MOST_LOOPS = 250
"""The reference has to take as many updates as a turn has calls."""

MOST_LATENCIES = 4000
"""Latencies of single calls that are stored; percentiles are those of all."""

_WARM_UP_INPUTS = 8

_S = Quantity("s", "lower")
_PER_S = Quantity("tokens/s", "higher")

QUANTITIES = {
    **dict.fromkeys(("time_s", "time_low_s", "time_high_s", "sample_s"), _S),
    **dict.fromkeys(("latency_s", "latency_p50_s", "latency_p95_s"), _S),
    **dict.fromkeys(("latency_p99_s", "first_call_s"), _S),
    **dict.fromkeys(("device_time_s", "device_s"), _S),
    **dict.fromkeys(("tokens_per_s", "tokens_low_per_s", "tokens_high_per_s"), _PER_S),
    "flop_per_s": Quantity("FLOP/s", "higher"),
    "flops": Quantity("FLOP", "neither"),
    "least_bytes": Quantity("bytes", "neither"),
    "bytes": Quantity("bytes", "neither"),
    "loops": Quantity("calls", "neither"),
    "round": Quantity("rounds", "neither"),
    "at_s": Quantity("s", "neither"),
    "own_load": Quantity("cores", "neither"),
    "other_load": Quantity("cores", "lower"),
    "shaky": Quantity("yes or no", "lower"),
    **readback.QUANTITIES,
}


@dataclass(frozen=True)
class _Turn:
    """One turn: its weights, the inputs of its calls in order, what it computed."""

    draw: int
    inputs: tuple[int, ...]
    found: Weights


@dataclass
class _Clocked:
    """What was seen of one phase.

    Attributes:
        picked: Turns to be held against the reference.
        late_s: Least time of reading an answer, beside what copying it takes.
        rounds: The round of each turn, and the seconds since the meter was made.
        device_s: What the device's own clock says of each reading, on a GPU.
    """

    phase: Phase
    turns: Turns
    first_call_s: float = 0.0
    picked: list[_Turn] = field(default_factory=list)
    late_s: float = math.inf
    rounds: list[tuple[int, float]] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    device_s: list[float] = field(default_factory=list)


class SpeedMeter:
    """The phases of one trial, timed a turn at a time.

    Settings: `phases`; `readings`, kept in a turn beside the first, which is dropped.

    Raises:
        RefusedError: If the implementation does not offer what the trial asks.
        MemoryError: If the trial's shape cannot fit into what memory is free.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        trial = problem.trial
        assert trial.batch is not None
        check_threads(problem)
        check_memory(problem)
        self._size = trial.batch
        self._readings = int(trial.settings["readings"])
        self._network = problem.network()
        self._reference = Reference(problem)
        self._chance = np.random.default_rng()  # what is picked cannot be known before
        self._made = time.perf_counter()
        self._clock, self._other_load = ClockCheck(), OtherLoad()
        threads = trial.threads if trial.device == "cpu" else None
        self._probe = _probe_of(problem)
        self._timer = None if self._probe is None else self._probe.timer()
        self._phases = {
            name: _Clocked(phase, Turns(threads=threads))
            for name, phase in phases_of(
                problem, self._network, self._reference
            ).items()
        }

        if not self._phases:
            raise RefusedError(f"{trial.implementation} does not train")

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases that are measured."""
        return tuple(self._phases)

    # --- the clock -------------------------------------------------------------------

    def warm_up(self) -> None:
        """Call every phase until it is stationary, and make a turn's inputs."""
        for clocked in self._phases.values():
            phase, turns = clocked.phase, clocked.turns
            self._load(phase, 0)
            gc.collect()
            phase.inputs.grow(_WARM_UP_INPUTS)
            ring = itertools.cycle(range(min(_WARM_UP_INPUTS, len(phase.inputs))))
            warm = warm_up(lambda p=phase, r=ring: p.call(p.inputs[next(r)]))  # type: ignore[misc]
            clocked.first_call_s = warm.first_call_s
            turns.stationary = warm.stationary
            turns.loops = min(loops_for(self._fresh_call_s(phase)), MOST_LOOPS)
            phase.inputs.grow(turns.loops * (1 + self._readings))

    def _fresh_call_s(self, phase: Phase) -> float:
        """Return the seconds of a call when weights and input are ones not yet seen."""
        self._load(phase, 1)
        count = min(_WARM_UP_INPUTS, len(phase.inputs))
        call = _calls(phase, range(count))
        return min(reading_s(call, 1) for _ in range(count))

    def _load(self, phase: Phase, draw: int) -> None:
        self._network.load_weights(self._problem.initial_weights(draw))
        phase.begin()

    def turn(self, name: str, number: int | None = None) -> list[float]:
        """Take one turn of a phase; return its kept readings in seconds.

        Args:
            name: The phase.
            number: The round that the turn belongs to; one after the other if None.
        """
        clocked = self._phases[name]
        phase, seen = clocked.phase, clocked.turns
        draw = 2 + len(seen.readings)  # two were used to warm up
        inputs = self._in_order(phase, seen.loops * (1 + self._readings))
        call = _calls(phase, inputs)
        self._load(phase, draw)
        with no_garbage_collection():
            reading_s(call, seen.loops)
            begun_s = time.perf_counter()
            readings = self._timed(call, clocked)
        # Copied: a network may answer with the very memory that it computes in.
        first_s, computed = _timed_copy(phase.found)
        second_s, _ = _timed_copy(phase.found)
        # What was computed when it was read is read faster once more, or takes longer
        # than copying it ever does.
        late_s = max(first_s - second_s - _READ_S, first_s - _copy_s(computed))
        clocked.late_s = min(clocked.late_s, late_s)
        clocked.latencies_s += phase.latencies_s[seen.loops :]
        self._pick(clocked, _Turn(draw, inputs, computed))
        count = len(seen.readings)
        clocked.rounds.append(
            (count if number is None else number, begun_s - self._made)
        )
        seen.readings.append(readings)
        return readings

    def _timed(self, call: Callable[[], None], clocked: _Clocked) -> list[float]:
        """Take the kept readings of a turn, and note what was seen meanwhile."""
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
        seen.aside_s.append(self._other_load.aside_s)
        seen.clock_wrong |= self._clock.wrong
        seen.pieces.append(np.concatenate([reading.pieces for reading in taken]))
        seen.built.append(after.builds > before.builds)
        if after.threads is not None:
            seen.set_threads.append(after.threads)
        return [reading.call_s for reading in taken]

    def _state(self) -> FrameworkState:
        return FrameworkState() if self._probe is None else self._probe.state()

    def _reading(self, call: Callable[[], None], clocked: _Clocked) -> timing.Reading:
        """Take one reading by the wall clock, and beside it by the device's own."""
        loops = clocked.turns.loops
        if self._timer is None:
            return timing.reading(call, loops)
        self._timer.start()
        found = timing.reading(call, loops)
        clocked.device_s.append(self._timer.stop() / loops)
        return found

    def _in_order(self, phase: Phase, count: int) -> tuple[int, ...]:
        """Return so many inputs in a row, from anywhere in the ring."""
        ring = len(phase.inputs)
        start = int(self._chance.integers(ring))
        return tuple((start + i) % ring for i in range(count))

    def _pick(self, clocked: _Clocked, turn: _Turn) -> None:
        """Keep `DRAWS` turns of those seen so far, each with the same probability."""
        picked, count = clocked.picked, 1 + len(clocked.turns.readings)
        if len(picked) < DRAWS:
            picked.append(turn)
        elif (place := int(self._chance.integers(count))) < DRAWS:
            picked[place] = turn

    # --- the check -------------------------------------------------------------------

    def _read_back(self, intervals: Mapping[str, MedianInterval]) -> ReadBack:
        trial = self._problem.trial
        tolerance = TOLERANCES[trial.dtype, trial.precision].certified
        found = ReadBack(tolerance)
        for name, clocked in self._phases.items():
            for turn in clocked.picked:
                self._compare(found, name, turn, tolerance)
            call_s = intervals[name].median
            if clocked.late_s > call_s:
                found.refuse(
                    f"{name}: computed when it was read, {clocked.late_s:.2g} s after "
                    f"a call of {call_s:.2g} s"
                )
        return found

    def _compare(
        self, found: ReadBack, name: str, turn: _Turn, tolerance: float
    ) -> None:
        weights = self._problem.initial_weights(turn.draw)
        expected = self._phases[name].phase.expected

        def nudged(nudge: int) -> Weights:
            self._reference.load_nudged(weights, nudge)
            return expected(turn.inputs)

        self._reference.load(weights)
        right = expected(turn.inputs)
        found.compare(turn.found, right, name, tolerance, nudged)

    # --- the result ------------------------------------------------------------------

    def finish(self) -> Measurement:
        """Return every phase's median, interval, rates, doubts and raw samples."""
        intervals = {
            name: median_interval(clocked.turns.readings)
            for name, clocked in self._phases.items()
        }
        read_back = self._read_back(intervals)
        readings = [read_back.reading(), *self._placement()]
        doubts = {}
        for name, clocked in self._phases.items():
            interval = intervals[name]
            doubts[name] = unstable(clocked.turns, interval)
            readings += self._phase_readings(name, clocked, interval, doubts[name])
        return Measurement(
            readings=readings,
            facts={
                "kernel": self._network.kernel(),
                "parameters": self._problem.parameters(),
                "time_steps": self._problem.time_steps,
                "read_back_at": read_back.where,
                "unstable": {
                    name: [doubt.to_json() for doubt in found]
                    for name, found in doubts.items()
                    if found
                },
            },
            quantities=QUANTITIES,
        )

    def _placement(self) -> list[Reading]:
        """Return how long placing a batch takes, the first one left out."""
        rings = [clocked.phase.inputs for clocked in self._phases.values()]
        batches = next((ring for ring in rings if isinstance(ring, Batches)), None)
        if batches is None:
            return []
        found = median_interval([[s] for s in batches.place_s[1:]])
        times = {"time_s": found.median, "time_low_s": found.low}
        times |= {"time_high_s": found.high}
        return [Reading("place", {**times, "bytes": batches.batch(0).inputs.nbytes})]

    def _first_call_s(self, name: str) -> float:
        """Return what a phase takes when nothing has been called before.

        What an update needs for its gradients was built when these were first asked.
        """
        found = self._phases[name].first_call_s
        gradients = self._phases.get("loss_and_gradients")
        if name == "train_step" and gradients is not None:
            return max(found, gradients.first_call_s)
        return found

    def _phase_readings(
        self,
        name: str,
        clocked: _Clocked,
        found: MedianInterval,
        doubts: Sequence[Reason],
    ) -> list[Reading]:
        turns, stream = clocked.turns, name == "stream"
        batch = 1 if stream else self._size
        tokens = batch * (1 if stream else self._problem.time_steps)
        flops = flops_of_call(self._problem, name, batch)
        latencies = np.array(clocked.latencies_s)
        values = {
            "time_s": found.median,
            "time_low_s": found.low,
            "time_high_s": found.high,
            "first_call_s": self._first_call_s(name),
            "tokens_per_s": tokens / found.median,
            "tokens_low_per_s": tokens / found.high,
            "tokens_high_per_s": tokens / found.low,
            "flop_per_s": flops / found.median,
            "flops": flops,
            "least_bytes": least_bytes_of_call(self._problem, name, batch),
            "loops": turns.loops,
            "shaky": int(bool(doubts)),
        }
        series = _samples(name, clocked)
        if clocked.device_s:
            values["device_time_s"] = float(np.median(clocked.device_s))
        if len(latencies):
            for share in (50, 95, 99):
                values[f"latency_p{share}_s"] = float(np.percentile(latencies, share))
            kept = latencies[:: math.ceil(len(latencies) / MOST_LATENCIES)].tolist()
            x = list(range(len(kept)))
            series.append(Reading(name, {"latency_s": kept}, x, "time steps"))
        return [Reading(name, values), *series]


def _probe_of(problem: Problem) -> DeviceProbe | None:
    """Return the probe of a trial's framework.

    On the CPU it tells of doubts alone, and one that cannot be used is none.
    """
    if problem.trial.device != "cpu":
        return problem.probe()
    try:
        return problem.probe()
    except (RefusedError, UnavailableError, PluginError):
        return None


def _calls(phase: Phase, inputs: Sequence[int]) -> Callable[[], None]:
    """Return a call of a phase that takes one input after the other."""
    ready, call = iter([phase.inputs[index] for index in inputs]), phase.call
    return lambda: call(next(ready))


def _samples(name: str, clocked: _Clocked) -> list[Reading]:
    """Return the raw readings in order, and what was seen of the machine meanwhile."""
    turns = clocked.turns
    samples = [sample for turn in turns.readings for sample in turn]
    places = [
        place
        for place, turn in zip(clocked.rounds, turns.readings, strict=True)
        for _ in turn
    ]
    values = {
        "sample_s": samples,
        "round": [number for number, _ in places],
        "at_s": [round(at_s, 4) for _, at_s in places],
    }
    if clocked.device_s:
        values["device_s"] = clocked.device_s
    loads = {"own_load": [round(load, 3) for load in turns.own_load]}
    if turns.other_load:
        loads["other_load"] = [round(load, 3) for load in turns.other_load]
    rounds = [number for number, _ in clocked.rounds]
    return [
        Reading(name, values, list(range(len(samples))), "readings"),
        Reading(name, loads, rounds, "rounds"),
    ]


def _timed_copy(found: Callable[[], Weights]) -> tuple[float, Weights]:
    """Read an answer; return how long that took, and a copy."""
    start_s = time.perf_counter()
    computed = {name: np.array(tensor) for name, tensor in found().items()}
    return time.perf_counter() - start_s, computed


def _copy_s(tensors: Weights) -> float:
    """Return what copying tensors to the host may take."""
    count = sum(tensor.nbytes for tensor in tensors.values())
    return COPY_S * (1 + len(tensors)) + count / COPY_BYTES_PER_S


def work(registry: Registry, trial: Trial) -> Work:
    """Return what timing computes: warm-up, turns, and the reference's check of them.

    The fewest rounds are counted; how many a session takes shows only while it runs.
    """
    problem, settings = Problem(registry, trial), trial.settings
    batch, phases = trial.batch or 1, settings["phases"]
    rounds, readings = int(settings["rounds"]), int(settings["readings"])
    calls = _WARM_UP_INPUTS + (rounds + DRAWS) * (1 + readings)
    # A time step of `stream` is repeated until it takes about as long as a pass.
    passes = calls * sum(FLOPS_PER_FORWARD.get(phase, 1) for phase in phases)
    return Work(
        passes * problem.time_steps,
        passes * problem.forward_flops(batch),
        start_s=1.0,
        least_s=2 * calls * len(phases) * timing.READING_S,
        activation_bytes=kept_bytes(problem, batch),
    )


def in_words(values: Mapping[tuple[str, str], Any]) -> str:
    """Return "forward 1.27 ms, train_step 3.41 ms"."""
    times = [f"{s} {v * 1e3:.3g} ms" for (s, n), v in values.items() if n == "time_s"]
    return ", ".join(times)
