"""A checkpoint from which a learning trial continues: one file, without pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.contract import Weights
from harness.store.files import hash_of, read_arrays, to_json, write_arrays

NAME = "checkpoint.npz"
_STATE = "state.json"
"""The entry that holds everything but the arrays; no array has this name."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of learning, and the curve up to it.

    Attributes:
        state: The state that the measure returned.
        arrays: Weights and optimiser state.
        events: The lines of the curve up to here.
        wall_time_s: The time that all attempts at the trial took so far.
        attempt: The name of the attempt that wrote it.
    """

    state: Mapping[str, Any]
    arrays: Weights = field(repr=False)
    events: bytes = field(repr=False)
    wall_time_s: float
    attempt: str


def write_checkpoint(
    folder: Path,
    state: Mapping[str, Any],
    arrays: Weights,
    events: bytes,
    wall_time_s: float,
) -> None:
    """Replace the checkpoint of an attempt, completely or not at all."""
    document = {
        "state": dict(state),
        "events_bytes": len(events),
        "events_hash": hash_of(events),
        "wall_time_s": wall_time_s,
    }
    entry = np.frombuffer(to_json(document).encode(), dtype=np.uint8)
    write_arrays(folder / NAME, {**arrays, _STATE: entry})


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return an attempt's checkpoint, or None if there is none or it is damaged."""
    try:
        arrays = read_arrays(folder / NAME)
        document = json.loads(arrays.pop(_STATE).tobytes())
        events = (folder / "events.jsonl").read_bytes()[: document["events_bytes"]]
        if hash_of(events) != document["events_hash"]:
            return None
        return Checkpoint(
            document["state"], arrays, events, document["wall_time_s"], folder.name
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
