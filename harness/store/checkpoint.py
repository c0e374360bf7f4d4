"""A checkpoint from which a learning trial continues: one file, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.contract import Weights
from harness.files.arrays import hash_of_array, read_arrays, write_arrays
from harness.files.opening import read_file
from harness.files.text import has_seal, hash_of, parse_object, sealed, to_json
from harness.store.committed import MOST_EVENTS_BYTES, NOT_READABLE

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
        "arrays": {name: hash_of_array(array) for name, array in arrays.items()},
    }
    entry = np.frombuffer(sealed(to_json(document)).encode(), dtype=np.uint8)
    write_arrays(folder / NAME, {**arrays, _STATE: entry})


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return an attempt's checkpoint, or None if there is none or it is damaged."""
    try:
        arrays = read_arrays(folder / NAME)
        document = _document(arrays.pop(_STATE).tobytes(), arrays)
        length = int(document["events_bytes"])
        events = read_file(folder / "events.jsonl", MOST_EVENTS_BYTES)[:length]
        if hash_of(events) != document["events_hash"]:
            return None
        state, wall_time_s = dict(document["state"]), float(document["wall_time_s"])
        return Checkpoint(state, arrays, events, wall_time_s, folder.name)
    except (OSError, *NOT_READABLE):
        return None


def _document(content: bytes, arrays: Weights) -> dict[str, Any]:
    """Return everything but the arrays, whose hashes it holds.

    Raises:
        ValueError: If an array is not what was written.
    """
    document = parse_object(content)
    found = {name: hash_of_array(array) for name, array in arrays.items()}
    # One that an earlier version wrote has neither hashes nor a checksum.
    if has_seal(content) != ("arrays" in document):
        raise ValueError("it has lost its checksum")
    if document.get("arrays", found) != found:
        raise ValueError("its arrays are not those that were written")
    return document
