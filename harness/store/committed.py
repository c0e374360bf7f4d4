"""Read the committed files of a trial, and check their hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from harness.errors import MisuseError
from harness.store.files import hash_of
from harness.store.record import SCHEMA, Reading, TrialRecord
from harness.trial import SettingsError, Trial


class DamagedError(Exception):
    """The files of a trial differ from what was committed."""


@dataclass(frozen=True)
class Committed:
    """The files of a finished trial: `result.json`, the trial and its curves."""

    result: dict[str, Any]
    trial: Trial
    events: bytes

    def record(self) -> TrialRecord:
        """Return the finished trial."""
        result = self.result
        readings = [Reading.from_json(line) for line in result.pop("readings")]
        # All lines at once, which is several times as fast as one after the other.
        lines = from_json(b"[" + b",".join(self.events.splitlines()) + b"]")
        readings += [Reading.from_json(line) for line in lines]
        return TrialRecord(
            result["trial"],
            self.trial,
            result["outcome"],
            result["reason"],
            result,
            tuple(readings),
        )


def read_committed(folder: Path) -> Committed | None:
    """Return the committed files of a trial, or None if nothing was committed.

    Raises:
        DamagedError: If the files differ from what was committed.
        MisuseError: If a newer version wrote them.
    """
    file = folder / "result.json"
    try:
        if not file.exists():
            return None
        result = json.loads(file.read_bytes())
        hashes, schema = dict(result["files"]), int(result["schema"])
        if schema > SCHEMA:
            raise MisuseError(
                f"{file} has schema {schema}, written by a newer rnn-harness; upgrade"
            )
        _check(result)
        spec = (folder / "spec.json").read_bytes()
        trial = Trial.from_json(json.loads(spec)["trial"])
    except SettingsError as error:
        raise DamagedError(f"spec.json: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            "result.json or spec.json is cut short or unreadable"
        ) from error
    if result["trial"] != folder.name:
        raise DamagedError(f"it is a copy of {result['trial']}")
    events = b""
    for name, expected in hashes.items():
        try:
            content = spec if name == "spec.json" else (folder / name).read_bytes()
        except OSError:
            content = None
        if content is None or hash_of(content) != expected:
            raise DamagedError(f"{name} does not match its hash")
        if name.endswith("events.jsonl"):
            events = content
    return Committed(result, trial, events)


def _check(result: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError unless a result can be read."""
    for line in result["readings"]:
        Reading.from_json(line)
    if not isinstance(result["outcome"], str):
        raise TypeError("outcome")
    _ = result["reason"], result["trial"]
    _ = order_of_commit(result)


def order_of_commit(result: Mapping[str, Any]) -> tuple[int, float]:
    """Return a key that sorts the commits of a run."""
    return int(result.get("commit", 0)), float(result["committed_at"])
