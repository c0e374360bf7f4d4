"""Run jobs on this machine, each in a pool of workers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping

from harness.registry import Registry
from harness.run.engine.pool import WorkerPool
from harness.run.engine.session import run_job
from harness.run.job import Answer, Job, Limits, Sink, StoppedError
from harness.run.worker.log import Write


class LocalEngine:
    """Runs jobs in worker processes of this machine.

    Args:
        registry: Names the plugin files and the interpreters of the workers.
        jobs: How many jobs may run side by side.
        limits: The limits of every trial.
        log: Called with what workers print between trials.
    """

    session_slots = 1

    def __init__(
        self, registry: Registry, jobs: int, limits: Limits, log: Write
    ) -> None:
        self._registry, self._limits, self._log = registry, limits, log
        self.slots = jobs
        self.notes: list[str] = []
        self._free: list[WorkerPool] = []
        self._all: list[WorkerPool] = []
        self._lock = threading.RLock()  # a signal handler may call `stop` meanwhile
        self._stopping = False

    def run(self, job: Job, sink: Sink) -> Mapping[str, Answer]:
        """Run a job on a pool of its own.

        Raises:
            StoppedError: If the run is stopped meanwhile.
        """
        with self.lend() as pool:
            return run_job(pool, job, sink)

    @contextlib.contextmanager
    def lend(self) -> Iterator[WorkerPool]:
        """Lend a pool that serves one job at a time; its workers stay alive afterwards.

        Raises:
            StoppedError: If the run was stopped.
        """
        with self._lock:
            if self._stopping:
                raise StoppedError
            if not self._free:
                pool = WorkerPool(self._registry, self._limits, self._log)
                self._all.append(pool)
                self._free.append(pool)
            pool = self._free.pop()
        try:
            yield pool
        finally:
            with self._lock:
                if not pool.stopped:
                    self._free.append(pool)

    def stop(self, *, now: bool) -> None:
        """Let learning trials write a checkpoint and end; `now` ends everything."""
        with self._lock:
            self._stopping = True
            pools = list(self._all)
        for pool in pools:
            pool.stop(now=now)

    def close(self) -> None:
        """End every worker."""
        with self._lock:
            pools = list(self._all)
            self._free.clear()
        for pool in pools:
            pool.close()
