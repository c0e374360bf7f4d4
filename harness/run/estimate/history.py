"""What trials took on this machine, in this run and in those before it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.machine.cache import user_cache
from harness.run.estimate.work import Work
from harness.store import write_atomically

MOST_LINES = 5000


@dataclass(frozen=True)
class Observation:
    """What one finished trial took.

    Attributes:
        machine: Of the worker, as `environment.processor` names it.
        device: Its kind, `cpu` or `cuda`.
        shape: Hash of what one update depends on: plugins, sizes, device, dtype.
        wall_time_s: Its own share, where trials took turns.
        memory_bytes: Peak of the worker's processes, or None where unknown.
        disk_bytes: What it stored, or None where unknown.
        update_s: One update, where that was timed.
        updates: What learning did, in updates that would take as long.
        share: Part of the budget that learning used.
    """

    machine: str
    measure: str
    framework: str
    implementation: str
    cell: str
    device: str
    threads: int
    shape: str
    work: Work
    wall_time_s: float
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    update_s: float | None = None
    updates: float | None = None
    share: float = 1.0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Observation:
        """Rebuild an observation from its fields.

        Raises:
            ValueError, TypeError, KeyError: If it is none.
        """
        found = cls(**{**values, "work": Work(**values["work"])})
        numbers = (*asdict(found.work).values(), found.wall_time_s, found.share)
        optional = (
            found.memory_bytes,
            found.disk_bytes,
            found.update_s,
            found.updates,
        )
        numbers += tuple(n for n in optional if n is not None)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError("a number is negative or not finite")
        return found


class History:
    """Observations in a file of one line each; the newest are kept.

    A file that cannot be read or written is no history, and no error.

    Args:
        file: Where they are kept, or None to keep them nowhere.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._lines = self._read()

    @classmethod
    def of_user(cls) -> History:
        """Return the history in the user's cache folder."""
        cache = user_cache()
        return cls() if cache is None else cls(cache / "costs.jsonl")

    def _read(self) -> list[str]:
        if self._file is None:
            return []
        try:
            text = self._file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return text.splitlines()

    def observations(self, machine: str) -> list[Observation]:
        """Return what was seen on a machine, the oldest first."""
        found = []
        for line in self._lines[-MOST_LINES:]:
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                observation = Observation.from_json(json.loads(line))
                if observation.machine == machine:
                    found.append(observation)
        return found

    def add(self, observation: Observation) -> None:
        """Append an observation."""
        line = json.dumps(asdict(observation), separators=(",", ":"))
        with self._lock, contextlib.suppress(OSError):
            self._lines.append(line)
            if self._file is None:
                return
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # A line that another process was killed in must not swallow this one.
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(f"\n{line}" if self._is_cut() else line)
                stream.write("\n")
            if len(self._lines) > MOST_LINES + MOST_LINES // 5:
                self._lines = self._read()[-MOST_LINES:]
                write_atomically(self._file, "\n".join(self._lines) + "\n")

    def _is_cut(self) -> bool:
        assert self._file is not None
        with self._file.open("rb") as stream:
            if stream.seek(0, os.SEEK_END) == 0:
                return False
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) != b"\n"
