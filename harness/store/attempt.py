"""One attempt at a trial: it writes events, a log, checkpoints and the commit."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.contract import Weights
from harness.errors import HarnessError
from harness.files import arrays as npz
from harness.files.log import append_bounded
from harness.files.opening import (
    OddFileError,
    files_below,
    hash_of_file,
    opened_to_append,
    sync_folder,
)
from harness.files.text import (
    MOST_JSON_BYTES,
    hash_of,
    sealed,
    to_json,
    write_atomically,
)
from harness.reading import Reading
from harness.store import checkpoint
from harness.store.checkpoint import Checkpoint, write_checkpoint
from harness.store.committed import MOST_EVENTS_BYTES, curves_in, read_result
from harness.store.record import COUNTED

_TAIL_BYTES = 4096
_TAIL_LINES = 20
_MOST_REASON = 5000
"""The letters of a reason that are kept: a plugin may give one of any length."""

_GONE = (FileNotFoundError, NotADirectoryError, OddFileError)
"""What is raised if a folder or file of the attempt was removed or replaced."""


class UnstorableError(HarnessError):
    """What a trial found cannot be stored; the message says why."""


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
        self._events = (folder / "events.jsonl").open("a+b", buffering=0)
        self._gone: OSError | None = None
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
        """Append output of the trial; the log of a whole trial is bounded."""
        with self._noticing_loss():
            append_bounded(self.log, data)

    def restart(self, *, resumed: bool) -> None:
        """Drop the events since the last checkpoint, as the trial continues from there.

        Args:
            resumed: False if the trial does not use its checkpoint; all events are then
                dropped.
        """
        if not resumed:
            self._resume, self._resumable_bytes = None, 0
            with self._noticing_loss():
                (self.folder / checkpoint.NAME).unlink(missing_ok=True)
        self._events.truncate(self._resumable_bytes)

    def waited(self) -> None:
        """Start the trial's time again, because it waited for its machine until now."""
        self._clock_s = time.monotonic()

    def checkpoint(self, state: Mapping[str, Any], arrays: Weights) -> None:
        """Write a checkpoint; it replaces the last one."""
        os.fsync(self._events.fileno())
        events = self._written()
        with self._noticing_loss():
            write_checkpoint(self.folder, state, arrays, events, self._wall_time_s())
            self._resumable_bytes = len(events)

    @contextlib.contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        """Keep for the commit that a file is gone: the others of a run go on."""
        try:
            yield
        except _GONE as error:
            self._gone = error

    def _written(self) -> bytes:
        """Return the events, from the open file: another may have its name by now."""
        self._events.seek(0)
        return self._events.read()

    def _curves(self) -> bytes:
        curves = self._written()
        if len(curves) > MOST_EVENTS_BYTES:
            raise ValueError(f"its curves take more than {MOST_EVENTS_BYTES >> 20} MiB")
        return curves

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

        Raises:
            UnstorableError: If the folder is gone, or a value cannot be stored.
        """
        try:
            if self._gone is not None:
                raise self._gone
            return self._commit(result, readings, arrays)
        except _GONE as error:
            raise UnstorableError(
                f"{error.filename} was removed or replaced during the trial "
                f"({error.strerror})"
            ) from error
        except (ValueError, TypeError) as error:
            said = str(error)[:_MOST_REASON]
            raise UnstorableError(f"its result cannot be stored: {said}") from error

    def _commit(
        self,
        result: Mapping[str, Any],
        readings: Sequence[Reading],
        arrays: Weights | None,
    ) -> Mapping[str, Any]:
        os.fsync(self._events.fileno())
        trial_folder, events = self.folder.parent, self.folder / "events.jsonl"
        if not os.path.samestat(os.fstat(self._events.fileno()), events.lstat()):
            raise OddFileError(events, "is another file")
        spec = trial_folder / "spec.json"
        curves = self._curves()
        hashes = {
            spec: hash_of_file(spec, MOST_JSON_BYTES),
            events: hash_of(curves),
        }
        self._events.close()
        if arrays:
            stored = self.folder / "arrays.npz"
            npz.write_arrays(stored, arrays)
            hashes[stored] = hash_of_file(stored, npz.MOST_BYTES)
        sync_folder(self.folder)
        document = {
            **self._header,
            "commit": self._number(),
            "started_at": self._started_at,
            "committed_at": time.time(),
            "wall_time_s": self._wall_time_s(),
            "disk_bytes": sum(file.lstat().st_size for file in (*hashes, self.log)),
            **result,
            "readings": [reading.to_json() for reading in readings],
            "files": {
                str(file.relative_to(trial_folder)): found
                for file, found in hashes.items()
            },
        }
        reason = result["reason"]
        if isinstance(reason, str) and len(reason) > _MOST_REASON:
            document["reason"] = f"{reason[:_MOST_REASON]}…"
        if self._resume is not None:
            document["resumed_from"] = self._resume.attempt
        if result["outcome"] != "ok":
            document["log_tail"] = self._log_tail()
        text = sealed(to_json(document)) + "\n"
        if len(text) > MOST_JSON_BYTES:
            raise ValueError(f"it is larger than {MOST_JSON_BYTES >> 20} MiB")
        # What could not be read again is not written.
        for _ in curves_in(curves, read_result(text.encode())):
            pass
        write_atomically(trial_folder / "result.json", text)
        if result["outcome"] in COUNTED:
            for left in files_below(trial_folder, "attempt-*", checkpoint.NAME):
                with contextlib.suppress(IsADirectoryError):  # not a checkpoint
                    left.unlink(missing_ok=True)
        return document

    def _log_tail(self) -> list[str]:
        with opened_to_append(self.log) as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
        return text.splitlines()[-_TAIL_LINES:]

    def abandon(self) -> None:
        """Close the files of an attempt that will not be committed."""
        self._events.close()
