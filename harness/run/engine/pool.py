"""The live workers of one slot, and how they are asked."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from harness.contract import Weights
from harness.machine.lock import measuring
from harness.machine.peak import Peak
from harness.measure import MEASURES, by_reference
from harness.registry import Registry
from harness.run.engine.peaks import PeakKey, Peaks
from harness.run.engine.session import Ask, Stands, fitness_before, time_in_turns
from harness.run.job import Answer, Job, Limits, Sink, Start, StoppedError
from harness.run.worker.log import Write
from harness.run.worker.pipe import Message
from harness.run.worker.process import WorkerDiedError, WorkerProcess
from harness.store import Reading
from harness.trial import Trial


@dataclass(frozen=True)
class WorkerKind:
    """What is settled when a worker starts.

    Attributes:
        own: The trial that it serves alone, or "" where it serves all of its kind.
    """

    framework: str
    device: str
    threads: int
    precision: str
    own: str = ""


class Crew:
    """Workers of every kind that jobs of one slot have needed, each asked in turn.

    Args:
        registry: Whose plugin files and environments the workers use.
        limits: Enforced on every trial.
        log: Called with what workers print between trials.
    """

    def __init__(self, registry: Registry, limits: Limits, log: Write) -> None:
        self._registry, self._limits, self._log = registry, limits, log
        self._workers: dict[WorkerKind, WorkerProcess] = {}
        self._served: dict[WorkerProcess, set[str]] = {}
        self._asking: dict[WorkerKind, threading.Lock] = {}
        self._peaks = Peaks(registry, self._peak)
        self._newest: dict[str, Start] = {}
        self._lock = threading.RLock()  # a signal may ask to stop meanwhile
        self._stopping: str | None = None

    def run(self, job: Job, sink: Sink) -> Mapping[str, Answer]:
        """Run a job and return the answer of each trial by its id.

        A worker is thrown away when a trial of it did not end `ok`.

        Raises:
            StoppedError: If `stop` was called with `now` meanwhile, or while the job
                waited for its machine.
        """
        waited = False

        def waits() -> None:
            nonlocal waited
            waited = True
            sink.waits(_SESSION_WAITS if job.session else _WAITS)

        with measuring(alone=job.session, waits=waits, check=self._check):
            if waited:
                sink.waits(None)
            return self._session(job, sink) if job.session else self._one(job, sink)

    def _one(self, job: Job, sink: Sink) -> dict[str, Answer]:
        ((trial_id, trial),) = job.trials.items()
        kind = self._kind(trial)
        found = self._ask(_Asked(trial_id, trial, "measure", kind, job=job), sink)
        assert isinstance(found, Answer)
        if _ended_by_others(found):  # its worker is gone: now it has a fresh one
            again = replace(job, start=self._newest.get(trial_id, job.start))
            asked = _Asked(trial_id, trial, "measure", kind, job=again)
            found = self._ask(asked, sink)
            assert isinstance(found, Answer)
        self._newest.pop(trial_id, None)
        if kind.own or found.outcome != "ok":
            self._drop(kind)
        return {trial_id: found}

    def _session(self, job: Job, sink: Sink) -> dict[str, Answer]:
        fitness = fitness_before(job.trials.values())
        with self.asker(job, sink) as (ask, stands):
            answers = time_in_turns(job.trials, ask, sink, stands)
        peaks = self._peaks_of(job, answers, fitness["verdict"])
        found = {}
        for id, answer in answers.items():
            peak = peaks.get(PeakKey.of(job.trials[id]))
            facts = {"fitness": fitness, **({"peak": peak.to_json()} if peak else {})}
            found[id] = replace(answer, facts={**answer.facts, **facts})
        return found

    def _peaks_of(
        self, job: Job, answers: Mapping[str, Answer], machine: str
    ) -> Mapping[PeakKey, Peak]:
        """Return what the libraries of a session reach, now that it has ended.

        Not under a memory limit, which large arrays of no trial might break.
        """
        if self._limits.memory_bytes is not None:
            return {}
        ok = [trial for id, trial in job.trials.items() if answers[id].outcome == "ok"]
        return self._peaks.best(ok, machine)

    @contextlib.contextmanager
    def asker(self, job: Job, sink: Sink) -> Iterator[tuple[Ask, Stands]]:
        """Give what `time_in_turns` asks this crew's workers with.

        Whoever holds several crews can have trials of all of them take turns. Workers
        are fresh, so that a first call is one, whatever was certified or timed before.
        At the end a worker is thrown away when a trial of it did not end `ok`.

        Args:
            job: Trials of a session, each asked about by its id.
            sink: Told what trials print.
        """
        spent = dict.fromkeys(job.trials, 0.0)
        peaks = dict.fromkeys(job.trials, 0)
        kinds = {id: self._kind(trial) for id, trial in job.trials.items()}
        ended: dict[str, Answer] = {}
        firsts = _FirstCalls()

        def ask(
            trial_id: str,
            trial: Trial,
            command: str,
            phase: str | None,
            number: int = 0,
        ) -> Answer | tuple[Any, ...] | None:
            if command == "open":  # maybe once more, after another's worker died
                spent[trial_id], peaks[trial_id] = 0.0, 0
            if command == "warm":
                firsts.come(trial_id, self._workers.get(kinds[trial_id]))
            asked = _Asked(
                trial_id,
                trial,
                command,
                kinds[trial_id],
                phase,
                number,
                spent[trial_id],
            )
            begin = time.monotonic()
            found = self._ask(asked, sink, peaks)
            if command != "open":  # the import and its neighbours' are no time of it
                spent[trial_id] += time.monotonic() - begin
            if isinstance(found, Answer):
                ended[trial_id] = found = firsts.told(trial_id, found)
            return found

        def stands(trial_id: str, answer: Answer) -> bool:
            if not _ended_by_others(answer):
                return True
            kinds[trial_id] = replace(kinds[trial_id], own=trial_id)
            return False

        self._renew(kinds.values())
        try:
            yield ask, stands
        finally:
            for trial_id, kind in kinds.items():
                ok = trial_id not in ended or ended[trial_id].outcome == "ok"
                if kind.own or not ok:
                    self._drop(kind)

    def probe(self, trial: Trial) -> str | None:
        """Build the network of a trial, and no more; return why that fails, or None."""
        found = self._ask(_Asked("probe", trial, "probe", self._kind(trial)), _Deaf())
        return f"{found.outcome}: {found.reason}" if isinstance(found, Answer) else None

    def _peak(self, trial: Trial) -> Peak | None:
        found = self.peak(trial)
        return found if isinstance(found, Peak) else None

    def peak(self, trial: Trial) -> Peak | Answer:
        """Return the highest rates of a trial's framework, or why there are none.

        They are measured in the worker that serves the trial, in its dtype and
        precision. This takes about a second beside importing the framework.
        """
        framework = self._registry.framework_of(trial.implementation)
        if framework.probe is None:
            reason = f"the framework '{framework.name}' declares no probe"
            return Answer("refused", reason)
        found = self._ask(_Asked("peak", trial, "peak", self._kind(trial)), _Deaf())
        assert isinstance(found, Answer)
        if found.outcome != "ok":
            return found
        return Peak.from_json(found.facts["peak"])

    # --- one request -----------------------------------------------------------------

    def _ask(
        self, asked: _Asked, sink: Sink, peaks: dict[str, int] | None = None
    ) -> Answer | tuple[Any, ...] | None:
        """Ask the worker of a trial's kind; its death is an answer too.

        Workers are asked at once, and one worker one thing after the other.
        """
        with self._lock:
            asking = self._asking.setdefault(asked.kind, threading.Lock())
        with asking:
            return self._exchange(asked, sink, peaks)

    def _exchange(
        self, asked: _Asked, sink: Sink, peaks: dict[str, int] | None
    ) -> Answer | tuple[Any, ...] | None:
        kind = asked.kind
        try:
            worker = self._worker(kind)
        except OSError as error:
            python = self._registry.python_of(kind.framework)
            reason = f"{python} cannot be started ({error.strerror})"
            return Answer("unavailable", reason)
        peaks = {asked.id: 0} if peaks is None else peaks
        served = self._served.setdefault(worker, set())
        served.add(asked.id)
        message = None
        try:
            for message in worker.ask(
                asked.command,
                asked.id,
                asked.trial,
                partial(sink.log, asked.id),
                arrays=asked.job.arrays if asked.job else None,
                start=asked.job.start if asked.job else None,
                phase=asked.phase,
                number=asked.number,
                spent_s=asked.spent_s,
            ):
                _pass_on(asked.id, message, sink)
                if message.values["kind"] == "checkpoint":
                    start = Start(message.values["state"], message.arrays)
                    self._newest[asked.id] = start
        except WorkerDiedError as error:
            self._drop(kind)
            if self._stopping:
                raise StoppedError from None
            message = None
            answer = Answer(error.outcome, error.reason, died=True)
        peaks[asked.id] = max(peaks[asked.id], worker.peak_memory_bytes)
        if message is not None and message.values["kind"] in _NO_END:
            values = message.values
            return tuple(values.get("phases") or values.get("readings_s") or ())
        if message is not None:
            answer = _answer(message)
        facts = {
            **answer.facts,
            "host": socket.gethostname(),
            "worker_memory_bytes": peaks[asked.id],
            # What others left behind, or have open beside it, is not its own.
            "peak_memory_bytes": peaks[asked.id] if served == {asked.id} else None,
        }
        return replace(answer, facts=facts)

    # --- workers ---------------------------------------------------------------------

    def _kind(self, trial: Trial) -> WorkerKind:
        framework = self._registry.framework_of(trial.implementation).name
        device = trial.device
        if by_reference(self._registry, trial):
            framework, device = "numpy", "cpu"
        own = trial.key() if MEASURES[trial.measure].own_worker else ""
        return WorkerKind(framework, device, trial.threads, trial.precision, own)

    def _worker(self, kind: WorkerKind) -> WorkerProcess:
        with self._lock:
            if self._stopping == "now":
                raise StoppedError
            if kind not in self._workers:
                if self._stopping:
                    raise StoppedError
                self._workers[kind] = WorkerProcess(
                    self._registry.python_of(kind.framework),
                    kind.threads,
                    self._registry.files,
                    self._log,
                    self._limits,
                    self._registry.frameworks[kind.framework].environment,
                    device=kind.device,
                    precision=kind.precision,
                )
            return self._workers[kind]

    def _check(self) -> None:
        if self._stopping:
            raise StoppedError

    def _drop(self, kind: WorkerKind) -> None:
        with self._lock:
            worker = self._workers.pop(kind, None)
        if worker is not None:
            self._served.pop(worker, None)
            worker.kill()
            worker.close()

    def _renew(self, kinds: Iterable[WorkerKind]) -> None:
        """Let workers end that have done anything; the next to be asked are fresh."""
        with self._lock:
            live = {k: self._workers[k] for k in kinds if k in self._workers}
            used = {k: worker for k, worker in live.items() if self._served.get(worker)}
            for kind, worker in used.items():
                del self._workers[kind], self._served[worker]
        for worker in used.values():
            worker.close()

    def stop(self, *, now: bool) -> None:
        """Have learning checkpoint itself and end; or, `now`, kill every worker."""
        with self._lock:
            self._stopping = "now" if now else "soon"
            workers = list(self._workers.values())
        for worker in workers:
            if now:
                worker.kill()
            else:
                worker.request_stop()

    def close(self) -> None:
        """Let every worker end."""
        with self._lock:
            workers = list(self._workers.values())
            self._workers.clear()
        for worker in workers:
            worker.close()


class _FirstCalls:
    """Knows whose first call in a session is none, as its worker has built it before.

    A session is begun again when a worker dies, in those that live.
    """

    def __init__(self) -> None:
        self._built: set[tuple[str, WorkerProcess | None]] = set()
        self._again: set[str] = set()

    def come(self, trial_id: str, worker: WorkerProcess | None) -> None:
        """Take note that a trial's first calls come next."""
        known = (trial_id, worker) in self._built
        (self._again.add if known else self._again.discard)(trial_id)
        self._built.add((trial_id, worker))

    def told(self, trial_id: str, answer: Answer) -> Answer:
        """Return an answer that says so."""
        if trial_id not in self._again:
            return answer
        return replace(answer, facts={**answer.facts, "built_before": True})


