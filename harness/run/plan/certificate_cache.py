"""Certificates of earlier runs, which hold for later runs too.

A certificate's id covers its trial, the plugins' sources, the library versions and the
processor; a hash of the code that certified is kept with it. If all of these are the
same, certifying would find the same, and the kept certificate is used. On a GPU, and
with a framework that has an interpreter of its own, every run certifies anew: the id
covers neither the driver nor the other interpreter's numpy.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from harness.machine.cache import user_cache
from harness.registry import Registry
from harness.run.plan.fingerprint import module_hash, source_hash
from harness.run.plan.todo import Planned
from harness.store import Reading, RunFolder, to_json, write_atomically

_KEPT = (
    *("outcome", "reason", "kernel", "against", "unproven", "where", "causes"),
    *("quantities", "framework", "numpy", "processor", "pinned", "machine", "python"),
    *("host", "compute_time_s", "wall_time_s", "worker_memory_bytes"),
)
"""The facts of a result that are kept: what was found, with what, where, how long."""


@dataclass(frozen=True)
class Remembered:
    """A certificate that was made before.

    Attributes:
        made: When, as "2026-11-26 18:55:00" in UTC.
    """

    made: str
    result: Mapping[str, Any]
    readings: tuple[Reading, ...]


class RememberedCertificates:
    """Certificates in the user's cache; does nothing without one."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @cached_property
    def _by(self) -> dict[str, str]:
        """What certifies, beside what a trial's id covers."""
        return {
            "harness": module_hash("harness.measure.certificate.certify"),
            "reference": source_hash(self._registry.frameworks["numpy"]),
            "numpy": np.__version__,
            "python": platform.python_version(),
        }

    def find(self, todo: Planned) -> Remembered | None:
        """Return the certificate of a trial, or None."""
        file = self._file(todo)
        if file is None:
            return None
        try:
            found = json.loads(file.read_text())
            if found["id"] != todo.id or found["by"] != self._by:
                return None
            readings = tuple(Reading.from_json(line) for line in found["readings"])
            return Remembered(str(found["made"]), dict(found["result"]), readings)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None  # there is no such file, or something else wrote it

    def bring(self, trials: Iterable[Planned], run: RunFolder) -> int:
        """Copy known certificates of trials to a run folder; return their number."""
        count = 0
        for todo in trials:
            known = self.find(todo) if todo.runs else None
            if known is not None:
                attempt = run.begin(todo.trial, todo.id, todo.sources)
                attempt.commit({**known.result, "made": known.made}, known.readings, {})
                count += 1
        return count

    def keep(self, trials: Iterable[Planned], run: RunFolder, *, since: float) -> None:
        """Keep the certificates of trials that hold and were made since a time.

        Older certificates in the run folder may come from other code.

        Args:
            trials: Trials that may have been certified.
            run: The folder with their certificates.
            since: In seconds since the epoch.
        """
        for todo in trials:
            record, file = run.read(todo.id), self._file(todo)
            if file is None or record is None or "made" in record.result:
                continue
            made = record.result["committed_at"]
            if made < since or not record.value("certificate", "certified"):
                continue
            kept = {
                "id": todo.id,
                "by": self._by,
                "made": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(made)),
                "result": {n: record.result.get(n) for n in _KEPT},
                "readings": [reading.to_json() for reading in record.readings],
            }
            with contextlib.suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, to_json(kept))

    def _file(self, todo: Planned) -> Path | None:
        """Return the file for a trial's certificate, or None if none may be kept."""
        folder, trial = user_cache(), todo.trial
        if folder is None or trial.measure != "parity" or trial.device != "cpu":
            return None
        framework = self._registry.framework_of(trial.implementation).name
        if framework in self._registry.environments:
            return None
        return folder / "certificates" / f"{trial.key()[:32]}.json"
