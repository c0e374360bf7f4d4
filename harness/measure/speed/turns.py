"""What is recorded during the turns of one phase."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from harness.runner.stopwatch import Taken


@dataclass
class Turns:
    """What was recorded during the turns of one phase.

    Attributes:
        readings: Kept readings of each turn, in seconds per call.
        other_load: Cores that other processes kept busy during each turn.
        own_load: Cores that this process and its children kept busy during each turn.
        pieces: Calls and seconds of the pieces of each turn's readings [pieces, 2].
        waited_s: Seconds that threads waited for a core during each turn.
        built: Whether the framework traced or compiled something during each turn.
        set_threads: The framework's number of threads in each turn, if it reports it.
        loops: Calls in one reading.
        stationary: Whether the warm-up ended with calls that got no faster.
        clock_wrong: Whether the clock stepped or ran at another rate.
        threads: The number of threads asked for, or None if it is not checked.
        rounds: The round of each turn, and its seconds since the meter was made.
        device_s: Seconds of each reading by the device's own clock, on a GPU.
        latencies_s: Seconds of single calls, if each is timed alone.
        first_call_s: Seconds of the first call, which may build and compile.
    """

    readings: list[list[float]] = field(default_factory=list)
    other_load: list[float] = field(default_factory=list)
    own_load: list[float] = field(default_factory=list)
    pieces: list[np.ndarray] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)
    built: list[bool] = field(default_factory=list)
    set_threads: list[int] = field(default_factory=list)
    loops: int = 1
    stationary: bool = True
    clock_wrong: bool = False
    threads: int | None = None
    rounds: list[tuple[int, float]] = field(default_factory=list)
    device_s: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    first_call_s: float = 0.0

    def add(self, taken: Taken, number: int) -> None:
        """Add a turn, which was taken in a round."""
        self.readings.append(list(taken.readings))
        self.device_s += taken.device_s
        self.rounds.append((number, taken.begun_s))
        self.latencies_s += taken.latencies_s.tolist()
        if taken.other_load is not None:
            self.other_load.append(taken.other_load)
        self.own_load.append(taken.own_load)
        self.waited_s.append(taken.waited_s)
        self.clock_wrong |= taken.clock_wrong
        self.pieces.append(taken.pieces)
        self.built.append(taken.built)
        if taken.threads is not None:
            self.set_threads.append(taken.threads)
