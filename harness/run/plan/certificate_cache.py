"""A cache of certificates, so that a later run need not make them again.

The id of a certificate's trial covers the plugins' sources, the library versions and
the processor; the cache also keeps a hash of the code that certified. If all of these
are the same, certifying again would give the same result, and the cached certificate
is used. A certificate on a GPU, or in an interpreter of the framework's own, is never
cached: the id covers neither the driver nor the other interpreter's numpy. Nor is one
of a plugin with a file that is not hashed whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from harness.files.text import read_sealed, sealed
from harness.machine.cache import user_cache
from harness.measure import MEASURES
from harness.registry import Registry
from harness.run.plan.fingerprint import compared_whole, source_hash
from harness.run.plan.todo import Planned
from harness.store import Reading, RunFolder, to_json, write_atomically
from harness.store.document import check_facts
from harness.store.record import check_ranges

_KEPT = (
    *("outcome", "reason", "kernel", "against", "unproven", "where", "causes"),
    *("quantities", "framework", "numpy", "processor", "pinned", "machine", "python"),
    *("host", "compute_time_s", "wall_time_s", "worker_memory_bytes"),
)
"""The facts of a result that are cached."""


_ABOVE = {"analysis", "cli", "report", "run"}
"""The folders of `harness` that what certifies cannot import, since imports point down.

Following its imports would take a command longer than all else that it does first.
"""


@dataclass(frozen=True)
class CachedCertificate:
    """A certificate that an earlier run made.

    Attributes:
        made: The time when it was made, such as "2026-11-26 18:55:00", in UTC.
    """

    made: str
    result: Mapping[str, Any]
    readings: tuple[Reading, ...]


class CertificateCache:
    """Certificates in the user's cache folder; does nothing if there is none."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @cached_property
    def _by(self) -> dict[str, str]:
        """Versions and hashes of what certifies, beside those in a trial's id."""
        return {
            "harness": _hash_of_harness(),
            "reference": source_hash(self._registry.frameworks["numpy"]),
            "numpy": np.__version__,
            "python": platform.python_version(),
        }

    def find(self, todo: Planned) -> CachedCertificate | None:
        """Return the certificate of a trial, or None."""
        file = self._file(todo)
        if file is None:
            return None
        try:
            found = read_sealed(file)
            if found["id"] != todo.id or found["by"] != self._by:
                return None
            check_facts(found["result"])
            readings = tuple(Reading.from_json(line) for line in found["readings"])
            check_ranges(readings, found["result"].get("quantities") or {})
            return CachedCertificate(
                str(found["made"]), dict(found["result"]), readings
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None  # there is none, it is damaged, or another program wrote it

    def bring(self, trials: Iterable[Planned], run: RunFolder) -> int:
        """Copy cached certificates of trials to a run folder; return their number."""
        count = 0
        for todo in trials:
            known = self.find(todo) if todo.runs else None
            if known is not None:
                attempt = run.begin(todo.trial, todo.id, todo.sources)
                attempt.commit({**known.result, "made": known.made}, known.readings, {})
                count += 1
        return count

    def keep(self, trials: Iterable[Planned], run: RunFolder, *, since: float) -> None:
        """Cache the certificates in a run folder that hold and are not older.

        Older certificates in the run folder may come from other code.

        Args:
            trials: Trials that may have been certified.
            run: The folder with their certificates.
            since: The oldest time that counts, in seconds since the epoch.
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
                write_atomically(file, sealed(to_json(kept)))

    def _file(self, todo: Planned) -> Path | None:
        """Return the file for a trial's certificate, or None if it is never cached."""
        folder, trial = user_cache(), todo.trial
        cached = MEASURES[trial.measure].cached and trial.device == "cpu"
        if folder is None or not cached:
            return None
        framework = self._registry.framework_of(trial.implementation).name
        if framework in self._registry.interpreters:
            return None
        if not compared_whole(self._registry, trial):
            return None
        return folder / "certificates" / f"{trial.key()[:32]}.json"


def _hash_of_harness() -> str:
    """Return a hash of all modules that take part in a certificate."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root)
        if name.parts[0] not in _ABOVE:
            digest.update(os.fsencode(name) + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
