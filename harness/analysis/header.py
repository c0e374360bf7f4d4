"""What was run where: counts, machines, versions and the commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.analysis.run import JudgedRun
from harness.measure import MEASURES


@dataclass(frozen=True)
class Header:
    """What was run where, in numbers.

    Attributes:
        measures: Number of trials of each measure.
        outcomes: Number of trials of each outcome.
        machines: The machines that the trials ran on.
        fitness: The worst verdict on a machine before a session, or None.
        frameworks: Libraries with their versions, such as "torch 2.13.0".
    """

    suite: str
    why: str
    measures: dict[str, int]
    outcomes: dict[str, int]
    wall_time_s: float | None
    machines: tuple[str, ...]
    frameworks: tuple[str, ...]
    fitness: str | None = None


def header(run: JudgedRun) -> Header:
    """Return what was run where."""
    suite = run.info.get("suite") or {}
    environment = run.info.get("environment") or {}
    results = [record.result for record in run.records]
    measures = Counter(record.trial.measure for record in run.records)
    outcomes = Counter(record.outcome for record in run.records)
    verdicts = {(result.get("fitness") or {}).get("verdict") for result in results}
    worst = [each for each in ("unfit", "noisy", "fit") if each in verdicts]
    machines = _each_once(_machines(results))
    return Header(
        suite=suite.get("name") or "run",
        why=suite.get("why") or "",
        measures={name: measures[name] for name in MEASURES if measures[name]},
        outcomes=dict(outcomes.most_common()),
        wall_time_s=run.info.get("wall_time_s"),
        machines=machines or _each_once([environment.get("machine")]),
        frameworks=_each_once(result.get("framework") for result in results),
        fitness=worst[0] if worst else None,
    )


def _machines(results: Iterable[Mapping[str, Any]]) -> list[str | None]:
    """Return the machine of each trial, with the processor if there are several.

    Rounding may differ between processors of machines with one name.
    """
    several = len({r["processor"] for r in results if "processor" in r}) > 1
    return [
        f"{r['machine']} ({r['processor']})"
        if several and "processor" in r
        else r.get("machine")
        for r in results
    ]


def _each_once(names: Iterable[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(name) for name in names if name))


def environment_rows(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return name and value of what a number depends on: machine, versions, commit."""
    environment = dict(info.get("environment") or {})
    libraries = environment.pop("libraries", None) or {}
    commit, dirty = environment.pop("commit", None), environment.pop("dirty", None)
    memory = environment.pop("memory_bytes", None)
    rows = [
        (name.replace("_", " "), _words(value))
        for name, value in environment.items()
        if value is not None
    ]
    if memory is not None:
        rows.append(("memory", f"{memory / 2**30:.1f} GiB"))
    if commit:
        changed = ", with uncommitted changes" if dirty else ""
        rows.append(("commit", f"{commit}{changed}"))
    return rows + list(libraries.items())


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_words(item) for item in value)
    return str(value)
