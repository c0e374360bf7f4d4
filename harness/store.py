"""One folder per trial, committed atomically, and its readers.

A trial is done when its `result.json` parses and the hashes in it match. That file is
written to a temporary name, synced, renamed, and its folder synced: the commit point.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import numbers
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.errors import MisuseError
from harness.trial import Trial

if TYPE_CHECKING:
    from harness.contract import Weights

SCHEMA = 1

_OWN = (".lock", ".run.json.", ".writable-")
"""How names begin that a run folder may hold before its first `run.json`."""


@dataclass(frozen=True)
class Reading:
    """Values that belong together, at one place of a curve or of the whole trial.

    Attributes:
        split: The part of the trial: `train`, `held_out`, `initial`, a phase, a check.
        values: By metric; a list where `x` is a list.
        x: Where on the curve, or None for the whole trial.
    """

    split: str
    values: Mapping[str, Any]
    x: float | Sequence[float] | None = None
    x_unit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the reading as one JSON object."""
        line: dict[str, Any] = {"split": self.split, "values": dict(self.values)}
        if self.x is not None:
            line |= {"x": self.x, "x_unit": self.x_unit}
        return line

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Reading:
        """Rebuild a reading from `to_json`."""
        return cls(line["split"], line["values"], line.get("x"), line.get("x_unit"))


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial as it lies in the store.

    Attributes:
        result: `result.json`: kernel, framework, parameters, quantities, times.
        readings: Values of the whole trial, then its curves in the order written.
    """

    id: str
    trial: Trial
    outcome: str
    reason: str | None
    result: Mapping[str, Any]
    readings: tuple[Reading, ...] = field(repr=False, default=())

    def value(self, split: str, metric: str) -> Any:
        """Return a value of the whole trial, or None."""
        for reading in self.readings:
            if reading.split == split and reading.x is None:
                found = reading.values.get(metric)
                if found is not None:
                    return found
        return None


class Attempt:
    """One try at a trial: its events as they come, its log, its commit."""

    def __init__(self, folder: Path, number: int, header: Mapping[str, Any]) -> None:
        self._trial_folder = folder
        self._header = dict(header)
        self._started_at = time.time()
        self.folder = folder / f"attempt-{number:03d}"
        self.folder.mkdir()
        self.log = self.folder / "log.txt"
        self.log.touch()
        self._events = (self.folder / "events.jsonl").open("a", encoding="utf-8")

    def write(self, reading: Reading) -> None:
        """Append one event line."""
        self._events.write(to_json(reading.to_json()) + "\n")
        self._events.flush()

    def commit(
        self,
        result: Mapping[str, Any],
        readings: Sequence[Reading] = (),
        arrays: Weights | None = None,
    ) -> None:
        """Make the trial done: everything before this call was provisional."""
        os.fsync(self._events.fileno())
        self._events.close()
        if arrays:
            _write_arrays(self.folder / "arrays.npz", arrays)
        written = [f for f in sorted(self.folder.iterdir()) if f.name != "log.txt"]
        files = {
            str(file.relative_to(self._trial_folder)): _hash(file)
            for file in (self._trial_folder / "spec.json", *written)
        }
        now = time.time()
        document = {
            **self._header,
            "started_at": self._started_at,
            "committed_at": now,
            "wall_time_s": now - self._started_at,
            **result,
            "readings": [reading.to_json() for reading in readings],
            "files": files,
        }
        write_atomically(self._trial_folder / "result.json", to_json(document) + "\n")

    def abandon(self) -> None:
        """Close the files of an attempt that will not be committed."""
        self._events.close()


class RunFolder:
    """The folder of one execution of a suite."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials = path / "trials"

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Open a run folder to write to, making it where there is none.

        Raises:
            MisuseError: If it cannot be written or holds something else.
        """
        run = cls(path)
        try:
            if path.exists() and not path.is_dir():
                raise MisuseError(f"{path} is a file; give a folder with -o")
            if not (path / "run.json").exists() and run._foreign():
                raise MisuseError(
                    f"{path} is not empty and holds no run.json, so it is no run "
                    "folder; give a new or empty folder with -o"
                )
            run.trials.mkdir(parents=True, exist_ok=True)
            probe = path / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise MisuseError(
                f"{path} cannot be written ({error.strerror}); give another folder "
                "with -o"
            ) from error
        run.info()
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run folder to read.

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
        """Return what lies in a folder beside what a run killed at once leaves."""
        if not self.path.is_dir():
            return []
        names = [p.name for p in (*self.path.iterdir(), *self.trials.glob("*"))]
        return [n for n in names if n != "trials" and not n.startswith(_OWN)]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one writer.

        Raises:
            MisuseError: If another process holds it.
        """
        with (self.path / ".lock").open("a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                raise MisuseError(
                    f"{self.path} is in use by process {lock.read().strip() or '?'}; "
                    "wait for it or give another folder with -o"
                ) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def info(self) -> dict[str, Any]:
        """Return `run.json`, or an empty dict before the first write.

        Raises:
            MisuseError: If it cannot be read, is damaged or of a newer schema.
        """
        file = self.path / "run.json"
        try:
            info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            schema = int(info["schema"])
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise MisuseError(
                f"{file} cannot be read ({error.strerror}); give another folder"
            ) from error
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise MisuseError(
                f"{file} is damaged; restore it, or give another folder with -o"
            ) from error
        if schema > SCHEMA:
            raise MisuseError(
                f"{file} has schema {schema}, written by a newer rnn-harness; this one "
                f"reads up to {SCHEMA}: upgrade rnn-harness, or give another folder"
            )
        return info

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace `run.json`."""
        document = json.dumps({"schema": SCHEMA, **info}, indent=1, allow_nan=False)
        write_atomically(self.path / "run.json", document + "\n")

    def begin(self, trial: Trial, trial_id: str, sources: Mapping[str, str]) -> Attempt:
        """Start an attempt: `spec.json` is written before anything else."""
        folder = self.trials / trial_id
        folder.mkdir(exist_ok=True)
        if self.damage(trial_id) is not None:
            # Kept for whoever wants to look; a new commit would replace it.
            count = len(list(folder.glob("result.json.damaged-*")))
            damaged = folder / "result.json"
            damaged.rename(folder / f"result.json.damaged-{count + 1}")
        spec = {"schema": SCHEMA, "trial": trial.to_json(), "sources": dict(sources)}
        write_atomically(folder / "spec.json", json.dumps(spec, indent=1) + "\n")
        names = (p.name.removeprefix("attempt-") for p in folder.glob("attempt-*"))
        number = 1 + max((int(n) for n in names if n.isdecimal()), default=0)
        return Attempt(folder, number, {"schema": SCHEMA, "trial": trial_id})

    def read(self, trial_id: str) -> TrialRecord | None:
        """Return a finished trial, or None where it is not done or damaged."""
        if self.damage(trial_id) is not None:
            return None
        folder = self.trials / trial_id
        if not (folder / "result.json").exists():
            return None
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        readings = [Reading.from_json(line) for line in result.pop("readings")]
        for name in result["files"]:
            if name.endswith("events.jsonl"):
                lines = (folder / name).read_text(encoding="utf-8").splitlines()
                readings += [Reading.from_json(json.loads(line)) for line in lines]
        return TrialRecord(
            trial_id,
            Trial.from_json(spec["trial"]),
            result["outcome"],
            result["reason"],
            result,
            tuple(readings),
        )

    def damage(self, trial_id: str) -> str | None:
        """Return what is wrong with a trial's files, or None."""
        folder = self.trials / trial_id
        file = folder / "result.json"
        if not file.exists():
            return None
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
            hashes = dict(result["files"])
            schema = int(result["schema"])
            if schema <= SCHEMA:
                _check_result(result)
                spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
                Trial.from_json(spec["trial"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "result.json or spec.json is cut short or unreadable"
        if schema > SCHEMA:
            raise MisuseError(
                f"{file} has schema {schema}, written by a newer rnn-harness; upgrade"
            )
        for name, expected in hashes.items():
            path = folder / name
            if not path.is_file() or _hash(path) != expected:
                return f"{name} does not match its hash"
        return None

    def damaged(self) -> dict[str, str]:
        """Return what is wrong with each damaged trial, by trial id."""
        found = {p.name: self.damage(p.name) for p in self._folders()}
        return {name: what for name, what in found.items() if what is not None}

    def records(self) -> list[TrialRecord]:
        """Return the finished trials, the latest of each slot.

        They are ordered by cell, as the suite names them, then by commit. What followed
        a trial that is not the latest of its slot is left out with it.
        """
        found = [record for p in self._folders() if (record := self.read(p.name))]
        latest: dict[str, TrialRecord] = {}
        superseded = set()
        for record in sorted(found, key=lambda r: float(r.result["committed_at"])):
            earlier = latest.pop(record.trial.slot(), None)
            if earlier is not None:
                superseded.add(earlier.id)
            latest[record.trial.slot()] = record
        cells = self._cells()
        return sorted(
            (
                record
                for record in latest.values()
                if record.trial.settings.get("follows") not in superseded
            ),
            key=lambda r: cells.index(r.trial.cell) if r.trial.cell in cells else -1,
        )

    def _cells(self) -> list[str]:
        suite = self.info().get("suite", {})
        sections = [*suite.get("learning", []), *suite.get("speed", [])]
        return [cell for section in sections for cell in section["cells"]]

    def sources_of_slot(self, slot: str) -> list[dict[str, str]]:
        """Return the plugin sources of every trial, done or not, of one slot."""
        found = []
        for folder in self._folders():
            try:
                spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
                if Trial.from_json(spec["trial"]).slot() == slot:
                    found.append(dict(spec["sources"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def arrays(self, trial_id: str) -> Weights:
        """Return the arrays a trial stored; empty where it stored none."""
        import numpy as np

        folder = self.trials / trial_id
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        for name in result["files"]:
            if name.endswith("arrays.npz"):
                with np.load(folder / name, allow_pickle=False) as arrays:
                    return dict(arrays)
        return {}

    def _folders(self) -> list[Path]:
        if not self.trials.is_dir():
            return []
        return sorted(
            folder
            for folder in self.trials.iterdir()
            if any((folder / n).is_file() for n in ("spec.json", "result.json"))
        )


def _check_result(result: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError unless a result can be read."""
    for line in result["readings"]:
        Reading.from_json(line)
    if not isinstance(result["outcome"], str):
        raise TypeError("outcome")
    _ = result["reason"]
    float(result["committed_at"])


# --- files ---------------------------------------------------------------------------


def to_json(value: Any) -> str:
    """Return one line of JSON; a number that is not finite becomes null."""
    return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    # The numbers of numpy are of these kinds too.
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def write_atomically(file: Path, text: str) -> None:
    """Write a file that is there whole or not at all, whatever is killed when."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        _sync(stream)
    temporary.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_arrays(file: Path, arrays: Weights) -> None:
    import numpy as np

    with file.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
        _sync(stream)


def _sync(stream: IO[Any]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
