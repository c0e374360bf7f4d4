"""What trials took on this machine, kept in the user's cache for later runs."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.machine.cache import user_cache
from harness.measure.work import Work
from harness.store import write_atomically

MOST_LINES = 5000


@dataclass(frozen=True)
class Observation:
    """What one finished trial took, or one timed update.

    Attributes:
        machine: The worker's processor, as `machine.facts.processor` names it.
        alike: Keys that the trial shares with trials like it, the narrowest first.
        share: The part of its updates that learning used.
        wall_time_s: Its own part of the time where trials took turns.
        memory_bytes: Peak of the worker's processes, or None where unknown.
        disk_bytes: Size of what it stored, or None where unknown.
    """

    machine: str
    alike: tuple[str, ...]
    work: Work
    share: float
    wall_time_s: float
    memory_bytes: int | None = None
    disk_bytes: int | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Observation:
        """Rebuild an observation from its fields.

        Raises:
            ValueError, TypeError, KeyError: If the values are not an observation's.
        """
        work, alike = Work(**values["work"]), tuple(map(str, values["alike"]))
        found = cls(**{**values, "work": work, "alike": alike})
        numbers = [*asdict(work).values(), found.share, found.wall_time_s]
        numbers += [found.memory_bytes or 0, found.disk_bytes or 0]
        if not all(math.isfinite(n) and n >= 0 for n in numbers) or not found.share:
            raise ValueError("a number is negative or not finite")
        return found


class History:
    """Observations in a file, one on each line; the newest are kept.

    A file that cannot be read or written counts as empty.

    Args:
        file: Where observations are kept, or None to forget them after the run.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file

    @classmethod
    def of_user(cls) -> History:
        """Return the history in the user's cache folder."""
        cache = user_cache()
        return cls() if cache is None else cls(cache / "costs.jsonl")

    def observations(self, machine: str) -> list[Observation]:
        """Return what was seen on a machine, the oldest first; skip damaged lines."""
        found = []
        for line in self._lines():
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                found.append(Observation.from_json(json.loads(line)))
        return [seen for seen in found if seen.machine == machine]

    def _lines(self) -> list[str]:
        """Return the newest lines; a file of many more is cut to them."""
        if self._file is None:
            return []
        try:
            text = self._file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        lines = [line for line in text.splitlines() if line]
        if len(lines) > 1.2 * MOST_LINES:
            with contextlib.suppress(OSError):
                write_atomically(self._file, "\n".join(lines[-MOST_LINES:]) + "\n")
        return lines[-MOST_LINES:]

    def add(self, observations: Iterable[Observation]) -> None:
        """Append observations."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as stream:
                for seen in observations:
                    # The line before may lack its end: a process was killed there.
                    stream.write(f"\n{json.dumps(asdict(seen))}\n")
