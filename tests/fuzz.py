"""Odd values and odd bytes in the files that this program reads, from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import quantities
from harness.files.text import hash_of, parse_object, sealed
from harness.store import RunFolder
from tests import fake_runs

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 10**17, -(10**17), 10**30, 0.5, -0.5, -0.0),
    *(1e308, -1e308, 5e-324, "", "x", "x" * 300, "\ud800", "\0", "=1+1", "../../x"),
    *([], {}, [[]], [None], [0], [0.0, -1.0], ["x"], {"a": 1}, {"": None}, [{}]),
    *("ok", "diverged", "speed", "learning", "float64", "cuda:0", "cpu"),
)
"""Values that some document does not expect in some place."""

BYTES = (
    *(b"", b"\0", b"{", b"[]", b"null", b"[" * 100_000, b'{"a":' * 5000, b"\xff\xfe"),
    *(b"1e999", b"NaN", b"9" * 5000, b"\xef\xbb\xbf{}", b'"\\ud800"', b"PK\5\6"),
    *(b"a = " + b"[" * 100_000, b"a." * 5000 + b"a = 1", b"a = 0x" + b"f" * 9999),
)
"""Contents that some file might have."""


def odd(value: Any, rng: random.Random) -> Any:
    """Return a copy of JSON values of which one is gone, another, or twice there."""
    value = json.loads(json.dumps(value))
    node, found = value, []
    while isinstance(node, dict | list) and node:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        found.append((node, key))
        node = node[key]
    if not found:
        return rng.choice(ODD)
    node, key = rng.choice(found)
    match rng.randrange(6):
        case 0:
            del node[key]
        case 1 if isinstance(node, list):
            node.append(node[key])
        case 1:
            node["odd"] = node[key]
        case 2:
            another, other = rng.choice(found)
            node[key] = json.loads(json.dumps(another[other]))
        case _:
            node[key] = rng.choice(ODD)
    return value


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return content with other bytes, cut short, or another content."""
    match rng.randrange(4) if content else 0:
        case 0:
            return rng.choice(BYTES)
        case 1:
            return content[: rng.randrange(len(content) + 1)]
        case 2:
            at = rng.randrange(len(content) + 1)
            return content[:at] + rng.choice(BYTES) + content[at:]
    some = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        some[rng.randrange(len(some))] = rng.randrange(256)
    return bytes(some)


def small_run(path: Path) -> RunFolder:
    """Create a run with a trial of each measure, and one that failed."""
    writer = fake_runs.Writer.create(path)
    fake_runs.parity(writer, "torch-native", "gru", facts={"where": {"outputs": "b"}})
    fake_runs.parity(writer, "my-gru", "gru", "outputs", {"causes": {"outputs": "c"}})
    for seed in (0, 1):
        learning = fake_runs.learning_trial("gru", seed)
        fake_runs.learning(writer, learning, (800, None)[seed])
        fake_runs.gradients(writer, learning, (61, 100))
    for name in ("torch-native", "my-gru"):
        trial = fake_runs.shape_trial(name, "gru", session="sizes")
        fact = {"peak": dict(fake_runs.PEAK), "kernel": "XLA", "pinned": {"A": "1"}}
        fact |= {"fitness": {"verdict": "noisy", "reasons": [fake_runs.LOAD]}}
        fake_runs.speed(
            writer, trial, 0.01, shaky=name == "my-gru", step_s=2e-5, **fact
        )
    fake_runs.memory(writer, trial, 3e8)
    lost = fake_runs.learning_trial("lstm", 0)
    writer.commit(lost, outcome="crashed", reason="SIGSEGV", log_tail=["last words"])
    return writer.run


def documents(run: RunFolder) -> list[Path]:
    """Return the JSON documents of a run."""
    return [
        file
        for file in sorted(run.path.rglob("*.json*"))
        if file.suffix in (".json", ".jsonl")
    ]


def change(file: Path, rng: random.Random) -> Callable[[], None]:
    """Put an odd value into a document, with right hashes; return what undoes it."""
    before = {file: file.read_bytes()}
    if file.suffix == ".jsonl":
        lines = [json.loads(line) for line in file.read_bytes().splitlines()]
        lines = [odd(line, rng) if rng.random() < 0.3 else line for line in lines]
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    else:
        _store(file, odd(parse_object(before[file]), rng))
    _rehash(file, before)

    def undo() -> None:
        for each, content in before.items():
            each.write_bytes(content)

    return undo


def _store(file: Path, value: Any) -> None:
    text = json.dumps(value)
    file.write_text(sealed(text) if isinstance(value, dict) and value else text)


def _rehash(file: Path, before: dict[Path, bytes]) -> None:
    """Let the result of a trial name the hash that one of its files has now."""
    trial = next((p for p in file.parents if p.parent.name == "trials"), None)
    if trial is None or file.name == "result.json":
        return
    result = trial / "result.json"
    before[result] = result.read_bytes()
    found = parse_object(before[result])
    found["files"][str(file.relative_to(trial))] = hash_of(file.read_bytes())
    _store(result, found)


# --- numbers -------------------------------------------------------------------------

EXTREMES = (
    *(0.0, -0.0, 5e-324, 1e-300, 1e-12, 1e-3, 0.5, 1.0, 1e3, 1e10, 1e18, 1e27, 1e300),
    *(1e308, -1e308, -1e300, -1.0, -1e-3, 0, 1, -7, 10**17),
)
"""Numbers that no measurement has, or only at the end of its range."""


def renumber(run: RunFolder, rng: random.Random) -> Callable[[], None]:
    """Put other numbers into the readings of some trials, with right hashes.

    Half of the times each number is moved into the range of its unit, so that all
    trials can be read. Return what undoes it.
    """
    before: dict[Path, bytes] = {}
    inside, share = rng.random() < 0.5, rng.choice((0.02, 0.3, 1.0))
    few = rng.sample(EXTREMES, rng.choice((1, 2, 5)))

    def other(found: Any, allowed: quantities.Range) -> Any:
        if isinstance(found, list):
            return [other(each, allowed) for each in found]
        if rng.random() > share:
            return found
        drawn = rng.choice(few)
        return min(max(drawn, allowed.least), allowed.most) if inside else drawn

    def line(reading: dict[str, Any], units: dict[str, str]) -> dict[str, Any]:
        split = reading["split"]
        return reading | {
            "values": {
                name: other(found, quantities.range_of(split, name, units))
                for name, found in reading["values"].items()
            }
        }

    for file in sorted(run.trials.glob("*/result.json")):
        if rng.random() < 0.3:
            continue
        result = parse_object(file.read_bytes())
        stated = (result.get("quantities") or {}).items()
        units = {name: quantity["unit"] for name, quantity in stated}
        before[file] = file.read_bytes()
        _store(
            file, result | {"readings": [line(r, units) for r in result["readings"]]}
        )
        for events in file.parent.glob("*/events.jsonl"):
            before[events] = events.read_bytes()
            lines = [
                line(json.loads(text), units) for text in before[events].splitlines()
            ]
            events.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
            _rehash(events, {})

    def undo() -> None:
        for each, content in before.items():
            each.write_bytes(content)

    return undo
