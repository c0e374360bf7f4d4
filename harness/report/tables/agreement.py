"""Tables that compare the learning curves of all implementations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis.grouping import group
from harness.analysis.learning.agreement import (
    LEVEL,
    OWN_FLOAT32,
    REFERENCE,
    SHOWS,
    AgreementRow,
    SeedAgreement,
    computer_name,
)
from harness.analysis.summary import Summary
from harness.intervals import median_of
from harness.report.tables.form import Column, Table, heading, keys, table
from harness.report.tables.learning import network, solved, updates
from harness.report.text import NOTHING, UNCERTIFIED, counts, marked, number, whole

OWN = computer_name(*OWN_FLOAT32)
MOST_SEEDS = 5
"""The updates of more seeds than this are written as their range."""

FEWEST_SEEDS = 4
"""With fewer seeds, Wilson's intervals of 0 % and 100 % solved overlap."""


Rows = Sequence[AgreementRow]

WHOLE: Sequence[Column[Rows]] = (
    Column("implementation", lambda rows: marked(_name(rows[0]), _doubt(rows))),
    Column("curves", lambda rows: str(sum(s.compared > 0 for s in _seeds(rows))), "r"),
    Column("agree to parting", lambda rows: _agreeing(rows), "r"),
    Column(
        "agree at first",
        lambda rows: _share(seed.agrees_at_first for seed in _judged(rows)),
        "r",
    ),
    Column(
        "parts earlier",
        lambda rows: _gap((s.parts_at, s.reference_parts_at) for s in _judged(rows)),
    ),
    Column(
        "parts later",
        lambda rows: _gap((s.reference_parts_at, s.parts_at) for s in _judged(rows)),
    ),
    Column("× rounding", lambda rows: _excess(_seeds(rows)), "r"),
    Column("solved", lambda rows: _share(row.solved_within for row in rows), "r"),
    Column(
        "updates to solve", lambda rows: _share(row.updates_within for row in rows), "r"
    ),
)


def agreement_table(summary: Summary) -> Table:
    """Return one line for each implementation, over every cell and task."""
    held = [row for row in summary.agreement if row.seeds]
    notes = (
        "Curves: one for each seed, cell and task. The training losses are compared "
        f"with those of {computer_name(*REFERENCE)} at each update; two curves have "
        f"parted once they differ by more than {LEVEL:g}, in the task's unit.",
        f"Agree to parting: the curve has not parted before {OWN} has. Agree at first: "
        f"it has not parted before {OWN} differs by {SHOWS:g}. Once rounding errors "
        "have grown, it is partly chance which of two float32 computations parts "
        "first: earlier and later count the curves, with the most updates between "
        "them; alone means that the other does not part at all.",
        f"× rounding: the largest difference so far divided by that of {OWN}, as a "
        "median over updates and then over curves. It is near 1 where only rounding "
        "differs.",
        "Solved, updates to solve: in how many cells and tasks the interval overlaps "
        "that of the float64 reference." + _weakness(held),
    )
    return table(
        "agreement",
        "Agreement with the float64 reference",
        WHOLE,
        group(held, _name).values(),
        keys=lambda rows: ("", "", rows[0].implementation),
        tone=lambda rows: "doubt" if _doubt(rows) or _disagree(rows) else "",
        notes=notes,
    )


def _name(row: AgreementRow) -> str:
    return computer_name(row.implementation, row.dtype)


def _seeds(rows: Rows) -> list[SeedAgreement]:
    return [seed for row in rows for seed in row.seeds]


def _judged(rows: Rows) -> list[SeedAgreement]:
    """Return the seeds that can be judged; the yardstick itself has none."""
    others = [row for row in rows if _name(row) != OWN]
    return [seed for seed in _seeds(others) if seed.agrees is not None]


def _doubt(rows: Rows) -> str | None:
    return UNCERTIFIED if any(row.learning.doubt for row in rows) else None


