"""Certificates of earlier runs, which hold for later ones too.

A certificate's identity names its trial, the plugins' sources, the library versions and
the processor; kept beside it is a hash of what certified it. Where all are the same, so
is what certifying would find, and the certificate is taken as it was made. On a GPU,
and with a framework in an environment of its own, every run makes its own: its driver,
or its numpy, is in no identity.
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
"""What was found, with what and where. What it cost is what it would cost again."""


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
    """Those in the user's cache; where there is no cache, none are kept."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @cached_property
    def _by(self) -> dict[str, str]:
        """What certifies, beside what a trial's identity names."""
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
            return None  # none, or none of ours

    def bring(self, trials: Iterable[Planned], run: RunFolder) -> int:
        """Put what is known of trials into a run folder; return how many that are."""
        count = 0
        for todo in trials:
            known = self.find(todo) if todo.runs else None
            if known is not None:
                attempt = run.begin(todo.trial, todo.id, todo.sources)
                attempt.commit({**known.result, "made": known.made}, known.readings, {})
                count += 1
        return count

    def keep(self, trials: Iterable[Planned], run: RunFolder, *, since: float) -> None:
        """Keep the certificates of trials that were made since then and that hold.

        Older ones in the run folder may be of other code.

        Args:
            trials: That may have been certified.
            run: Where their certificates are.
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
        """Return where a trial's newest certificate is kept, if any may be."""
        folder, trial = user_cache(), todo.trial
        if folder is None or trial.measure != "parity" or trial.device != "cpu":
            return None
        framework = self._registry.framework_of(trial.implementation).name
        if framework in self._registry.environments:
            return None
        return folder / "certificates" / f"{trial.key()[:32]}.json"
