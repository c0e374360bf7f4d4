"""The cost of a trial and of a whole run, in numbers and in words."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from harness.measure import takes_turns
from harness.trial import Trial


@dataclass(frozen=True)
class Cost:
    """What one trial will take, or took.

    Attributes:
        memory_bytes: The peak memory of its worker and the worker's children.
        basis: The reason for the prediction: "the same shape", …, "a guess".
        share: The part of its updates that learning will use.
        at_most: Whether learning may end earlier, when it is solved.
    """

    wall_time_s: float
    memory_bytes: int
    disk_bytes: int
    basis: str = "measured"
    share: float = 1.0
    at_most: bool = False

    def end(self, done: float) -> float:
        """Return the part of its updates after which a trial will end.

        A trial that has done more than others needed is expected to use all of them.

        Args:
            done: The part of its updates that it has done.
        """
        return self.share if done < self.share else 1.0

    def left_s(self, done: float) -> float:
        """Return the seconds that are left after a part of the updates is done."""
        return self.wall_time_s * (self.end(done) - done) / self.share


@dataclass(frozen=True)
class Totals:
    """What trials take together; memory is the sum of all workers' peaks."""

    wall_time_s: float
    memory_bytes: int
    disk_bytes: int

    def sentence(self) -> str:
        """Return "4 min 30 s, 1.2 GiB of memory, 3.4 MiB of disk for …"."""
        return (
            f"{duration(self.wall_time_s)}, {size(self.memory_bytes)} of memory, "
            f"{size(self.disk_bytes)} of disk for curves, weights and logs"
        )


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        trials: Number of trials that will run.
        jobs: Trials side by side.
        known: Number of finished trials that the estimate is made from.
        guessed: Number of trials that resemble no finished trial.
        at_most: Whether some learning may end earlier.
    """

    totals: Totals
    trials: int
    jobs: int
    known: int
    guessed: int
    at_most: bool

    def sentence(self) -> str:
        """Return "60 trials with 2 jobs: about 4 min 30 s, … (from 90 past trials)"."""
        sources = [f"from {self.known} past trials"] if self.known else []
        sources += [f"{self.guessed} guessed"] if self.guessed else []
        known = f" ({'; '.join(sources)})" if sources else ""
        trials = "1 trial" if self.trials == 1 else f"{self.trials} trials"
        jobs = "1 job" if self.jobs == 1 else f"{self.jobs} jobs"
        sooner = ", sooner where learning is solved early" if self.at_most else ""
        return f"{trials} with {jobs}: about {self.totals.sentence()}{known}{sooner}"


def stage_s(stage: Iterable[tuple[Trial, float]], jobs: int) -> float:
    """Return the seconds of a stage, in which each free job takes the next trial.

    Trials that take turns run one session after the other.

    Args:
        stage: Trials, each with its seconds.
        jobs: Trials side by side.
    """
    # It grows with the trials: there may be far fewer of them than jobs.
    free: list[float] = []
    alone_s = 0.0
    for trial, seconds in stage:
        if takes_turns(trial):
            alone_s += seconds
        elif len(free) < jobs:
            heapq.heappush(free, seconds)
        else:
            heapq.heapreplace(free, free[0] + seconds)
    return max(free, default=0.0) + alone_s


# --- for people ----------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Return "4 min 30 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Return "1.2 GiB"."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 2**10:.0f} KiB"
