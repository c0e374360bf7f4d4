"""A job for an engine, the news it sends while it runs, and the answers it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.contract import Weights
from harness.errors import HarnessError
from harness.reading import Reading
from harness.trial import Trial

STOPPED_FROM_ELSEWHERE = (
    "its worker was told to stop, and not by this run: by a signal, perhaps of an "
    "implementation"
)

CHANGED = "changed_process"
"""The fact of a result that names what its implementation changed of its process."""


class LostError(HarnessError):
    """The cluster is lost; running trials are abandoned, not committed."""


class StoppedError(Exception):
    """The run is being stopped; running trials are abandoned, not committed."""


@dataclass(frozen=True)
class Limits:
    """Limits for each trial, enforced from outside its process.

    Attributes:
        timeout_s: Longest time of a trial.
        memory_bytes: Most memory of a trial's worker and the processes it started.
        checkpoint_s: Time between two checkpoints of a learning trial.
    """

    timeout_s: float | None = None
    memory_bytes: int | None = None
    checkpoint_s: float = 30.0


@dataclass(frozen=True)
class Options:
    """How a suite is run. None of it enters the identity of a trial.

    Attributes:
        expression: A filter over the words of trials, or None.
        jobs: How many trials run side by side.
        certify: False to measure without certificates; every number is then marked.
        retry_failed: True to run failed trials again.
        force: True to run every trial again.
        limits: The limits of every trial.
        executor: `local`, or `dask` for the workers of a dask cluster.
        scheduler: The address of a dask cluster, or None to start one here.
    """

    expression: str | None = None
    jobs: int = 1
    certify: bool = True
    retry_failed: bool = False
    force: bool = False
    limits: Limits = field(default_factory=Limits)
    executor: str = "local"
    scheduler: str | None = None


DEFAULT_OPTIONS = Options()


@dataclass(frozen=True)
class Start:
    """The checkpoint from which a learning trial continues."""

    state: Mapping[str, Any]
    arrays: Weights = field(repr=False)


@dataclass(frozen=True)
class Job:
    """Trials that one host measures: a single trial, or the trials of a session.

    Attributes:
        trials: The trials by trial id.
        session: Whether the trials are timed. They then take turns, and nothing else
            runs on the host.
        arrays: Tensors that a single trial needs, such as learned weights.
        start: The checkpoint from which a single learning trial continues, or None.
    """

    trials: Mapping[str, Trial]
    session: bool = False
    arrays: Weights = field(default_factory=dict, repr=False)
    start: Start | None = None


@dataclass(frozen=True)
class Answer:
    """How a trial ended and what it found.

    Attributes:
        outcome: The stored outcome, or `stopped` if learning left a checkpoint because
            the run is being stopped.
        died: Whether the worker died.
        in_doubt: Whether that may be due to what other trials left in this worker. The
            trial is then measured once more, in a worker of its own.
    """

    outcome: str
    reason: str | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    readings: tuple[Reading, ...] = ()
    arrays: Weights = field(default_factory=dict, repr=False)
    died: bool = False
    in_doubt: bool = False


# --- news of a job -------------------------------------------------------------------


@dataclass(frozen=True)
class Begins:
    """Learning begins; `resumed` says whether it continues from the given start."""

    trial_id: str
    resumed: bool


@dataclass(frozen=True)
class Event:
    """A learning trial has measured a part of its curve."""

    trial_id: str
    reading: Reading


@dataclass(frozen=True)
class Checkpointed:
    """A learning trial could continue from here."""

    trial_id: str
    start: Start


@dataclass(frozen=True)
class Printed:
    """A trial has printed something."""

    trial_id: str
    data: bytes


@dataclass(frozen=True)
class Round:
    """A session has finished a round of turns, of `rounds` at most."""

    number: int
    rounds: int


@dataclass(frozen=True)
class Waits:
    """A job waits for its machine; `for_what` is None when the wait is over."""

    for_what: str | None


News = Begins | Event | Checkpointed | Printed | Round | Waits

Sink = Callable[[News], None]
"""Called with the news of a job while it runs."""


class Engine(Protocol):
    """Where jobs run: on this machine, or on a cluster.

    Attributes:
        notes: Lines that the run prints when it ends.
    """

    notes: list[str]

    @property
    def slots(self) -> int:
        """How many jobs may run side by side."""

    @property
    def session_slots(self) -> int:
        """How many sessions may run side by side, each alone on its host."""

    def run(self, job: Job, sink: Sink) -> Mapping[str, Answer]:
        """Run a job and return the answer of each trial by its id.

        Raises:
            StoppedError: If the run is stopped meanwhile.
        """

    def stop(self, *, now: bool) -> None:
        """Let learning trials write a checkpoint and end; `now` ends everything."""

    def close(self) -> None:
        """End every worker."""
