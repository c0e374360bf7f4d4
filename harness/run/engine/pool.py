"""The worker processes that serve one job at a time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.declarations import Declaration
from harness.machine.peak import Peak
from harness.measure import MEASURES, by_reference
from harness.messages.pipe import Message
from harness.reading import Reading
from harness.registry import Registry
from harness.run.engine.peaks import Peaks
from harness.run.job import (
    STOPPED_FROM_ELSEWHERE,
    Answer,
    Begins,
    Checkpointed,
    Event,
    Job,
    Limits,
    Printed,
    Sink,
    Start,
    StoppedError,
)
from harness.run.worker.log import Write
from harness.run.worker.process import Request, WorkerDiedError, WorkerProcess
from harness.trial import Conditions, Trial


@dataclass(frozen=True)
class WorkerKind:
    """What is fixed when a worker starts.

    Attributes:
        owners: The plugin files and distributions of others whose code it runs. Code of
            two of them never runs in one process.
        own: The only trial or implementation that the worker serves, or "" if it serves
            all of its kind.
    """

    framework: str
    device: str
    threads: int
    precision: str
    owners: tuple[str, ...] = ()
    own: str = ""


@dataclass
class _Use:
    """The time and memory that the requests of one trial took so far."""

    time_s: float = 0.0
    memory_bytes: int = 0


class WorkerPool:
    """Worker processes, one of every kind that its jobs have needed.

    Args:
        registry: Names the plugin files and the interpreters of the workers.
        limits: The limits of every trial.
        log: Called with what workers print between trials.
    """

    def __init__(self, registry: Registry, limits: Limits, log: Write) -> None:
        self._registry, self._limits, self._log = registry, limits, log
        self._workers: dict[WorkerKind, WorkerProcess] = {}
        self._asking: dict[WorkerKind, threading.Lock] = {}
        self._peaks = Peaks(registry, self._peak)
        self._newest: dict[str, Start] = {}
        self._use: dict[str, _Use] = {}
        self._alone: set[str] = set()
        self._changed: set[WorkerKind] = set()
        self._lock = threading.RLock()  # a signal handler may call `stop` meanwhile
        self._stopping: str | None = None

    # --- what is asked ---------------------------------------------------------------

    def measure(self, job: Job, sink: Sink) -> dict[str, Answer]:
        """Measure the single trial of a job.

        Raises:
            StoppedError: If `stop` was called with `now` meanwhile.
        """
        ((trial_id, trial),) = job.trials.items()
        kind = self.kind(trial)
        asked = Request("measure", trial_id, trial, arrays=job.arrays, start=job.start)
        found = self._answer(asked, sink)
        assert isinstance(found, Answer)
        self._newest.pop(trial_id, None)
        if found.outcome != "ok":
            self.drop(kind)
        return {trial_id: found}

    def probe(self, trial: Trial) -> str | None:
        """Build the network of a trial; return why that fails, or None."""
        found = self._answer(Request("probe", "probe", trial), _ignore)
        return f"{found.outcome}: {found.reason}" if isinstance(found, Answer) else None

    def peak(self, trial: Trial) -> Peak | Answer:
        """Return the highest rates of a trial's framework, or why there are none.

        They are measured in the worker that serves the trial, in its dtype and
        precision. This takes about a second beside importing the framework.
        """
        framework = self._registry.framework_of(trial.implementation)
        if framework.probe is None:
            reason = f"the framework '{framework.name}' declares no probe"
            return Answer("refused", reason)
        found = self._answer(Request("peak", "peak", trial), _ignore)
        assert isinstance(found, Answer)
        return found if found.outcome != "ok" else Peak.from_json(found.facts["peak"])

    def _peak(self, trial: Trial) -> Peak | None:
        found = self.peak(trial)
        return found if isinstance(found, Peak) else None

    def peaks(self, trials: Iterable[Trial], machine: str) -> Mapping[Conditions, Peak]:
        """Return the highest rates of the libraries of trials, each measured once.

        Under a memory limit nothing is measured: the large arrays might exceed it.

        Args:
            trials: The trials; those of unknown implementations are left out.
            machine: How fit the machine is: "fit", "noisy" or "unfit".
        """
        if self._limits.memory_bytes is not None:
            return {}
        known = self._registry.implementations
        return self._peaks.best(
            (trial for trial in trials if trial.implementation in known), machine
        )

    def _answer(self, request: Request, sink: Sink) -> Answer | tuple[Any, ...]:
        """Ask a worker, and once more if what others left there may have ended it."""
        kind = self.kind(request.trial)
        found = self.ask(kind, request, sink)
        if isinstance(found, Answer) and found.in_doubt:
            kind = self.kind(request.trial)  # now one of its own
            start = self._newest.get(request.trial_id, request.start)
            found = self.ask(kind, replace(request, start=start), sink)
        if self.is_changed(kind):
            self.drop(kind)
        return found

    def ask(
        self, kind: WorkerKind, request: Request, sink: Sink
    ) -> Answer | tuple[Any, ...]:
        """Ask the worker of a kind; return what a meter found, or a final answer.

        A worker that dies gives an answer too. Several threads may ask; one worker
        answers one request after the other.
        """
        trial_id = request.trial_id
        if request.command not in _AFTER_OPEN:
            self._use[trial_id] = _Use()
        with self._lock:
            asking = self._asking.setdefault(kind, threading.Lock())
        begin_s = time.monotonic()
        with asking:
            try:
                worker = self._start(kind)
            except OSError as error:
                python = self._registry.python_of(kind.framework)
                reason = f"{python} cannot be started ({error.strerror})"
                return Answer("unavailable", reason)
            found = self._exchange(kind, worker, request, sink)
        if request.command != "open":  # it waits for imports of other trials too
            self._use[trial_id].time_s += time.monotonic() - begin_s
        return found

    def _exchange(
        self, kind: WorkerKind, worker: WorkerProcess, request: Request, sink: Sink
    ) -> Answer | tuple[Any, ...]:
        trial_id, use = request.trial_id, self._use[request.trial_id]
        found: Answer | tuple[Any, ...] = ()
        try:
            for message in worker.ask(
                request, lambda data: sink(Printed(trial_id, data)), use.time_s
            ):
                found = self._hear(trial_id, message, sink)
                self._note_changes(kind, message)
        except WorkerDiedError as error:
            found = Answer(error.outcome, error.reason, died=True)
        except _ChangedRunnerError as error:
            found = Answer("changed", str(error), died=True, in_doubt=True)
        stopped = isinstance(found, Answer) and found.outcome == "stopped"
        if stopped and not self._stopping:
            found = Answer("crashed", STOPPED_FROM_ELSEWHERE, died=True)
        if isinstance(found, Answer) and (found.died or found.outcome == "failed"):
            if found.died:
                self.drop(kind)
            if self._stopping:
                raise StoppedError
            if others := self._set_apart(worker, request.trial, found.outcome):
                words = f"{found.reason}, beside {others}; asked once more without them"
                sink(Printed(trial_id, f"{words}\n".encode(errors="replace")))
                found = replace(found, in_doubt=True)
        use.memory_bytes = max(use.memory_bytes, worker.peak_memory_bytes)
        if not isinstance(found, Answer):
            return found
        alone = worker.served == {trial_id}
        facts = {
            **found.facts,
            "host": socket.gethostname(),
            "worker_memory_bytes": use.memory_bytes,
            # None if the worker also holds memory of other trials.
            "peak_memory_bytes": use.memory_bytes if alone else None,
        }
        return replace(found, facts=facts)

    def _note_changes(self, kind: WorkerKind, message: Message) -> None:
        """Remember implementations that change their process: others must not use it.

        Raises:
            _ChangedRunnerError: If meters of other trials are open in that process.
        """
        changed = message.values.get("changed")
        if not changed or kind.own:
            return
        self._alone |= changed.keys()
        self._changed.add(kind)
        if message.values["kind"] in ("opened", "warmed", "turned"):
            raise _ChangedRunnerError(
                "; ".join(f"{by} changes {', '.join(s)}" for by, s in changed.items())
            )

    def is_changed(self, kind: WorkerKind) -> bool:
        """Say whether nobody else may use the worker of a kind any more."""
        return bool(kind.own) or kind in self._changed

    def _set_apart(self, worker: WorkerProcess, trial: Trial, outcome: str) -> str:
        """Give a trial a worker of its own if others may be why it has no result.

        What others hold counts against the memory limit. What they started may end the
        process later, such as a timer that exits. What they changed and nobody compares
        may make it fail, such as a standard stream that was closed.

        Returns:
            The others, or "" if there were none.
        """
        if outcome == "out_of_memory" and len(worker.served) > 1:
            self._alone.add(trial.key())
        elif outcome in ("crashed", "failed") and len(worker.ran) > 1:
            self._alone.add(trial.implementation)
        else:
            return ""
        return ", ".join(sorted(worker.ran - {trial.implementation})) or "other trials"

    def _hear(
        self, trial_id: str, message: Message, sink: Sink
    ) -> Answer | tuple[Any, ...]:
        """Pass news on; return an answer, or the phases or readings of a meter."""
        values = message.values
        match values["kind"]:
            case "begins":
                sink(Begins(trial_id, resumed=values["resumed"]))
            case "event":
                sink(Event(trial_id, Reading.from_json(values["reading"])))
            case "checkpoint":
                start = self._newest[trial_id] = Start(values["state"], message.arrays)
                sink(Checkpointed(trial_id, start))
            case "result" | "error":
                return Answer(
                    values["outcome"],
                    values["reason"],
                    values.get("facts", {}),
                    tuple(map(Reading.from_json, values.get("readings", []))),
                    message.arrays,
                    died=bool(values.get("died")),
                )
        return tuple(values.get("phases") or values.get("readings_s") or ())

    # --- workers ---------------------------------------------------------------------

    def kind(self, trial: Trial) -> WorkerKind:
        """Return the kind of worker that measures a trial."""
        framework = self._registry.framework_of(trial.implementation).name
        device = trial.device
        if by_reference(self._registry, trial):
            framework, device = "numpy", "cpu"
        own = ""
        if MEASURES[trial.measure].own_worker or trial.key() in self._alone:
            own = trial.key()
        elif trial.implementation in self._alone:
            own = f"implementation {trial.implementation}"
        owners = self._registry.owners(*self._plugins(trial))
        return WorkerKind(
            framework, device, trial.threads, trial.precision, owners, own
        )

    def _plugins(self, trial: Trial) -> list[Declaration]:
        """Return the plugins whose code a trial runs."""
        registry = self._registry
        found: list[Declaration] = [registry.cell(trial.cell)]
        if trial.task is not None:
            found.append(registry.task(trial.task))
        if not by_reference(registry, trial):
            framework = registry.framework_of(trial.implementation)
            found += [registry.implementation(trial.implementation), framework]
        return found

    def worker(self, kind: WorkerKind) -> WorkerProcess | None:
        """Return the live worker of a kind, if there is one."""
        return self._workers.get(kind)

    def _start(self, kind: WorkerKind) -> WorkerProcess:
        with self._lock:
            if self._stopping == "now":
                raise StoppedError
            if kind not in self._workers:
                self.check_running()
                self._workers[kind] = WorkerProcess(
                    self._registry.python_of(kind.framework),
                    kind.threads,
                    self._registry.declared,
                    self._log,
                    self._limits,
                    self._registry.frameworks[kind.framework].environment,
                    device=kind.device,
                    precision=kind.precision,
                )
            return self._workers[kind]

    def check_running(self) -> None:
        """Raise StoppedError if the pool was asked to stop."""
        if self._stopping:
            raise StoppedError

    def drop(self, kind: WorkerKind) -> None:
        """End the worker of a kind now."""
        with self._lock:
            worker = self._workers.pop(kind, None)
            self._changed.discard(kind)
        if worker is not None:
            worker.kill()
            worker.close()

    def renew(self, trials: Iterable[Trial]) -> None:
        """End the used workers of these trials, so that fresh ones measure them."""
        kinds = {self.kind(trial) for trial in trials}
        with self._lock:
            live = {k: w for k, w in self._workers.items() if k in kinds}
            used = [kind for kind, worker in live.items() if worker.served]
            for kind in used:
                del self._workers[kind]
        for kind in used:
            live[kind].close()

    @property
    def stopped(self) -> bool:
        """Whether the pool was asked to stop."""
        return self._stopping is not None

    def stop(self, *, now: bool) -> None:
        """Let learning trials write a checkpoint and end; `now` kills every worker."""
        with self._lock:
            self._stopping = "now" if now else "soon"
            workers = list(self._workers.values())
        for worker in workers:
            if now:
                worker.kill()
            else:
                worker.request_stop()

    def close(self) -> None:
        """End every worker."""
        with self._lock:
            workers = list(self._workers.values())
            self._workers.clear()
        for worker in workers:
            worker.close()


class _ChangedRunnerError(Exception):
    """An implementation has changed the process that others share; the text says it."""


_AFTER_OPEN = ("warm", "turn", "close")
"""Commands that continue what an earlier `open` of the same trial began."""


def _ignore(news: object) -> None:
    """Drop news."""
