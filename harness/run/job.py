"""A job for an engine, its news while it runs, and the answers that come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.contract import Weights
from harness.errors import HarnessError
from harness.store import Reading
from harness.trial import Trial


class LostError(HarnessError):
    """The cluster is lost; trials that ran are abandoned, not committed."""


class StoppedError(Exception):
    """The run is being stopped; trials that ran are abandoned, not committed."""


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
        expression: Filter over the words of trials, or None.
        jobs: Trials side by side, one thread each.
        certify: False to measure without certificates; every number is then marked.
        retry_failed: True to run failed trials again.
        force: True to run every trial again.
        limits: Enforced on every trial.
        executor: `local`, or `dask` for the workers of a dask cluster.
        scheduler: Address of the dask cluster, or None to start one here.
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
    """The last checkpoint of a learning trial, from which it goes on."""

    state: Mapping[str, Any]
    arrays: Weights = field(repr=False)


@dataclass(frozen=True)
class Job:
    """Trials that one host measures: a single one, or those of a session.

    Attributes:
        trials: By trial id.
        session: Whether the trials are timed: they take turns, with nothing beside.
        arrays: Tensors that a single trial needs, such as learned weights.
        start: Where a single learning trial goes on, or None.
    """

    trials: Mapping[str, Trial]
    session: bool = False
    arrays: Weights = field(default_factory=dict, repr=False)
    start: Start | None = None


@dataclass(frozen=True)
class Answer:
    """How a trial ended and what it found.

    Attributes:
        outcome: As stored; `stopped` where learning left a checkpoint because the run
            is being stopped.
        died: Whether its worker died.
    """

    outcome: str
    reason: str | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    readings: tuple[Reading, ...] = ()
    arrays: Weights = field(default_factory=dict, repr=False)
    died: bool = False


# --- news of a job -------------------------------------------------------------------


@dataclass(frozen=True)
class Begins:
    """Learning begins; not `resumed` where it was given a start that did not fit."""

    trial_id: str
    resumed: bool


@dataclass(frozen=True)
class Event:
    """A part of a curve."""

    trial_id: str
    reading: Reading


@dataclass(frozen=True)
class Checkpointed:
    """Where learning could go on from."""

    trial_id: str
    start: Start


@dataclass(frozen=True)
class Printed:
    """What a trial printed."""

    trial_id: str
    data: bytes


@dataclass(frozen=True)
class Round:
    """A session has finished a round of turns, of `rounds` at most."""

    number: int
    rounds: int


@dataclass(frozen=True)
class Waits:
    """A job waits for its machine; `for_what` is None once it waits no more."""

    for_what: str | None


News = Begins | Event | Checkpointed | Printed | Round | Waits

Sink = Callable[[News], None]
"""Called with the news of a job while it runs."""


class Engine(Protocol):
    """Where jobs run: on this machine, or on a cluster.

    Attributes:
        notes: What is printed of it when the run ends.
    """

    notes: list[str]

    @property
    def slots(self) -> int:
        """Jobs that may run side by side."""

    @property
    def session_slots(self) -> int:
        """Sessions that may run side by side, each alone on its host."""

    def run(self, job: Job, sink: Sink) -> Mapping[str, Answer]:
        """Run a job and return the answer of each trial by its id.

        Raises:
            StoppedError: If the run was stopped meanwhile.
        """

    def stop(self, *, now: bool) -> None:
        """Let learning write a checkpoint and end; or, `now`, end everything."""

    def close(self) -> None:
        """Let every worker end."""
