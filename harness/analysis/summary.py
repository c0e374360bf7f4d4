"""A run in small tables: what was learned, why, how fast, and what went wrong."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from harness.analysis.certificates import ParityRow, parity_rows
from harness.analysis.grouping import Heading, group
from harness.analysis.learning.agreement import (
    COMPUTED,
    AgreementRow,
    agreement_rows,
    learned_by_several,
)
from harness.analysis.learning.gradient_over_lag import GradientRow, gradient_rows
from harness.analysis.learning.initial_values import InitialRow, initial_rows
from harness.analysis.learning.learned import LearningRow, learning_rows
from harness.analysis.learning.solve_time import SolveTime, solve_times
from harness.analysis.run import JudgedRun
from harness.analysis.speed.fastest import FastestMap, fastest_maps
from harness.analysis.speed.payback import Payback, paybacks
from harness.analysis.speed.relative import speed_rows
from harness.analysis.speed.roofline import PeakRow, peak_json, peak_rows
from harness.analysis.speed.timings import SpeedRow
from harness.errors import NothingMeasuredError
from harness.machine.peak import Peak
from harness.machine.reason import Reason
from harness.measure import MEASURES
from harness.store import TrialRecord
from harness.trial import QUESTION, SEEDS, Trial


@dataclass(frozen=True)
class OutcomeRow:
    """Trials that did not end ok, for the same reason.

    Attributes:
        seeds: Their seeds; empty where the measure has none.
        last_words: The last line that the latest of them printed, or None.
    """

    measure: str
    task: str
    length: int | None
    cell: str
    implementation: str
    outcome: str
    reason: str
    count: int
    seeds: tuple[int, ...]
    last_words: str | None = None


@dataclass(frozen=True)
class LearnedRow:
    """A learning row with what the other measures say of the same network."""

    learning: LearningRow
    gradients: GradientRow | None
    solve_times: tuple[SolveTime, ...]


@dataclass(frozen=True)
class Header:
    """What was run where, in numbers.

    Attributes:
        measures: Number of trials of each measure.
        outcomes: Number of trials of each outcome.
        machines: What the trials say of where they ran.
        fitness: The worst verdict on them before a session, or None without one.
        frameworks: "torch 2.13.0", of the trials that say so.
    """

    suite: str
    why: str
    measures: dict[str, int]
    outcomes: dict[str, int]
    wall_time_s: float | None
    machines: tuple[str, ...]
    frameworks: tuple[str, ...]
    fitness: str | None = None


@dataclass(frozen=True)
class Summary:
    """Every table of a run.

    Attributes:
        environment: Name and value, in the order to show them.
        focus: The heading whose figures are on the first screen, or None.
    """

    run: JudgedRun = field(repr=False)
    header: Header
    learned: tuple[LearnedRow, ...]
    gradients: tuple[GradientRow, ...]
    initial_values: tuple[InitialRow, ...]
    speed: tuple[SpeedRow, ...]
    parity: tuple[ParityRow, ...]
    outcomes: tuple[OutcomeRow, ...]
    environment: tuple[tuple[str, str], ...]
    choices: tuple[tuple[str, str], ...]
    focus: Heading | None
    agreement: tuple[AgreementRow, ...] = ()
    peaks: tuple[PeakRow, ...] = ()

    @functools.cached_property
    def fastest(self) -> tuple[FastestMap, ...]:
        """Which implementation is the fastest, by cell, phase and conditions."""
        return tuple(fastest_maps(self.speed))

    @functools.cached_property
    def paybacks(self) -> tuple[Payback, ...]:
        """Every first call, and when it has paid back."""
        return tuple(paybacks(self.speed))

    @property
    def several_learned(self) -> bool:
        """Whether any network was trained by more than one implementation."""
        return learned_by_several(row.learning.trial for row in self.learned)

    @property
    def solve_times(self) -> tuple[SolveTime, ...]:
        """Every time to solve, in the order of the learning rows."""
        return tuple(time for row in self.learned for time in row.solve_times)

    def to_json(self) -> dict[str, Any]:
        """Return the tables as JSON values, without the raw readings of timings."""
        first_calls = [_payback_json(each) for each in self.paybacks]
        return _fields(self) | {"fastest": _json(self.fastest), "paybacks": first_calls}


_JSON_NAMES = {"heading": "place"}
"""Fields that have another name in the JSON."""

_DERIVED = ("intensity", "of_peak", "roof_flop_per_s", "of_roof")
"""What the JSON of a timing holds beside its fields."""


def _json(value: Any) -> Any:
    if isinstance(value, Trial | Reason):
        return value.to_json()
    if isinstance(value, Peak):
        return peak_json(value)
    if isinstance(value, SpeedRow):
        derived = {name: getattr(value, name) for name in _DERIVED}
        return _fields(value) | {"turns": {}, "latency_sample_s": []} | derived
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, Mapping):
        return {name: _json(item) for name, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, list | tuple) else value


def _fields(row: Any) -> dict[str, Any]:
    """Return the fields of a row as JSON values; raw values are not in its repr."""
    return {
        _JSON_NAMES.get(field.name, field.name): _json(getattr(row, field.name))
        for field in fields(row)
        if field.repr
    }


def summarize(run: JudgedRun) -> Summary:
    """Return the tables of a run.

    Raises:
        NothingMeasuredError: If there is no finished trial.
    """
    if not run.records:
        raise NothingMeasuredError(
            "the run holds no finished trial; run it again to go on with it"
        )
    speed = tuple(speed_rows(run))
    gradients = tuple(gradient_rows(run))
    by_network = {row.key: row for row in gradients}
    rows = learning_rows(run)
    times = _solve_times(rows, speed)
    learned = tuple(
        LearnedRow(row, by_network.get(row.trial.key(QUESTION, SEEDS)), tuple(found))
        for row, found in zip(rows, times, strict=True)
    )
    return Summary(
        run=run,
        header=_header(run),
        learned=learned,
        gradients=gradients,
        initial_values=tuple(initial_rows(run)),
        speed=speed,
        parity=tuple(parity_rows(run.of("parity"))),
        outcomes=tuple(outcome_rows(run.records)),
        environment=tuple(environment_rows(run.info)),
        choices=tuple(
            (str(name), str(choice))
            for name, choice in _mapping(run.info, "choices").items()
        ),
        focus=focus(learned),
        agreement=tuple(agreement_rows(run, rows)),
        peaks=tuple(peak_rows(run)),
    )


def _payback_json(found: Payback) -> dict[str, Any]:
    """Return a first call as JSON values; the timings stand in their own rows."""
    row = found.row
    return {
        "place": _json(row.heading),
        "cell": row.cell,
        "implementation": row.implementation,
        "phase": row.phase,
        "first_call_s": row.first_call_s,
        "against": found.against and found.against.implementation,
        "calls": found.calls,
        "low": found.low,
        "high": found.high,
    }


def _solve_times(
    rows: Sequence[LearningRow], speed: Sequence[SpeedRow]
) -> list[list[SolveTime]]:
    """Return the times to solve of each row.

    Where several implementations trained one network, each has counted updates of its
    own and is timed with those; else its one count stands for all.
    """
    trained = Counter(row.trial.key(COMPUTED) for row in rows)
    return [
        [
            time
            for time in solve_times(row, speed)
            if trained[row.trial.key(COMPUTED)] == 1
            or time.implementation == row.implementation
        ]
        for row in rows
    ]


def outcome_rows(records: Sequence[TrialRecord]) -> list[OutcomeRow]:
    """Return the trials that did not end ok; those alike but for the seed together."""
    failed = [record for record in records if record.outcome != "ok"]
    keyed = group(
        failed,
        lambda r: (
            r.trial.measure,
            r.trial.task or "",
            r.trial.length,
            r.trial.cell,
            r.trial.implementation,
            r.outcome,
            r.reason or "no reason was given",
        ),
    )
    return [
        OutcomeRow(
            *key,
            count=len(members),
            seeds=tuple(
                sorted(r.trial.seed for r in members if r.trial.seed is not None)
            ),
            last_words=_last_words(members),
        )
        for key, members in keyed.items()
    ]


def _last_words(records: Sequence[TrialRecord]) -> str | None:
    lines = [line for r in records for line in r.result.get("log_tail", [])]
    lines = [line.strip() for line in lines if line.strip()]
    fatal = [i for i, line in enumerate(lines) if line.startswith("Fatal Python error")]
    if not fatal:
        return lines[-1] if lines else None
    # Python's own report of a crash begins with the innermost call.
    told = lines[fatal[-1] :]
    place = next((line for line in told if line.startswith("File ")), "")
    return f"{told[0]} {place}".strip()


def focus(learned: Sequence[LearnedRow]) -> Heading | None:
    """Return the place where the solved fractions of the cells differ most.

    Of several such, one with gradients measured, then the longest, then the first.
    """
    headings = group(learned, lambda row: row.learning.heading)
    if not headings:
        return None

    def telling(where: Heading) -> tuple[float, bool, int]:
        rows = headings[where]
        shares = [
            r.learning.solved / r.learning.count for r in rows if r.learning.count
        ]
        spread = max(shares) - min(shares) if shares else -1.0
        return spread, any(row.gradients for row in rows), where.length or 0

    return max(headings, key=telling)


def _header(run: JudgedRun) -> Header:
    records, info = run.records, run.info
    suite = _mapping(info, "suite")
    environment = _mapping(info, "environment")
    measures = Counter(str(record.trial.measure) for record in records)
    # Rounding may differ between processors of one name.
    processors = {r.result["processor"] for r in records if "processor" in r.result}
    machines = [
        f"{r.result['machine']} ({r.result['processor']})"
        if len(processors) > 1 and "processor" in r.result
        else r.result.get("machine")
        for r in records
    ]
    if not any(machines):
        machines = [environment.get("machine")]
    frameworks = [record.result.get("framework") for record in records]
    wall = info.get("wall_time_s")
    return Header(
        suite=str(suite.get("name") or "run"),
        why=str(suite.get("why") or ""),
        measures={name: measures[name] for name in MEASURES if measures[name]},
        outcomes=dict(Counter(record.outcome for record in records).most_common()),
        wall_time_s=float(wall) if isinstance(wall, int | float) else None,
        machines=tuple(dict.fromkeys(str(name) for name in machines if name)),
        frameworks=tuple(dict.fromkeys(str(name) for name in frameworks if name)),
        fitness=_worst_fitness(records),
    )


def _worst_fitness(records: Sequence[TrialRecord]) -> str | None:
    verdicts = {_mapping(r.result, "fitness").get("verdict") for r in records}
    return next((v for v in ("unfit", "noisy", "fit") if v in verdicts), None)


def environment_rows(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a number needs beside it: machine, versions, commit."""
    environment = dict(_mapping(info, "environment"))
    libraries = environment.pop("libraries", None) or {}
    commit, dirty = environment.pop("commit", None), environment.pop("dirty", None)
    memory = environment.pop("memory_bytes", None)
    rows = [
        (str(name).replace("_", " "), _words(value))
        for name, value in environment.items()
        if value is not None
    ]
    if isinstance(memory, int | float):
        rows.append(("memory", f"{memory / 2**30:.1f} GiB"))
    if commit:
        changed = ", with uncommitted changes" if dirty else ""
        rows.append(("commit", f"{commit}{changed}"))
    if isinstance(libraries, Mapping):
        rows += [(str(name), str(version)) for name, version in libraries.items()]
    return rows


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_words(item) for item in value)
    return str(value)


def _mapping(info: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = info.get(name)
    return found if isinstance(found, Mapping) else {}
