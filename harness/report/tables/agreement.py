"""Tables of how far the learning curves of implementations are one curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
from harness.report.tables.form import Block, Row, Table, by_heading
from harness.report.tables.learning import network, solved, updates
from harness.report.text import NOTHING, UNCERTIFIED, counts, marked, number, whole

OWN = computer_name(*OWN_FLOAT32)
MOST_SEEDS = 5
"""More updates than this are told as their range."""

SMALLEST_TELLING = 4
"""Below this many seeds Wilson's intervals of none and of all solved overlap."""


def agreement_table(summary: Summary) -> Table:
    """Return one line an implementation, over every cell and task."""
    head = (
        "implementation", "curves", "agree to parting", "agree at first",
        "parts earlier", "parts later", "× rounding", "solved", "updates to solve",
    )  # fmt: skip
    held = [row for row in summary.agreement if row.seeds]
    rows = tuple(
        _whole_row(name, members) for name, members in group(held, _name).items()
    )
    notes = (
        "Curves: one a seed, cell and task; its training losses are held against those "
        f"of {computer_name(*REFERENCE)}, update by update, and have parted where they "
        f"are more than {LEVEL:g} away, in the task's unit.",
        f"Agree to parting: not parted at any update before {OWN} is; at first: before "
        f"that is {SHOWS:g} away. Once rounding is amplified, which of two float32 "
        "computations parts first is chance too: earlier and later count the curves, "
        "and by how many updates at most; alone where the other does not part at all.",
        f"× rounding: the largest difference so far over that of {OWN}, median over "
        "updates, then over curves; about one where nothing but rounding differs.",
        "Solved, updates to solve: in how many cells and tasks the interval overlaps "
        "the float64 reference's." + _weakness(held),
    )
    return Table(
        "agreement",
        "Agreement with the float64 reference",
        "lrrrllrrr",
        (Block(head, rows),),
        notes,
    )


def _name(row: AgreementRow) -> str:
    return computer_name(row.implementation, row.dtype)


def _whole_row(name: str, rows: Sequence[AgreementRow]) -> Row:
    seeds = [seed for row in rows for seed in row.seeds]
    judged = [seed.agrees for seed in seeds]
    excess = [seed.excess for seed in seeds if seed.excess is not None]
    yardstick = name == OWN
    doubted = any(row.learning.doubt for row in rows)
    within = (_share([getattr(r, k) for r in rows]) for k in _WITHIN)
    return Row(
        (
            marked(name, UNCERTIFIED if doubted else None),
            whole(sum(seed.compared > 0 for seed in seeds)),
            NOTHING if yardstick else _share(judged),
            NOTHING if yardstick else _share([s.agrees_at_first for s in seeds]),
            NOTHING if yardstick else _gap(seeds, earlier=True),
            NOTHING if yardstick else _gap(seeds, earlier=False),
            f"{np.median(excess):.2g}" if excess else NOTHING,
            *within,
        ),
        "doubt" if False in judged or doubted else "",
        implementation=rows[0].implementation,
    )


_WITHIN = ("solved_within", "updates_within")


def _share(found: Sequence[bool | None]) -> str:
    known = [value for value in found if value is not None]
    return f"{sum(known)}/{len(known)}" if known else NOTHING


def _gap(seeds: Sequence[SeedAgreement], *, earlier: bool) -> str:
    """Return "4 by ≤ 6 updates, 1 alone"."""
    ends = [(s.parts_at, s.reference_parts_at) for s in seeds if s.agrees is not None]
    pairs = [pair if earlier else pair[::-1] for pair in ends]
    gaps = [b - a for a, b in pairs if a is not None and b is not None and a < b]
    alone = sum(a is not None and b is None for a, b in pairs)
    words = [f"{len(gaps)} by ≤ {max(gaps)} updates"] if gaps else []
    words += [f"{alone} alone"] if alone else []
    return ", ".join(words) or "0"


def _weakness(rows: Sequence[AgreementRow]) -> str:
    fewest = min((row.learning.count for row in rows), default=SMALLEST_TELLING)
    if fewest >= SMALLEST_TELLING:
        return ""
    return (
        f" Fewer than {SMALLEST_TELLING} seeds cannot tell all solved from none solved "
        "by these intervals; the next table has the seeds."
    )


# --- by cell and task ----------------------------------------------------------------


def parting_table(summary: Summary) -> Table:
    """Return when the curves of each cell part, and what they reached."""
    head = (
        "network", "computed by", "agree to parting", "largest difference before",
        "parts at update", "solved", "updates to solve", "by seed",
    )  # fmt: skip
    notes = (
        f"Before: at the updates before {OWN} parts. Parts at update: in the order of "
        f"the seeds, {NOTHING} where it does not within the updates compared. By seed: "
        "updates to solve in the order of the seeds.",
    )
    return Table(
        "parting",
        "Where the curves part, and what they reach",
        "llrrllll",
        by_heading(head, summary.agreement, lambda row: row.heading, _parting_row),
        notes,
    )


def _parting_row(row: AgreementRow) -> Row:
    largest = [seed.largest for seed in row.seeds if seed.largest is not None]
    judged = [seed.agrees for seed in row.seeds]
    own = _name(row) == OWN
    apart = False in (row.solved_within, row.updates_within)
    return Row(
        (
            network(row.learning),
            marked(_name(row), row.learning.doubt),
            NOTHING if own else _share(judged),
            number(max(largest)) if largest and not own else NOTHING,
            _partings(row.seeds),
            solved(row.learning),
            updates(row.learning.updates),
            _by_seed([s.updates_to_solve for s in row.learning.seeds]),
        ),
        "bad" if apart else "doubt" if False in judged or row.learning.doubt else "",
        row.heading.task,
        row.cell,
        row.implementation,
    )


def _partings(seeds: Sequence[SeedAgreement]) -> str:
    if not seeds:
        return NOTHING
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
