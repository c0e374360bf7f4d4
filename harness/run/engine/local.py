"""Jobs on this machine: a crew of workers for each slot."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from harness.registry import Registry
from harness.run.engine.pool import Crew
from harness.run.job import Answer, Job, Limits, Sink, StoppedError


class LocalEngine:
    """Runs jobs in worker processes of this machine.

    Args:
        registry: Whose plugin files and environments the workers use.
        jobs: Jobs side by side.
        limits: Enforced on every trial.
        log: A file that takes what workers print between trials.
    """

    quiet_slots = 1

    def __init__(
        self, registry: Registry, jobs: int, limits: Limits, log: Path
    ) -> None:
        self._registry, self._limits, self._log = registry, limits, log
        self.slots = jobs
        self.notes: list[str] = []
        self._crews: dict[int, Crew] = {}
        self._lock = threading.RLock()  # a signal may ask to stop meanwhile
        self._stopping = False

    def run(self, job: Job, slot: int, sink: Sink) -> Mapping[str, Answer]:
        """Run a job on a slot's crew.

        Raises:
            StoppedError: If the run was stopped meanwhile.
        """
        with self._lock:
            if self._stopping:
                raise StoppedError
            if slot not in self._crews:
                self._crews[slot] = Crew(self._registry, self._limits, self._write)
            crew = self._crews[slot]
        return crew.run(job, sink)

    def _write(self, data: bytes) -> None:
        with self._log.open("ab") as log:
            log.write(data)

    def stop(self, *, now: bool) -> None:
        """Have learning checkpoint itself and end; or, `now`, end everything."""
        with self._lock:
            self._stopping = True
            crews = list(self._crews.values())
        for crew in crews:
            crew.stop(now=now)

    def close(self) -> None:
        """Let every worker end."""
        with self._lock:
            crews = list(self._crews.values())
            self._crews.clear()
        for crew in crews:
            crew.close()