def _disagree(rows: Rows) -> bool:
    return any(seed.agrees is False for seed in _seeds(rows))


def _agreeing(rows: Rows) -> str | None:
    return _share(seed.agrees for seed in _judged(rows))


def _share(found: Iterable[bool | None]) -> str | None:
    known = [value for value in found if value is not None]
    return f"{sum(known)}/{len(known)}" if known else None


def _excess(seeds: Sequence[SeedAgreement]) -> str | None:
    found = median_of([seed.excess for seed in seeds if seed.excess is not None])
    return None if found is None else f"{found:.2g}"


def _gap(pairs: Iterable[tuple[int | None, int | None]]) -> str | None:
    """Return "4 by ≤ 6 updates, 1 alone": how often the first comes earlier."""
    known = list(pairs)
    gaps = [b - a for a, b in known if a is not None and b is not None and a < b]
    alone = sum(a is not None and b is None for a, b in known)
    words = [f"{len(gaps)} by ≤ {max(gaps)} updates"] if gaps else []
    words += [f"{alone} alone"] if alone else []
    return ", ".join(words or ["0"]) if known else None


def _weakness(rows: Sequence[AgreementRow]) -> str:
    fewest = min((row.learning.count for row in rows), default=FEWEST_SEEDS)
    if fewest >= FEWEST_SEEDS:
        return ""
    return (
        f" With fewer than {FEWEST_SEEDS} seeds, these intervals overlap even where "
        "one solves all and the other none; the next table has the seeds."
    )


# --- by cell and task ----------------------------------------------------------------

PARTING: Sequence[Column[AgreementRow]] = (
    Column("network", lambda row: network(row.learning)),
    Column("computed by", lambda row: marked(_name(row), row.learning.doubt)),
    Column("agree to parting", lambda row: _agreeing([row]), "r"),
    Column("largest difference before", lambda row: _largest(_judged([row])), "r"),
    Column("parts at update", lambda row: _partings(row.seeds)),
    Column("solved", lambda row: solved(row.learning)),
    Column("updates to solve", lambda row: updates(row.learning.updates)),
    Column(
        "by seed", lambda r: _by_seed([s.updates_to_solve for s in r.learning.seeds])
    ),
)


def parting_table(summary: Summary) -> Table:
    """Return when the curves of each cell part, and which seeds solved the task."""
    notes = (
        f"Largest difference before: at the updates before {OWN} parts. Parts at "
        f"update: a number for each seed, {NOTHING} where the curve does not part. By "
        "seed: the updates to solve of each seed.",
    )
    return table(
        "parting",
        "Where the curves part, and what the seeds reach",
        PARTING,
        summary.agreement,
        keys=keys,
        tone=_parting_tone,
        block=heading,
        notes=notes,
    )


def _parting_tone(row: AgreementRow) -> str:
    if False in (row.solved_within, row.updates_within):
        return "bad"
    return "doubt" if _disagree([row]) or row.learning.doubt else ""


def _largest(seeds: Sequence[SeedAgreement]) -> str:
    known = (seed.largest for seed in seeds if seed.largest is not None)
    return number(max(known, default=None))


def _partings(seeds: Sequence[SeedAgreement]) -> str | None:
    if not seeds:
        return None
    missing = [seed.outcome for seed in seeds if not seed.compared]
    if len(missing) == len(seeds):
        return counts({name: missing.count(name) for name in dict.fromkeys(missing)})
    return _by_seed([seed.parts_at for seed in seeds])


def _by_seed(found: Sequence[float | None]) -> str:
    if len(found) <= MOST_SEEDS:
        return ", ".join(whole(value) for value in found)
    known = [value for value in found if value is not None]
    if not known:
        return f"0 of {len(found)}"
    ends = f"{whole(min(known))} to {whole(max(known))}"
    return f"{ends} ({len(known)} of {len(found)})"
