"""The clock around calls of one phase of a network, in the process where it lives.

Batches are placed before the clock starts. Placing is timed separately.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.contract import (
    Array,
    Batch,
    DeviceProbe,
    FrameworkState,
    Network,
    Placed,
    State,
    Weights,
)
from harness.machine import clock
from harness.machine.load import OtherLoad
from harness.runner.phase import BatchPhase, InForm, Phase, StreamPhase, any_form
from harness.runner.returned import Form

COPY_BYTES_PER_S = 1e9
COPY_S = 2e-4
"""Reading a result may take this long: a rate for its bytes, and a time per tensor."""

_READ_S = 5e-5
"""Reading a result may take this much longer the first time than the second time."""


@dataclass(frozen=True)
class Taken:
    """What was recorded during one turn.

    Attributes:
        readings: The kept readings, in seconds per call.
        device_s: The same by the device's own clock, if it has one.
        pieces: Calls and seconds of the pieces of the readings [pieces, 2].
        begun_s: Seconds from the making of the stopwatch to the first kept reading.
        late_s: How much longer reading the result took than copying it.
        other_load: Cores that other processes kept busy; None if it is not known.
        own_load: Cores that this process and its children kept busy.
        waited_s: Seconds that threads waited for a core.
        clock_wrong: Whether the clock stepped or ran at another rate.
        built: Whether the framework traced or compiled something.
        threads: The framework's number of threads, or None if it is not reported.
        latencies_s: Seconds of single calls, if each is timed alone.
    """

    readings: tuple[float, ...]
    device_s: tuple[float, ...]
    pieces: Array
    begun_s: float
    late_s: float
    other_load: float | None
    own_load: float
    waited_s: float
    clock_wrong: bool
    built: bool
    threads: int | None
    latencies_s: Array


class Stopwatch:
    """Times calls of a network's phases.

    All phases but `stream` take the same placed batches.

    Args:
        network: The network.
        start: The state before a single sequence, for `stream`.
        probe: The probe of the framework on the network's device, or None without one.
        form: What the network must return, or None to take anything.
    """

    def __init__(
        self,
        network: Network,
        start: State,
        probe: DeviceProbe | None,
        form: Form | None = None,
    ) -> None:
        self._network, self._start, self._probe = network, start, probe
        self._form, self._sizes = form, (1, 1)
        self._timer = None if probe is None else probe.timer()
        self._clock, self._load = clock.ClockCheck(), OtherLoad()
        self._made_s = time.perf_counter()
        self._phases: dict[str, Phase] = {}
        self._batches: list[Placed] = []
        self._steps: list[Array] = []
        self._last: Weights = {}

    def place(self, batch: Batch) -> float:
        """Place a batch; return how many seconds that took."""
        self._sizes = batch.scored.shape[0], batch.scored.shape[1]
        start = time.perf_counter()
        self._batches.append(self._network.place(batch))
        return time.perf_counter() - start

    def add_steps(self, inputs: Array) -> None:
        """Add time steps of a sequence [time, input] or tokens [time] for `stream`."""
        self._steps += [step[None] for step in inputs]

    def begin(self, phase: str, weights: Weights) -> None:
        """Load weights and discard the results of the phase's earlier calls."""
        self._network.load_weights(weights)
        self._phase(phase).begin()

    def warm_up(self, phase: str, inputs: int) -> tuple[float, bool]:
        """Call with the first inputs in turn until calls get no faster.

        Returns:
            The seconds of the first call, and whether calls stopped speeding up.
        """
        gc.collect()
        ready, call = self._inputs(phase), self._phase(phase).call
        ring = itertools.cycle(ready[:inputs])
        warm = clock.warm_up(lambda: call(next(ring)))
        return warm.first_call_s, warm.stationary

    def fresh_call_s(self, phase: str, inputs: int) -> float:
        """Return the shortest time of a call with each of the first inputs, once."""
        call = self._calls(phase, range(inputs))
        return min(clock.reading_s(call, 1) for _ in range(inputs))

    def turn(
        self, phase: str, inputs: Sequence[int], loops: int, readings: int
    ) -> Taken:
        """Take a reading that is dropped, then those that are kept.

        Args:
            phase: The phase.
            inputs: The number of the input of each call, in order.
            loops: Calls in a reading.
            readings: How many are kept.
        """
        call, timed = self._calls(phase, inputs), self._phase(phase)
        with clock.no_garbage_collection():
            clock.reading_s(call, loops)
            begun_s, before = time.perf_counter(), self._state()
            self._clock.look()
            self._load.begin()
            taken = [self._reading(call, loops) for _ in range(readings)]
            other_load = self._load.end()
            self._clock.look()
            after = self._state()
        # Copied, because a network may return the memory that it computes in.
        first_s, self._last = _timed_copy(timed.found)
        second_s, _ = _timed_copy(timed.found)
        # If a result was computed when it was read, reading it is faster the second
        # time, or takes longer than any copy.
        late_s = max(first_s - second_s - _READ_S, first_s - _copy_s(self._last))
        return Taken(
            readings=tuple(each.call_s for each, _ in taken),
            device_s=tuple(s for _, s in taken if s is not None),
            pieces=np.concatenate([each.pieces for each, _ in taken]),
            begun_s=begun_s - self._made_s,
            late_s=late_s,
            other_load=other_load if self._load.readable else None,
            own_load=self._load.own,
            waited_s=self._load.waited_s,
            clock_wrong=self._clock.wrong,
            built=after.builds > before.builds,
            threads=after.threads,
            latencies_s=np.array(timed.latencies_s[loops:], float),
        )

    def found(self) -> Weights:
        """Return what the calls of the last turn computed."""
        return self._last

    def flushes_subnormals(self) -> bool | None:
        """Return whether the framework sets subnormal numbers to zero, if it is known.

        Only some probes can try it.
        """
        ask = getattr(self._probe, "flushes_subnormals", None)
        found = ask() if callable(ask) else None
        return None if found is None else bool(found)

    def _phase(self, name: str) -> Phase:
        if name not in self._phases:
            if name == "stream":
                in_form = self._in_form(name, (1, 1))
                self._phases[name] = StreamPhase(self._network, self._start, in_form)
            else:
                in_form = self._in_form(name, self._sizes)
                self._phases[name] = BatchPhase(name, self._network, in_form)
        return self._phases[name]

    def _in_form(self, phase: str, sizes: tuple[int, int]) -> InForm:
        form = self._form
        if form is None:
            return any_form
        return lambda read: form.of_phase(phase, read, *sizes)

    def _inputs(self, phase: str) -> Sequence[Any]:
        return self._steps if phase == "stream" else self._batches

    def _calls(self, phase: str, inputs: Sequence[int]) -> Callable[[], None]:
        """Return a call of a phase that takes the next input each time."""
        every, call = self._inputs(phase), self._phase(phase).call
        ready = iter([every[index] for index in inputs])
        return lambda: call(next(ready))

    def _state(self) -> FrameworkState:
        return FrameworkState() if self._probe is None else self._probe.state()

    def _reading(
        self, call: Callable[[], None], loops: int
    ) -> tuple[clock.Reading, float | None]:
        """Take one reading by the wall clock, and also by the device's clock."""
        if self._timer is None:
            return clock.reading(call, loops), None
        self._timer.start()
        found = clock.reading(call, loops)
        return found, self._timer.stop() / loops


def _timed_copy(found: Callable[[], Weights]) -> tuple[float, Weights]:
    """Read a result; return how long that took, and a copy."""
    start_s = time.perf_counter()
    computed = {name: np.array(tensor) for name, tensor in found().items()}
    return time.perf_counter() - start_s, computed


def _copy_s(tensors: Weights) -> float:
    """Return the seconds that copying tensors to the host may take."""
    count = sum(tensor.nbytes for tensor in tensors.values())
    return COPY_S * (1 + len(tensors)) + count / COPY_BYTES_PER_S
