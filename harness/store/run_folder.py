"""The folder of a run: one execution of a suite, with a folder for each trial."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from harness.contract import Weights
from harness.errors import MisuseError
from harness.files.arrays import read_arrays
from harness.files.opening import (
    OddFileError,
    check_own_folder,
    files_below,
    first_free,
    is_there,
    opened_to_append,
    read_file,
    sync_folder,
)
from harness.files.text import (
    MOST_JSON_BYTES,
    has_seal,
    parse_object,
    sealed,
    write_atomically,
)
from harness.quantities import COUNT
from harness.store.attempt import Attempt
from harness.store.checkpoint import Checkpoint, read_checkpoint
from harness.store.committed import (
    NOT_READABLE,
    DamagedError,
    NewerError,
    number_of_commit,
    order_of_commit,
    read_committed,
)
from harness.store.document import SECTIONS, check_info
from harness.store.record import SCHEMA, UNSEALED, TrialRecord
from harness.trial import FOLLOWS, Trial

_OWN = (".lock", ".run.json.", ".writable-")
"""How names of files begin that may precede the first `run.json` of a run folder."""


class Begun(NamedTuple):
    """A trial that a run folder holds, done or not, with its plugins' sources then."""

    id: str
    trial: Trial
    sources: Mapping[str, str]


class LeftOut(NamedTuple):
    """Why a committed trial cannot be read, and what helps."""

    what: str
    advice: str


class Contents(NamedTuple):
    """What a run folder holds.

    Attributes:
        records: The finished trials, the latest of each key.
        left_out: The committed trials that cannot be read, by id.
    """

    records: list[TrialRecord]
    left_out: dict[str, LeftOut]


