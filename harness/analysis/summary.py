"""A run in small tables: what was learned, why, how fast, and what went wrong."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from harness.analysis.certificates import ParityRow, parity_rows
from harness.analysis.grouping import Heading, group
from harness.analysis.header import Header, environment_rows, header
from harness.analysis.learning.agreement import AgreementRow, agreement_rows
from harness.analysis.learning.gradient_over_lag import GradientRow, gradient_rows
from harness.analysis.learning.initial_values import InitialRow, initial_rows
from harness.analysis.learning.learned import LearningRow, learning_rows
from harness.analysis.learning.solve_time import SolveTime, solve_times
from harness.analysis.outcomes import OutcomeRow, outcome_rows
from harness.analysis.run import JudgedRun
from harness.analysis.speed.fastest import FastestMap, fastest_maps
from harness.analysis.speed.payback import Payback, paybacks
from harness.analysis.speed.relative import speed_rows
from harness.analysis.speed.roofline import PeakRow, peak_json, peak_rows
from harness.analysis.speed.timings import SpeedRow
from harness.errors import NothingMeasuredError
from harness.machine.peak import Peak
from harness.reason import Reason
from harness.trial import QUESTION, SEEDS, Trial


@dataclass(frozen=True)
class LearnedRow:
    """A learning row with what the other measures say of the same network."""

    learning: LearningRow
    gradients: GradientRow | None
    solve_times: tuple[SolveTime, ...]


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
    def solve_times(self) -> tuple[SolveTime, ...]:
        """Every time to solve, in the order of the learning rows."""
        return tuple(time for row in self.learned for time in row.solve_times)

    def to_json(self) -> dict[str, Any]:
        """Return the tables as JSON values, without the raw readings of timings."""
        first_calls = [_payback_json(each) for each in self.paybacks]
        return _fields(self) | {"fastest": _json(self.fastest), "paybacks": first_calls}


_JSON_NAMES = {"heading": "place", "limit": "budget"}
"""Fields that have another name in the JSON."""

_DERIVED = ("intensity", "of_peak", "roof_flop_per_s", "of_roof")
"""Properties of a timing that its JSON has as well."""


_OF_FIRST_CALL = ("cell", "implementation", "phase", "first_call_s")
"""What the JSON of a first call holds of its timing."""


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
    """Return the fields of a row as JSON values, except those left out of its repr."""
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
            "the run has no finished trial; run its suite again to continue it"
        )
    speed = tuple(speed_rows(run))
    gradients = tuple(gradient_rows(run))
    by_network = {row.key: row for row in gradients}
    rows = learning_rows(run)
    times = solve_times(rows, speed)
    learned = tuple(
        LearnedRow(row, by_network.get(row.trial.key(QUESTION, SEEDS)), tuple(found))
        for row, found in zip(rows, times, strict=True)
    )
    return Summary(
        run=run,
        header=header(run),
        learned=learned,
        gradients=gradients,
        initial_values=tuple(initial_rows(run)),
        speed=speed,
        parity=tuple(parity_rows(run.of("parity"))),
        outcomes=tuple(outcome_rows(run.records)),
        environment=tuple(environment_rows(run.info)),
        choices=tuple((run.info.get("choices") or {}).items()),
        focus=focus(learned),
        agreement=tuple(agreement_rows(run, rows)),
        peaks=tuple(peak_rows(run)),
    )


def _payback_json(found: Payback) -> dict[str, Any]:
    """Return a first call as JSON values, without its timing."""
    row = found.row
    return {
        "place": _json(row.heading),
        **{name: getattr(row, name) for name in _OF_FIRST_CALL},
        "against": found.against and found.against.implementation,
        **{name: getattr(found, name) for name in ("calls", "low", "high")},
    }


def focus(learned: Sequence[LearnedRow]) -> Heading | None:
    """Return the heading under which the solved fractions of the cells differ most.

    If several differ as much, one with gradients is preferred, then the longest, then
    the first.
    """
    headings = group(learned, lambda row: row.learning.heading)

    def contrast(heading: Heading) -> tuple[float, bool, int]:
        rows = headings[heading]
        counted = [row.learning for row in rows if row.learning.count]
        shares = [row.solved / row.count for row in counted]
        spread = max(shares) - min(shares) if shares else -1.0
        return spread, any(row.gradients for row in rows), heading.length or 0

    return max(headings, key=contrast, default=None)
