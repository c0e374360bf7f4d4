"""The parent's side of a worker: start it, ask it, notice its death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from harness.contract import Weights
from harness.environment import pinned_variables
from harness.run.outcome import outcome_of_death
from harness.run.pipe import Message, receive, send
from harness.trial import Trial


class WorkerDiedError(Exception):
    """The worker ended without an answer; `outcome` and `reason` say how."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class WorkerProcess:
    """One worker, its threads pinned before its framework is imported.

    Args:
        threads: What every numerical library may use.
        files: Plugin files it reads.
        log: Where its standard error goes, plugins' prints included.
        environment: Variables its framework needs before it is imported.
    """

    def __init__(
        self,
        threads: int,
        files: Sequence[Path],
        log: IO[bytes],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # -P keeps the current folder off the path, where a user's own tasks.py or
        # copy.py would shadow a module.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.run.worker", *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **pinned_variables(threads), **(environment or {})},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self._answers = self._process.stdout
        self._ready = False

    def ask(
        self,
        command: str,
        trial_id: str,
        trial: Trial,
        log: Path,
        arrays: Weights | None = None,
        phase: str | None = None,
    ) -> Iterator[Message]:
        """Send a request; yield events, then the answer, which is last.

        Args:
            command: `measure`, `open`, `turn` or `close`.
            trial_id: What the worker knows an open meter by.
            trial: What to measure.
            log: Where the worker's output goes from now on.
            arrays: Tensors the measure needs.
            phase: The phase of a turn.

        Raises:
            WorkerDiedError: If the worker ends first.
        """
        values = {
            "command": command,
            "id": trial_id,
            "trial": trial.to_json(),
            "phase": phase,
            "log": str(log),
        }
        try:
            send(self._requests, Message(values, arrays or {}))
        except (BrokenPipeError, ValueError):
            raise self._death(trial) from None
        while True:
            message = receive(self._answers)
            if message is None:
                raise self._death(trial)
            if message.values["kind"] == "ready":
                continue
            yield message
            if message.values["kind"] != "event":
                return

    def _death(self, trial: Trial) -> WorkerDiedError:
        try:  # its pipe closes before it has ended, and how it ends is to be told
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
        return WorkerDiedError(
            *outcome_of_death(self._process.wait(), trial.implementation)
        )

    def close(self) -> None:
        """Let the worker end by itself, and make sure that it does."""
        for stream in (self._requests, self._answers):
            try:
                stream.close()
            except OSError:
                continue
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the worker and everything it started, now."""
        if self._process.poll() is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
        self._process.wait()
