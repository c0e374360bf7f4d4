"""The parent's side of a worker: start it, ask it, enforce limits, report its end."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.contract import Weights
from harness.machine.pinning import worker_environment
from harness.run.job import Limits, Start
from harness.run.worker.limits import Watch
from harness.run.worker.log import LogPump, Write
from harness.run.worker.outcome import outcome_of_death
from harness.run.worker.pipe import EndingPipe, Message, receive, send
from harness.run.worker.reaper import MARK, reaper
from harness.trial import Trial

READY_S = 120.0
"""What a worker may take until it listens: it imports numpy and plugin files."""


class WorkerDiedError(Exception):
    """The worker ended without an answer; `outcome` and `reason` say how."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class WorkerProcess:
    """One worker, its threads pinned before its framework is imported.

    Args:
        python: The interpreter of its framework's environment.
        threads: What every numerical library may use.
        files: Plugin files it reads.
        log: Called with what is printed between trials.
        limits: Enforced on each trial.
        environment: Variables its framework needs before it is imported.
        device: The one it sees, `cpu` or `cuda:N`.
        precision: As its trials'.
    """

    def __init__(
        self,
        python: Path,
        threads: int,
        files: Sequence[Path],
        log: Write,
        limits: Limits | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        device: str = "cpu",
        precision: str = "highest",
    ) -> None:
        self._limits = limits or Limits()
        mark = f"{reaper().mark}-{uuid.uuid4().hex}"
        output, theirs = os.pipe()
        # -P keeps the current folder off the path, where a user's own tasks.py or
        # copy.py would shadow a module.
        self._process = subprocess.Popen(
            [str(python), "-P", "-m", "harness.run.worker.main", *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={
                **worker_environment(threads, device, precision),
                **(environment or {}),
                MARK: mark,
            },
            start_new_session=True,
            bufsize=0,
        )
        os.close(theirs)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._log = LogPump(output, log)
        self._watch = Watch(self._process, self._limits.memory_bytes, mark)
        self._requests = self._process.stdin
        self._stdout = self._process.stdout
        source = EndingPipe(self._stdout.fileno(), self._watch.ended.is_set)
        self._answers = io.BufferedReader(source)
        self._ready = False

    @property
    def peak_memory_bytes(self) -> int:
        """Highest memory of the worker and its children during the last request."""
        return self._watch.peak_memory_bytes

    def ask(
        self,
        command: str,
        trial_id: str,
        trial: Trial,
        log: Write,
        *,
        arrays: Weights | None = None,
        start: Start | None = None,
        phase: str | None = None,
        number: int = 0,
        spent_s: float = 0.0,
    ) -> Iterator[Message]:
        """Send a request; yield events, then the answer, which is last.

        Args:
            command: `measure`, `open`, `warm`, `turn`, `close`, `probe` or `peak`.
            trial_id: What the worker knows an open meter by.
            trial: What to measure.
            log: Called with what is printed meanwhile.
            arrays: Tensors the measure needs.
            start: Where a learning trial goes on.
            phase: The phase of a turn.
            number: The round of a turn.
            spent_s: What earlier requests of this trial took of its time.

        Raises:
            WorkerDiedError: If the worker ends first.
        """
        values = {
            "command": command,
            "id": trial_id,
            "trial": trial.to_json(),
            "phase": phase,
            "round": number,
            "checkpoint_s": self._limits.checkpoint_s,
            "start": None if start is None else start.state,
        }
        timeout_s = self._limits.timeout_s
        self._log.listen(log)
        self._watch.begin(timeout_s and max(0.0, timeout_s - spent_s), timeout_s)
        try:
            tensors = arrays if start is None else start.arrays
            yield from self._exchange(Message(values, tensors or {}), trial)
        finally:
            self._watch.end()
            self._log.listen(None)

    def _exchange(self, request: Message, trial: Trial) -> Iterator[Message]:
        try:
            send(self._requests, request)
        except (OSError, ValueError):
            raise self._death(trial) from None
        while True:
            message = receive(self._answers)
            if message is None:
                raise self._death(trial)
            if message.values["kind"] == "ready":
                self._ready = True
                continue
            yield message
            if message.values["kind"] not in ("begins", "event", "checkpoint"):
                return

    def _death(self, trial: Trial) -> WorkerDiedError:
        # Its pipe closes before the process ends, and only then is its exit code known.
        if not self._watch.ended.wait(timeout=5):
            self.kill()
        verdict = self._watch.verdict or outcome_of_death(
            self._process.wait(), trial.implementation
        )
        return WorkerDiedError(*verdict)

    def request_stop(self) -> None:
        """Make a learning trial leave a checkpoint and end; other trials finish."""
        if not self._ready:
            self.kill()
        elif self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGUSR1)

    def close(self) -> None:
        """Let the worker end by itself, and make sure that it does."""
        with contextlib.suppress(OSError):
            self._requests.close()
        if not self._watch.ended.wait(timeout=5):
            self.kill()
        self._stdout.close()

    def kill(self) -> None:
        """End the worker and everything it started, now."""
        self._watch.kill()
