"""What trials took on this machine, kept in a file for later runs."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.files.opening import opened_to_append, read_file
from harness.files.text import has_seal, parse_object, sealed
from harness.machine.cache import user_cache
from harness.measure.work import Work
from harness.store import write_bytes_atomically

MOST_LINES = 5000
_MOST_BYTES = 1 << 25

_OTHER_FORM = (ValueError, TypeError, KeyError, AttributeError)
"""What a line that another program wrote, or that was cut, raises when it is read."""


@dataclass(frozen=True)
class Observation:
    """What a finished trial, or a timed update, took: a line of the file.

    Attributes:
        machine: The worker's processor, as `machine.facts.processor` names it.
        alike: Keys that the trial shares with similar trials, the narrowest first.
        share: The part of its updates that learning used.
        wall_time_s: The trial's own part of the time if trials took turns.
        memory_bytes: Peak of the worker's processes, or None if unknown.
        disk_bytes: Size of the stored files, or None if unknown.
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
        if not all(math.isfinite(n) and n >= 0 for n in numbers) or not (
            found.share and work.file_bytes
        ):
            raise ValueError("a number is negative or not finite")
        return found


def user_file() -> Path | None:
    """Return the file in the user's cache folder; None without such a folder."""
    cache = user_cache()
    return None if cache is None else cache / "costs.jsonl"


def observations(file: Path) -> list[Observation]:
    """Return the observations in the file, the oldest first.

    Other lines are skipped, and a file that cannot be read counts as empty. A file with
    many more lines than `MOST_LINES` is cut to the newest.
    """
    found = []
    for line in _newest_lines(file):
        with contextlib.suppress(*_OTHER_FORM):
            has_seal(line)  # a line of an earlier version has none
            found.append(Observation.from_json(parse_object(line)))
    return found


def _newest_lines(file: Path) -> list[bytes]:
    try:
        content = read_file(file, _MOST_BYTES)
    except OSError:
        return []
    lines = [line for line in content.splitlines() if line]
    newest = lines[-MOST_LINES:]
    if len(lines) > 1.2 * MOST_LINES:
        with contextlib.suppress(OSError):
            write_bytes_atomically(file, b"\n".join(newest) + b"\n")
    return newest


def append(file: Path, seen: Iterable[Observation]) -> None:
    """Append observations to the file, if it can be written."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with opened_to_append(file) as stream:
            for observation in seen:
                # A process that was killed leaves a line without its end.
                line = sealed(json.dumps(asdict(observation)))
                stream.write(f"\n{line}\n".encode())
