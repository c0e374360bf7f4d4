"""Base against new: a verdict for every timing.

A key is an implementation, cell, task or shape, phase, device, thread count, dtype and
precision. Two timings of one key, on equal machines, are compared; their libraries may
differ, because a comparison is made to see what such a change does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from scipy import stats

from harness.analysis.comparison.effect import (
    FEWEST_ROUNDS,
    Effect,
    paired_effect,
    unpaired_effect,
)
from harness.analysis.comparison.normalise import Normalised, normalised
from harness.analysis.comparison.trial_pairs import (
    TimedTrial,
    other_budget,
    other_machine,
    timed_trials,
    trial_pairs,
)
from harness.analysis.run import JudgedRun
from harness.analysis.speed.timings import SpeedRow
from harness.errors import MisuseError
from harness.trial import Trial

EFFECT = 0.05
"""A ratio of times that is nearer to 1 counts as no difference."""

FALSE_DISCOVERIES = 0.05
"""The share of the verdicts "slower" and "faster" that may be due to chance."""

Verdict = Literal[
    "slower",
    "failed in new",
    "unclear",
    "missing in new",
    "not comparable",
    "same",
    "faster",
    "missing in base",
    "failed in base",
    "failed in both",
]

REGRESSIONS = ("slower", "failed in new")
DECIDED = (*REGRESSIONS, "same", "faster")

_WORST_FIRST = get_args(Verdict)
_APART = ("not comparable", "missing in new", "missing in base")

_NO_ROUNDS = "the runs have no rounds that could be compared; measure both again"
_NOT_NARROW = (
    "the interval holds a difference that counts and one that does not; give more time "
    "(--set speed.time_budget_s=120), or a quieter machine where there is a shaky mark"
)
_AMONG_MANY = (
    "beyond the effect when it is judged alone, but with so many keys this may be "
    "chance; measure it again alone (-k), or give more time "
    "(--set speed.time_budget_s=120)"
)
_NO_MEASURE = (
    "there is nothing to normalise by: no peak of both machines, and no other "
    "implementation in both sessions"
)


@dataclass(frozen=True)
class Compared:
    """One key: its two timings, or why they cannot be compared.

    Attributes:
        trial: The trial of base, or of new if base has none.
        phase: "" if the trial has no timing on either side.
        effect: The raw ratio of times.
        p: The p-value of "slower" or "faster", adjusted for all keys; None otherwise.
        why: What led to the verdict, and what to do about it.
        normalised: The corrected ratio, if machines or budgets differ.
    """

    trial: Trial
    phase: str
    base: SpeedRow | None = None
    new: SpeedRow | None = None
    effect: Effect | None = None
    p: float | None = None
    verdict: Verdict = "unclear"
    why: str = ""
    marks: tuple[str, ...] = ()
    normalised: Normalised | None = None

    @property
    def judged(self) -> Effect | None:
        """The ratio that the verdict depends on."""
        return self.effect if self.normalised is None else self.normalised.effect


@dataclass(frozen=True)
class Comparison:
    """Every key, the worst first.

    Attributes:
        effect: The smallest difference that counts, as a share.
        notes: Sentences about all ratios, such as "Libraries differ".
    """

    rows: tuple[Compared, ...]
    effect: float
    notes: tuple[str, ...] = ()

    def of(self, *verdicts: str) -> tuple[Compared, ...]:
        """Return the keys with one of these verdicts."""
        return tuple(row for row in self.rows if row.verdict in verdicts)


def compare(
    base: JudgedRun,
    new: JudgedRun,
    *,
    effect: float = EFFECT,
    across_machines: bool = False,
) -> Comparison:
    """Compare the timings of two runs.

    Args:
        base: A run.
        new: Another run.
        effect: The smallest difference that counts, as a share.
        across_machines: Whether to compare across different machines and budgets.

    Raises:
        MisuseError: If machines or budgets differ and `across_machines` is False.
    """
    sides = timed_trials(base), timed_trials(new)
    rows = [
        row
        for pair in trial_pairs(*sides, across_machines=across_machines)
        for row in _rows(*pair, effect)
    ]
    if across_machines:
        rows = [_across(row, *sides, effect) for row in rows]
    else:
        _refuse_different(rows)
    return _concluded(rows, effect)


def confirmed(first: Comparison, again: Comparison) -> Comparison:
    """Return the first comparison, with the differences that the second one confirms.

    One process may be faster than another that runs the same code, because of where its
    memory lies, and no interval over rounds shows that. If the second comparison, of
    other processes, does not agree, the difference may not come from the code.
    """
    second = {(row.trial.key(), row.phase): row for row in again.rows}
    rows = [
        _agreed(row, second.get((row.trial.key(), row.phase)))
        if row.verdict in ("slower", "faster")
        else row
        for row in first.rows
    ]
    return replace(first, rows=tuple(sorted(rows, key=_badness)))


def _agreed(row: Compared, other: Compared | None) -> Compared:
    said = f"{row.why}; " if row.why else ""
    if other is None or other.judged is None:
        why = "was not timed again" if other is None else f"again: {other.verdict}"
        if other is not None and other.why:
            why += f", {other.why}"
        return replace(row, why=f"{said}{why}")
    found = f"{other.judged.ratio:.3f}"
    if other.verdict == row.verdict:
        return replace(row, why=f"{said}again in fresh processes: {found}")
    then = "so that the difference may be one of the two processes and not of the code"
    if other.verdict == "unclear":
        then = (
            "which is not known well enough; run the gate again, on a quieter machine"
        )
    why = f"{row.verdict} at first, but {found} in fresh processes, {then}"
    return replace(row, verdict="unclear", why=why)


# --- one key -------------------------------------------------------------------------


def _refuse_different(rows: Sequence[Compared]) -> None:
    """Raise MisuseError if machines differ, or if no key can be compared."""
    for row in rows:
        if row.effect is None or row.base is None or row.new is None:
            continue
        differences = ", ".join(other_machine(row.base, row.new))
        if differences:
            raise MisuseError(
                f"the runs were measured on different machines: {differences}; "
                "measure both on one, as `rnn-harness gate --base REF` does, or give "
                "--across-machines to see them normalised"
            )
    apart = [row for row in rows if row.verdict == "not comparable"]
    if apart and all(row.verdict in _APART for row in rows):
        raise MisuseError(
            f"no timing of one run can be compared with one of the other: "
            f"{apart[0].why}; measure both in the same way, or give --across-machines "
            "to see them normalised"
        )


def _rows(
    base: TimedTrial | None, new: TimedTrial | None, effect: float
) -> Iterator[Compared]:
    """Yield the keys of two trials that time the same call, one for each phase."""
    if new is None:
        assert base is not None
        for phase in base.phases or ("",):
            row = Compared(base.trial, phase, base=base.phases.get(phase))
            yield replace(row, verdict="missing in new", why=base.failure)
    elif base is None:
        for phase in new.phases or ("",):
            row = Compared(new.trial, phase, new=new.phases.get(phase))
            yield replace(row, verdict="missing in base", why=new.failure)
    elif not base.phases and not new.phases:
        yield Compared(new.trial, "", verdict="failed in both", why=new.failure)
    else:
        for phase in {**base.phases, **new.phases}:
            yield _row(base, new, phase, effect)


def _row(base: TimedTrial, new: TimedTrial, phase: str, effect: float) -> Compared:
    before, after = base.phases.get(phase), new.phases.get(phase)
    row = Compared(base.trial, phase, before, after, marks=_marks(before, after))
    other = other_budget(base.trial, new.trial)
    if other:
        return replace(row, verdict="not comparable", why=", ".join(other))
    if before is None:
        verdict: Verdict = "missing in base" if base.phases else "failed in base"
        return replace(row, verdict=verdict, why=base.failure)
    if after is None:
        verdict = "missing in new" if new.phases else "failed in new"
        return replace(row, verdict=verdict, why=new.failure)
    row = replace(row, effect=_effect(before, after, effect))
    if after.wrong is not None and before.wrong is None:
        why = f"what it computes is not right any more: {after.wrong}"
        return replace(row, verdict="failed in new", why=why)
    return row


def _marks(base: SpeedRow | None, new: SpeedRow | None) -> tuple[str, ...]:
    found = [_marks_of(each) if each else () for each in (base, new)]
    both = [mark for mark in found[0] if mark in found[1]]
    return (
        *both,
        *(f"base {mark}" for mark in found[0] if mark not in both),
        *(f"new {mark}" for mark in found[1] if mark not in both),
    )


def _marks_of(row: SpeedRow) -> tuple[str, ...]:
    marks = [] if row.doubt is None else [f"uncertified ({row.doubt})"]
    if row.unstable:
        kinds = dict.fromkeys(reason.kind for reason in row.unstable)
        marks.append(f"shaky ({', '.join(kinds)})")
    elif row.shaky and not row.unfit:
        marks.append("shaky")
    if row.fitness is not None and row.fitness.verdict != "fit":
        marks.append(f"{row.fitness.verdict} machine")
    return tuple(marks)


def _effect(base: SpeedRow, new: SpeedRow, effect: float) -> Effect | None:
    if base.session is not None and base.same_session == new.same_session:
        return paired_effect(base.turns, new.turns, effect)
    return unpaired_effect([*base.turns.values()], [*new.turns.values()], effect)


def _across(
    row: Compared,
    of_base: Sequence[TimedTrial],
    of_new: Sequence[TimedTrial],
    effect: float,
) -> Compared:
    """Mark a key whose machines or budgets differ, and give it a normalised ratio."""
    base, new = row.base, row.new
    if base is None or new is None:
        return row
    different = (*other_machine(base, new), *other_budget(base.trial, new.trial))
    if not different:
        return row
    found = normalised(base, new, of_base, of_new, effect)
    return replace(
        row,
        effect=_effect(base, new, effect),
        verdict="unclear",
        why="" if found else _NO_MEASURE,
        marks=(f"unlike: {', '.join(different)}", *row.marks),
        normalised=found,
    )


# --- verdicts ------------------------------------------------------------------------


def _concluded(rows: Sequence[Compared], effect: float) -> Comparison:
    """Give every ratio its verdict, adjusted for all keys and both directions."""
    asked = [row for row in rows if _is_open(row)]
    judged = [found for row in asked if (found := row.judged) is not None]
    values = [p for found in judged for p in (found.slower_p, found.faster_p)]
    adjusted = iter(stats.false_discovery_control(values) if values else ())
    concluded = [row for row in rows if not _is_open(row)]
    for row in asked:
        if row.judged is None:
            concluded.append(replace(row, why=_NO_ROUNDS))
        else:
            ps = float(next(adjusted)), float(next(adjusted))
            concluded.append(_judged(row, row.judged, *ps, effect))
    ordered = tuple(sorted(concluded, key=_badness))
    return Comparison(ordered, effect, _notes(ordered))


def _is_open(row: Compared) -> bool:
    return row.verdict == "unclear" and not row.why


def _judged(
    row: Compared, found: Effect, slower_p: float, faster_p: float, effect: float
) -> Compared:
    if slower_p <= FALSE_DISCOVERIES:
        return replace(row, verdict="slower", p=slower_p)
    if faster_p <= FALSE_DISCOVERIES:
        return replace(row, verdict="faster", p=faster_p)
    if found.interval is None:
        rounds = "1 round" if found.rounds == 1 else f"{found.rounds} rounds"
        fewest = f"{FEWEST_ROUNDS} is the smallest number that a verdict can rest on"
        return replace(row, why=f"{rounds}, and {fewest}; --set speed.rounds=12")
    if found.interval.low >= 1 / (1 + effect) and found.interval.high <= 1 + effect:
        return replace(row, verdict="same")
    beyond = found.interval.low > 1 + effect or found.interval.high < 1 / (1 + effect)
    return replace(row, why=_AMONG_MANY if beyond else _NOT_NARROW)


def _badness(row: Compared) -> tuple[int, float]:
    ratio = row.judged.ratio if row.judged is not None else 1.0
    return _WORST_FIRST.index(row.verdict), -ratio


def _notes(rows: Sequence[Compared]) -> tuple[str, ...]:
    notes = []
    if any(row.effect is not None and not row.effect.paired for row in rows):
        notes.append(
            "Base and new were timed in different sessions. If the machine changed "
            "between them, every ratio is off by as much, and no interval shows it. "
            "`rnn-harness gate --base REF` times both in one session."
        )
    both = [(r.base, r.new) for r in rows if r.base is not None and r.new is not None]
    libraries = {
        f"{base.framework} → {new.framework}"
        for base, new in both
        if base.framework != new.framework
    }
    kernels = {
        f"{new.cell} {new.implementation}: {base.kernel} → {new.kernel}"
        for base, new in both
        if base.kernel and new.kernel and base.kernel != new.kernel
    }
    for what, changed in (("Libraries", libraries), ("Kernels", kernels)):
        if changed:
            notes.append(f"{what} differ: {'; '.join(sorted(changed))}.")
    return tuple(notes)