_NO_END = ("opened", "warmed", "turned", "probed")

_WAITS = "the timing of another rnn-harness command on this machine"
_SESSION_WAITS = "trials of another rnn-harness command on this machine"


class _Deaf:
    """A sink for what nobody listens to."""

    def begins(self, trial_id: str, *, resumed: bool) -> None: ...

    def event(self, trial_id: str, reading: Reading) -> None: ...

    def checkpoint(
        self, trial_id: str, state: Mapping[str, Any], arrays: Weights
    ) -> None: ...

    def log(self, trial_id: str, data: bytes) -> None: ...

    def round(self, number: int, rounds: int) -> None: ...

    def waits(self, for_what: str | None) -> None: ...


@dataclass(frozen=True)
class _Asked:
    id: str
    trial: Trial
    command: str
    kind: WorkerKind
    phase: str | None = None
    number: int = 0
    spent_s: float = 0.0
    job: Job | None = None


def _ended_by_others(answer: Answer) -> bool:
    """Say whether a worker broke the limit with memory of other trials too."""
    broke_limit = answer.died and answer.outcome == "out_of_memory"
    return broke_limit and answer.facts["peak_memory_bytes"] is None


def _pass_on(trial_id: str, message: Message, sink: Sink) -> None:
    values = message.values
    if values["kind"] == "begins":
        sink.begins(trial_id, resumed=values["resumed"])
    elif values["kind"] == "event":
        sink.event(trial_id, Reading.from_json(values["reading"]))
    elif values["kind"] == "checkpoint":
        sink.checkpoint(trial_id, values["state"], message.arrays)


def _answer(message: Message) -> Answer:
    values: Mapping[str, Any] = message.values
    return Answer(
        values["outcome"],
        values["reason"],
        values.get("facts", {}),
        tuple(Reading.from_json(line) for line in values.get("readings", [])),
        message.arrays,
    )
