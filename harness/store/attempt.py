"""One attempt at a trial: it writes events, a log, checkpoints and the commit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.contract import Weights
from harness.store import checkpoint
from harness.store.checkpoint import Checkpoint, write_checkpoint
from harness.store.files import (
    hash_of,
    sync_folder,
    to_json,
    write_arrays,
    write_atomically,
)
from harness.store.record import COUNTED, Reading

_TAIL_BYTES = 4096
_TAIL_LINES = 20


class Attempt:
    """One attempt at a trial.

    Args:
        folder: The attempt's folder, which is made here.
        header: The first entries of the result.
        number: Returns the number of the commit in the run.
        resume: The checkpoint from which it continues; its curve is copied.
    """

    def __init__(
        self,
        folder: Path,
        header: Mapping[str, Any],
        number: Callable[[], int],
        resume: Checkpoint | None = None,
    ) -> None:
        self._header, self._number, self._resume = dict(header), number, resume
        self._started_at, self._clock_s = time.time(), time.monotonic()
        self.folder = folder
        folder.mkdir()
        self.log = folder / "log.txt"
        self.log.touch()
        # Unbuffered: a written event is in the file, and a full disk shows at once.
        self._events = (folder / "events.jsonl").open("ab", buffering=0)
        self._resumable_bytes = 0
        if resume is not None:
            self._append(resume.events)
            self._resumable_bytes = len(resume.events)

    def write(self, reading: Reading) -> None:
        """Append one event line."""
        self._append((to_json(reading.to_json()) + "\n").encode())

    def _append(self, data: bytes) -> None:
        left = memoryview(data)
        while left:  # an almost full disk takes only a part at first
            left = left[self._events.write(left) :]

    def write_log(self, data: bytes) -> None:
        """Append output of the trial."""
        with self.log.open("ab") as log:
            log.write(data)

    def restart(self, *, resumed: bool) -> None:
        """Drop the events since the last checkpoint, as the trial continues from there.

        Args:
            resumed: False if the trial does not use its checkpoint; all events are then
                dropped.
        """
        if not resumed:
            self._resume, self._resumable_bytes = None, 0
            (self.folder / checkpoint.NAME).unlink(missing_ok=True)
        self._events.truncate(self._resumable_bytes)

    def waited(self) -> None:
        """Start the trial's time again, because it waited for its machine until now."""
        self._clock_s = time.monotonic()

    def checkpoint(self, state: Mapping[str, Any], arrays: Weights) -> None:
        """Write a checkpoint; it replaces the last one."""
        os.fsync(self._events.fileno())
        events = (self.folder / "events.jsonl").read_bytes()
        write_checkpoint(self.folder, state, arrays, events, self._wall_time_s())
        self._resumable_bytes = len(events)

    def _wall_time_s(self) -> float:
        earlier_s = 0.0 if self._resume is None else self._resume.wall_time_s
        return earlier_s + time.monotonic() - self._clock_s

    def commit(
        self,
        result: Mapping[str, Any],
        readings: Sequence[Reading] = (),
        arrays: Weights | None = None,
    ) -> Mapping[str, Any]:
        """Commit the trial; before this call it counts as not done.

        The checkpoints of a trial that ended `ok` or `diverged` are removed; other
        trials may be continued.

        Returns:
            The content of `result.json`.
        """
        os.fsync(self._events.fileno())
        self._events.close()
        trial_folder = self.folder.parent
        kept = [trial_folder / "spec.json", self.folder / "events.jsonl"]
        if arrays:
            kept.append(self.folder / "arrays.npz")
            write_arrays(kept[-1], arrays)
        sync_folder(self.folder)
        document = {
            **self._header,
            "commit": self._number(),
            "started_at": self._started_at,
            "committed_at": time.time(),
            "wall_time_s": self._wall_time_s(),
            "disk_bytes": sum(file.stat().st_size for file in (*kept, self.log)),
            **result,
            "readings": [reading.to_json() for reading in readings],
            "files": {
                str(file.relative_to(trial_folder)): hash_of(file.read_bytes())
                for file in kept
            },
        }
        if self._resume is not None:
            document["resumed_from"] = self._resume.attempt
        if result["outcome"] != "ok":
            document["log_tail"] = self._log_tail()
        write_atomically(trial_folder / "result.json", to_json(document) + "\n")
        if result["outcome"] in COUNTED:
            for left in trial_folder.glob(f"attempt-*/{checkpoint.NAME}"):
                left.unlink(missing_ok=True)
        return document

    def _log_tail(self) -> list[str]:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
        return text.splitlines()[-_TAIL_LINES:]

    def abandon(self) -> None:
        """Close the files of an attempt that will not be committed."""
        self._events.close()
