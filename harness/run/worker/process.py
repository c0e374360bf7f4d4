"""Start a worker, ask it, enforce its limits and report its end."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.contract import Weights
from harness.machine.pinning import worker_environment
from harness.messages.pipe import EndingPipe, Message, MessageError, receive, send
from harness.run.job import Limits, Start
from harness.run.worker.limits import Watch
from harness.run.worker.log import LogPump, Write
from harness.run.worker.outcome import outcome_of_death
from harness.run.worker.reaper import MARK, reaper
from harness.trial import Trial


@dataclass(frozen=True)
class Request:
    """What a worker is asked about a trial.

    Attributes:
        command: `measure`, `open`, `warm`, `turn`, `close`, `probe` or `peak`; see
            `harness.run.worker.judge`.
        trial_id: The name under which the worker keeps an open meter.
        phase: The phase of a turn.
        number: The round of a turn.
        arrays: Tensors that the trial needs.
        start: The checkpoint from which a learning trial continues, or None.
    """

    command: str
    trial_id: str
    trial: Trial
    phase: str | None = None
    number: int = 0
    arrays: Weights = field(default_factory=dict, repr=False)
    start: Start | None = None

    def message(self, checkpoint_s: float, name: str | None = None) -> Message:
        """Return the request as the worker reads it."""
        values = {
            "command": self.command,
            "request": name,
            "id": self.trial_id,
            "trial": self.trial.to_json(),
            "phase": self.phase,
            "round": self.number,
            "checkpoint_s": checkpoint_s,
            "start": None if self.start is None else self.start.state,
        }
        arrays = self.arrays if self.start is None else self.start.arrays
        return Message(values, arrays)


class WorkerDiedError(Exception):
    """The worker ended without an answer; `outcome` and `reason` say why."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class WorkerProcess:
    """One worker; its threads are pinned before it imports its framework.

    Args:
        python: The interpreter that it runs in.
        threads: How many threads each numerical library may use.
        declared: The declarations of plugins of others, `Registry.declared`.
        log: Called with what it prints between trials.
        limits: The limits of each trial.
        variables: Environment variables that its framework needs before it is imported.
        device: The only device that it sees, `cpu` or `cuda:N`.
        precision: The precision of its trials.

    Attributes:
        served: The names of the trials that it was asked about.
        ran: The implementations of these trials.
    """

    def __init__(
        self,
        python: Path,
        threads: int,
        declared: str,
        log: Write,
        limits: Limits | None = None,
        variables: Mapping[str, str] | None = None,
        *,
        device: str = "cpu",
        precision: str = "highest",
    ) -> None:
        self._limits = limits or Limits()
        mark = f"{reaper().mark}-{uuid.uuid4().hex}"
        output, printing = os.pipe()
        answers, answering = os.pipe()
        # -P keeps the current folder off the path, where a user's own tasks.py or
        # copy.py would shadow a module.
        try:
            self._process = subprocess.Popen(
                [str(python), "-P", "-m", "harness.run.worker.main"],
                stdin=subprocess.PIPE,
                stdout=answering,
                stderr=printing,
                env={
                    **worker_environment(threads, device, precision),
                    **(variables or {}),
                    MARK: mark,
                },
                start_new_session=True,
                bufsize=0,
            )
        except OSError:
            os.close(output)
            os.close(answers)
            raise
        finally:
            os.close(printing)
            os.close(answering)
        assert self._process.stdin is not None
        self._log = LogPump(output, log)
        self._watch = Watch(self._process, self._limits.memory_bytes, mark)
        self._requests = self._process.stdin
        source = EndingPipe(answers, self._watch.ended.is_set)
        self._answers = io.BufferedReader(source)
        self._ready = False
        with contextlib.suppress(OSError):  # the first request reports its death
            send(self._requests, Message({"declared": declared}))
        self.served: set[str] = set()
        self.ran: set[str] = set()

    @property
    def peak_memory_bytes(self) -> int:
        """The highest memory of the worker and its children in the last request."""
        return self._watch.peak_memory_bytes

    def ask(
        self,
        request: Request,
        log: Write,
        spent_s: float = 0.0,
    ) -> Iterator[Message]:
        """Send a request; yield what the worker reports, last its answer.

        Args:
            request: The request.
            log: Called with what is printed meanwhile.
            spent_s: The time that earlier requests of this trial took.

        Raises:
            WorkerDiedError: If the worker ends before it answers.
        """
        self.served.add(request.trial_id)
        self.ran.add(request.trial.implementation)
        timeout_s = self._limits.timeout_s
        self._log.listen(log)
        self._watch.begin(timeout_s and max(0.0, timeout_s - spent_s), timeout_s)
        try:
            yield from self._exchange(request)
        finally:
            self._watch.end()
            self._log.listen(None)

    def _exchange(self, request: Request) -> Iterator[Message]:
        name = uuid.uuid4().hex
        try:
            send(self._requests, request.message(self._limits.checkpoint_s, name))
        except (OSError, ValueError):
            raise self._death(request.trial) from None
        while True:
            message = self._next(request.trial, name)
            answered = message.values["kind"] not in ("begins", "event", "checkpoint")
            if answered:
                self._watch.check_memory()
                if self._watch.verdict:  # a limit has killed the runner, or ends it now
                    raise WorkerDiedError(*self._watch.verdict)
            yield message
            if answered:
                return

    def _next(self, trial: Trial, name: str) -> Message:
        """Return the next message about a request."""
        while True:
            try:
                message = receive(self._answers)
            except MessageError as error:
                self.kill()
                reason = f"the worker of {trial.implementation} sent {error}"
                raise WorkerDiedError("crashed", reason) from None
            if message is None:
                raise self._death(trial)
            if message.values.get("kind") == "ready":
                self._ready = True
            # An earlier request may be answered once more.
            elif message.values.get("request") == name:
                return message

    def _death(self, trial: Trial) -> WorkerDiedError:
        # The pipe closes before the process ends, and only then is there an exit code.
        if not self._watch.ended.wait(timeout=5):
            self.kill()
        verdict = self._watch.verdict or outcome_of_death(
            self._process.wait(), trial.implementation
        )
        return WorkerDiedError(*verdict)

    def request_stop(self) -> None:
        """Make a learning trial write a checkpoint and end; other trials finish."""
        if not self._ready:
            self.kill()
        elif self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGUSR1)

    def close(self) -> None:
        """Let the worker end by itself; kill it if it does not."""
        with contextlib.suppress(OSError):
            self._requests.close()
        if not self._watch.ended.wait(timeout=5):
            self.kill()
        self._answers.close()

    def kill(self) -> None:
        """Kill the worker and everything that it started."""
        self._watch.kill()