class RunFolder:
    """The folder of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials = path / "trials"
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Open a run folder for writing; make it if it does not exist.

        Raises:
            MisuseError: If it cannot be written or holds something else.
        """
        run = cls(path)
        run.check()
        try:
            run._make_folders()
            probe = path / f".writable-{os.getpid()}-{secrets.token_hex(4)}"
            probe.touch(exist_ok=False)
            probe.unlink()
        except OddFileError as error:
            raise run._in_the_way(error) from error
        except OSError as error:
            raise MisuseError(
                f"{path} cannot be written ({error.strerror}); give another folder "
                "with -o"
            ) from error
        run.info()
        return run

    def check(self) -> None:
        """Check that a run may be stored here, without writing anything.

        Raises:
            MisuseError: If the folder holds something else.
        """
        path = self.path
        try:
            if path.exists() and not path.is_dir():
                raise MisuseError(f"{path} is a file; give a folder with -o")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                check_own_folder(self.trials)
            if not is_there(path / "run.json") and self._foreign():
                raise MisuseError(
                    f"{path} is not empty and holds no run.json, so it is not a run "
                    "folder; give a new or empty folder with -o"
                )
        except OddFileError as error:
            raise self._in_the_way(error) from error
        except OSError as error:
            raise MisuseError(
                f"{path} cannot be read ({error.strerror}); give another folder with -o"
            ) from error

    def _make_folders(self) -> None:
        """Make the folder of trials; a plugin may have removed the whole run."""
        self.trials.mkdir(parents=True, exist_ok=True)
        check_own_folder(self.trials)

    @staticmethod
    def _in_the_way(error: OSError) -> MisuseError:
        is_folder = isinstance(error, IsADirectoryError)
        return MisuseError(
            f"{error.filename} {'is a folder' if is_folder else error.strerror}, and a "
            "run writes only into files and folders of its own; move it away or give "
            "another folder with -o"
        )

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run folder for reading.

        Raises:
            MisuseError: If there is none, or a newer version wrote it.
        """
        run = cls(path)
        if not run.info():
            what = "is a file" if path.is_file() else "holds no run.json"
            if not path.exists():
                what = "does not exist"
            raise MisuseError(
                f"{path} {what}; give the folder of a run, such as results/runs/quick"
            )
        return run

    def _foreign(self) -> list[str]:
        """Return the names of files in the folder that no run has written.

        A run folder that has lost its `run.json` is recognised by its trials.
        """
        if not self.path.is_dir() or any(self.trials.glob("*/spec.json")):
            return []
        names = [p.name for p in (*self.path.iterdir(), *self.trials.glob("*"))]
        return [n for n in names if n != "trials" and not n.startswith(_OWN)]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for one writer.

        Raises:
            MisuseError: If another process holds it, or something else is in the way.
        """
        with contextlib.ExitStack() as opened:
            try:
                lock = opened.enter_context(opened_to_append(self.path / ".lock"))
            except (OddFileError, IsADirectoryError) as error:
                raise self._in_the_way(error) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                said = lock.read(200).decode(errors="replace").strip()
                holder = said or "another process"
                raise MisuseError(
                    f"{self.path} is in use by {holder}; wait for it or give another "
                    "folder with -o"
                ) from error
            lock.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            who = f"process {os.getpid()} on {socket.gethostname()} since {since} UTC"
            lock.write(who.encode())
            yield

    def info(self) -> dict[str, Any]:
        """Return `run.json`, or an empty dict before the first write.

        A key without a value, `null`, is left out.

        Raises:
            MisuseError: If it cannot be read, is damaged or of a newer schema.
        """
        file = self.path / "run.json"
        try:
            content = read_file(file, MOST_JSON_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise MisuseError(
                f"{file} cannot be read ({error.strerror}); give another folder"
            ) from error
        damaged = MisuseError(
            f"{file} is damaged; restore it, or move it away and give the command "
            "of this run again: finished trials are kept"
        )
        try:
            info = parse_object(content)
            schema = info["schema"]
        except NOT_READABLE as error:
            raise damaged from error
        if type(schema) is int and schema > SCHEMA:
            raise MisuseError(
                f"{file} has schema {schema}, written by a newer rnn-harness; this one "
                f"reads up to {SCHEMA}: upgrade rnn-harness, or give another folder"
            )
        try:
            if not has_seal(content) and schema not in UNSEALED:
                raise ValueError("it has no checksum")
            check_info(info)
        except NOT_READABLE as error:
            raise damaged from error
        return {key: value for key, value in info.items() if value is not None}

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace `run.json`."""
        self._make_folders()
        document = json.dumps({"schema": SCHEMA, **info}, indent=1, allow_nan=False)
        write_atomically(self.path / "run.json", sealed(document) + "\n")

    # --- writing ---------------------------------------------------------------------

    def begin(
        self,
        trial: Trial,
        trial_id: str,
        sources: Mapping[str, str],
        *,
        resume: Checkpoint | None = None,
    ) -> Attempt:
        """Start an attempt: `spec.json` is written before anything else."""
        folder = self.trials / trial_id
        try:
            self._make_folders()
            folder.mkdir(exist_ok=True)
            check_own_folder(folder)
        except (FileExistsError, OddFileError) as error:
            raise MisuseError(
                f"{error.filename} is a link or a file where a folder belongs; move it "
                "away"
            ) from error
        if self.damage(trial_id) is not None:
            # The user may look at it; a new commit would replace it.
            aside = first_free(folder, "result.json.damaged-")
            (folder / "result.json").rename(aside)
        if self._spec(folder) != (trial, dict(sources)):
            spec = {"trial": trial.to_json(), "sources": dict(sources)}
            text = json.dumps({"schema": SCHEMA, **spec}, indent=1)
            write_atomically(folder / "spec.json", sealed(text) + "\n")
        sync_folder(self.trials)
        with self._lock:
            if "_begun_by_key" in vars(self):  # otherwise it is read from disk later
                known = self._begun_by_key.setdefault(trial.key(FOLLOWS), {})
                known[trial_id] = Begun(trial_id, trial, dict(sources))
        # Of a process that was killed.
        for left in files_below(folder, "attempt-*", ".*.tmp"):
            left.unlink(missing_ok=True)
        number = 1 + max((n for n, _ in self._attempts(trial_id)), default=0)
        header = {"schema": SCHEMA, "trial": trial_id}
        return Attempt(
            folder / f"attempt-{number:03d}", header, self._next_commit, resume
        )

    def _next_commit(self) -> int:
        """Return the number of the next commit; a clock could go backwards."""
        with self._lock:
            # After the last number, the time of a commit says which is the latest.
            return min(next(self._commits), int(COUNT.most))

    @cached_property
    def _commits(self) -> Iterator[int]:
        last = max(map(number_of_commit, self._folders()), default=0)
        return itertools.count(last + 1)

    def _attempts(self, trial_id: str) -> list[tuple[int, Path]]:
        """Return the attempts at a trial by number, the first one first."""
        paths = (self.trials / trial_id).glob("attempt-*")
        named = ((path.name.removeprefix("attempt-"), path) for path in paths)
        return sorted((int(word), path) for word, path in named if word.isdecimal())

    # --- reading ---------------------------------------------------------------------

    def checkpoint(self, trial_id: str) -> Checkpoint | None:
        """Return the latest undamaged checkpoint of an unfinished trial, or None."""
        folders = (folder for _, folder in reversed(self._attempts(trial_id)))
        return next(filter(None, map(read_checkpoint, folders)), None)

    def read(self, trial_id: str) -> TrialRecord | None:
        """Return a finished trial, or None if it is not done or is left out."""
        try:
            found = read_committed(self.trials / trial_id)
            return None if found is None else found.record()
        except (DamagedError, NewerError):
            return None

    def outcome_or_damage(self, trial_id: str) -> tuple[str | None, str | None]:
        """Return the outcome of a trial, or None, and its damage, or None.

        Raises:
            NewerError: If a newer version wrote its result.
        """
        try:
            found = read_committed(self.trials / trial_id)
        except DamagedError as damage:
            return None, str(damage)
        return (None if found is None else str(found.whole.outcome)), None

    def damage(self, trial_id: str) -> str | None:
        """Return what is wrong with a trial's files, or None; raise as above."""
        return self.outcome_or_damage(trial_id)[1]

    def damaged(self) -> dict[str, str]:
        """Return what is wrong with each committed trial that is left out, by id."""
        return {name: found.what for name, found in self.contents().left_out.items()}

    def records(self) -> list[TrialRecord]:
        """Return the finished trials, as `contents` does."""
        return self.contents().records

    def contents(self) -> Contents:
        """Return every finished trial, the latest of each key, and what is left out.

        They are sorted by cell in the order of the suite, then by commit. A trial that
        follows a replaced trial is left out.
        """
        found, left_out = [], {}
        for folder in self._folders():
            try:
                committed = read_committed(folder)
                if committed is not None:
                    found.append(committed.record())
            except NewerError as error:
                left_out[folder.name] = LeftOut(error.what, error.advice)
            except DamagedError as error:
                left_out[folder.name] = LeftOut(str(error), error.advice)
        return Contents(self._latest(found), left_out)

    def _latest(self, found: list[TrialRecord]) -> list[TrialRecord]:
        latest: dict[str, TrialRecord] = {}
        superseded = set()
        for record in sorted(found, key=lambda r: order_of_commit(r.result)):
            earlier = latest.pop(record.trial.key(), None)
            if earlier is not None:
                superseded.add(earlier.id)
            latest[record.trial.key()] = record
        cells = {cell: position for position, cell in enumerate(self._cells())}
        kept = [r for r in latest.values() if r.trial.follows not in superseded]
        return sorted(kept, key=lambda r: cells.get(r.trial.cell, -1))

    def _cells(self) -> list[str]:
        """Return the cells in the order of the suite: learning, then speed.

        Cells that only other sections name come first.
        """
        suite = self.info().get("suite", {})
        gradients, learning, speed = (
            [cell for each in suite.get(name, ()) for cell in each.get("cells", ())]
            for name in SECTIONS
        )
        cells = [*learning, *speed]
        others = [cell for cell in gradients if cell not in cells]
        return list(dict.fromkeys([*others, *cells]))

    def begun(self, trial: Trial) -> list[Begun]:
        """Return a trial as it was begun here, done or not, under any id.

        The trial that it follows may differ, because its id may have changed.
        """
        with self._lock:
            return list(self._begun_by_key.get(trial.key(FOLLOWS), {}).values())

    @cached_property
    def _begun_by_key(self) -> dict[str, dict[str, Begun]]:
        found: dict[str, dict[str, Begun]] = {}
        for folder in self._folders():
            if (spec := self._spec(folder)) is not None:
                begun = Begun(folder.name, *spec)
                found.setdefault(begun.trial.key(FOLLOWS), {})[begun.id] = begun
        return found

    @staticmethod
    def _spec(folder: Path) -> tuple[Trial, dict[str, str]] | None:
        """Return the trial of a folder and its sources, or None if they are unknown."""
        try:
            content = read_file(folder / "spec.json", MOST_JSON_BYTES)
            spec = parse_object(content)
            if not has_seal(content) and spec["schema"] not in UNSEALED:
                return None
            sources = dict(spec["sources"])
            if {*map(type, sources.values())} - {str}:
                return None
            return Trial.from_json(spec["trial"]), sources
        except (OSError, *NOT_READABLE):
            return None

    def arrays(self, trial_id: str) -> Weights:
        """Return the arrays of a trial; empty if it stored none."""
        folder = self.trials / trial_id
        found = read_committed(folder)
        names = () if found is None else found.whole.result["files"]
        for name in names:
            if name.endswith("arrays.npz"):
                return read_arrays(folder / name)
        return {}

    def _folders(self) -> list[Path]:
        """Return the folders of trials: those that hold a spec or a result.

        One that cannot be looked into counts: reading it says why.
        """
        try:
            names = sorted(self.trials.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise MisuseError(
                f"{self.trials} cannot be read ({error.strerror}); copy the run to a "
                "folder of your own, or ask for the permission"
            ) from error
        return [folder for folder in names if _is_of_trial(folder)]


def _is_of_trial(folder: Path) -> bool:
    try:
        held = {entry.name for entry in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return not held.isdisjoint(("spec.json", "result.json"))
