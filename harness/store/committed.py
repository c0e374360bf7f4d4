"""Read the committed files of a trial, and check their hashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from harness.errors import MisuseError
from harness.files import arrays
from harness.files.opening import OddFileError, hash_of_file, read_file
from harness.files.text import MOST_JSON_BYTES, has_seal, hash_of, parse_object
from harness.quantities import COUNT, ImpossibleError
from harness.reading import Reading
from harness.store.document import check_result
from harness.store.record import SCHEMA, UNSEALED, TrialRecord, check_ranges
from harness.trial import SettingsError, Trial

MOST_EVENTS_BYTES = 128 << 20
"""The curves of two million updates, the most that a suite may ask for, take 90 MB. To
read them takes about seven times as much memory."""

_LINES = 1000
"""Lines that are read at once: several times as fast as one after the other."""

NOT_READABLE = (ValueError, KeyError, TypeError, AttributeError)
"""What a document raises that is not what it should be."""


class DamagedError(Exception):
    """The files of a trial differ from what was committed.

    Attributes:
        advice: What helps.
    """

    advice = "the command that ran it measures it again"


class CurvesError(DamagedError):
    """The curves of a trial cannot be read, though they are what was committed."""

    advice = "the command that ran it measures it again with --force"


class NewerError(MisuseError):
    """A newer version of rnn-harness has written the result of a trial.

    Attributes:
        what: What is wrong with the file, without its folder.
        advice: What helps.
    """

    advice = "upgrade rnn-harness, or move the trial away"

    def __init__(self, file: Path, schema: int) -> None:
        self.what = f"{file.name} has schema {schema}, written by a newer rnn-harness"
        super().__init__(f"{file.parent / self.what}; {self.advice}")


@dataclass(frozen=True)
class Committed:
    """A finished trial, and the lines of its curves, which its record lacks."""

    whole: TrialRecord
    events: bytes

    def record(self) -> TrialRecord:
        """Return the finished trial with its curves.

        Raises:
            CurvesError: If a line is not a reading, or holds an impossible value.
        """
        try:
            curves = curves_in(self.events, self.whole.result)
            return replace(self.whole, readings=(*self.whole.readings, *curves))
        except ImpossibleError as error:
            raise CurvesError(f"events.jsonl: {_why(error)}") from error
        except NOT_READABLE as error:
            raise CurvesError(
                f"a line of events.jsonl is not a reading ({_why(error)})"
            ) from error


def curves_in(events: bytes, result: Mapping[str, Any]) -> Iterator[Reading]:
    """Yield the readings of the lines of a trial's events.

    Raises:
        ImpossibleError: If one has a value that no measurement has.
        ValueError, TypeError, KeyError, AttributeError: If a line is not a reading.
    """
    quantities = result.get("quantities") or {}
    lines = iter(events.splitlines())
    while some := list(islice(lines, _LINES)):
        text = b"[" + b",".join(some) + b"]"
        found = from_json(text, allow_inf_nan=False)
        readings = [Reading.from_json(line) for line in found]
        check_ranges(readings, quantities)
        yield from readings


def read_committed(folder: Path) -> Committed | None:
    """Return the committed files of a trial, or None if nothing was committed.

    Raises:
        DamagedError: If the files differ from what was committed, or are not what a
            trial commits.
        NewerError: If a newer version wrote them.
    """
    try:
        content = _content(folder, "result.json", MOST_JSON_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        result = _result(content, folder / "result.json")
    except ImpossibleError as error:
        raise DamagedError(f"result.json: {_why(error)}") from error
    except NOT_READABLE as error:
        raise DamagedError(
            f"result.json is cut short or unreadable ({_why(error)})"
        ) from error
    spec, trial = _spec(folder)
    if result["trial"] != folder.name:
        raise DamagedError(f"it is a copy of {result['trial']}")
    events = _checked(folder, result["files"], spec)
    return Committed(_whole(result, trial), events)


def _checked(folder: Path, hashes: Mapping[str, str], spec: bytes) -> bytes:
    """Check the hash of every file of a trial; return its events."""
    events = b""
    for name, expected in hashes.items():
        try:
            if name.endswith("events.jsonl"):
                events = _content(folder, name, MOST_EVENTS_BYTES)
                found = hash_of(events)
            elif name == "spec.json":
                found = hash_of(spec)
            else:
                found = hash_of_file(folder / name, arrays.MOST_BYTES)
        except OSError:
            found = ""
        if found != expected:
            raise DamagedError(f"{name} does not match its hash")
    return events


def read_result(content: bytes) -> dict[str, Any]:
    """Return a result whose values have their types and ranges, and its checksum.

    Raises:
        ValueError, KeyError, TypeError: If it is damaged.
    """
    return _result(content, Path("result.json"))


def _result(content: bytes, file: Path) -> dict[str, Any]:
    result = parse_object(content)
    schema = result["schema"]
    if type(schema) is not int:
        raise TypeError("schema is not a number")
    if schema > SCHEMA:  # asked first: nothing else of it is known
        raise NewerError(file, schema)
    if not has_seal(content) and schema not in UNSEALED:
        raise ValueError("it has no checksum")
    check_result(result)
    if "spec.json" not in result["files"]:
        raise ValueError("it does not say which trial it is of")
    result["readings"] = tuple(map(Reading.from_json, result["readings"]))
    check_ranges(result["readings"], result.get("quantities") or {})
    return result


def _spec(folder: Path) -> tuple[bytes, Trial]:
    try:
        content = _content(folder, "spec.json", MOST_JSON_BYTES)
        return content, Trial.from_json(parse_object(content)["trial"])
    except SettingsError as error:
        raise DamagedError(f"spec.json: {error}") from error
    except (OSError, *NOT_READABLE) as error:
        raise DamagedError(
            f"spec.json is cut short or unreadable ({_why(error)})"
        ) from error


def _whole(result: dict[str, Any], trial: Trial) -> TrialRecord:
    readings = result.pop("readings")
    ended = result["outcome"], result["reason"]
    return TrialRecord(result["trial"], trial, *ended, result, readings)


def _content(folder: Path, name: str, most_bytes: int) -> bytes:
    try:
        return read_file(folder / name, most_bytes)
    except OddFileError as error:
        raise DamagedError(f"{name} {error.strerror}") from error
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise DamagedError(f"{name} cannot be read ({error.strerror})") from error


def _why(error: Exception) -> str:
    """Return what is wrong in words that stay short, whatever the file holds."""
    if isinstance(error, OSError):
        return str(error.strerror)
    what = f"no {error}" if isinstance(error, KeyError) else str(error)
    return what[:200]


def number_of_commit(folder: Path) -> int:
    """Return the number of a trial's commit, or 0 if nothing is known of it.

    A result of a newer version counts: its commit precedes those that follow.
    """
    try:
        content = read_file(folder / "result.json", MOST_JSON_BYTES)
        result = parse_object(content)
        if not has_seal(content) and result["schema"] not in UNSEALED:
            return 0
        number = result["commit"]
    except (OSError, *NOT_READABLE):
        return 0
    return number if type(number) is int and COUNT.holds(number) else 0


def order_of_commit(result: Mapping[str, Any]) -> tuple[int, float]:
    """Return a key that sorts the commits of a run."""
    return int(result.get("commit", 0)), float(result["committed_at"])
