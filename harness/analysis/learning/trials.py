"""The trials of learning and of gradients: their order, scores and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from harness.analysis.grouping import Heading, group, heading_of, numbers
from harness.analysis.run import JudgedRun
from harness.contract import Quantity
from harness.store import TrialRecord

T = TypeVar("T")


def learning_trials(run: JudgedRun) -> list[TrialRecord]:
    """Return the learning trials by cell and implementation, in order of appearance.

    The order in which they ended means nothing, because some ran side by side.
    """
    learning = run.of("learning")
    cells = list(dict.fromkeys(r.trial.cell for r in learning))
    names = list(dict.fromkeys(r.trial.implementation for r in run.records))
    return sorted(
        learning,
        key=lambda r: (cells.index(r.trial.cell), names.index(r.trial.implementation)),
    )


def in_order(
    items: Iterable[T], heading: Callable[[T], Heading], records: Iterable[TrialRecord]
) -> list[T]:
    """Return items by task, in the order of `records`, and then by length."""
    tasks = list(dict.fromkeys(record.trial.task or "" for record in records))

    def order(item: T) -> tuple[int, int]:
        return tasks.index(heading(item).task), heading(item).length or 0

    return sorted(items, key=order)


def by_heading(
    records: Sequence[TrialRecord], names: Iterable[str], order: Iterable[TrialRecord]
) -> list[tuple[Heading, list[TrialRecord]]]:
    """Return the records of each heading; `names` are the facts that vary."""
    found = group(records, lambda record: heading_of(record.trial, names))
    return in_order(found.items(), lambda pair: pair[0], order)


def headline(records: Iterable[TrialRecord], task: str | None) -> str:
    """Return the score that the trials of a task show first."""
    of_task = (r.result.get("headline") for r in records if r.trial.task == task)
    return next((str(name) for name in of_task if name), "loss")


def declared(records: Iterable[TrialRecord], metric: str) -> Quantity:
    """Return unit and direction of a metric, from the first trial that has them."""
    known = (record.result.get("quantities") or {} for record in records)
    for quantities in known:
        if metric in quantities:
            return Quantity(**quantities[metric])
    return Quantity("", "lower" if metric == "loss" else "neither")


def floor(records: Iterable[TrialRecord], metric: str) -> float | None:
    """Return the floor of a metric, from the first trial that has it."""
    return next(iter(numbers(records, "floor", metric)), None)


def failures(
    records: Iterable[TrialRecord], first: str = "cell"
) -> dict[tuple[str, str, str], int]:
    """Count the trials that did not end ok, by (`first`, implementation, outcome)."""
    keys = (
        (getattr(r.trial, first), r.trial.implementation, r.outcome)
        for r in records
        if r.outcome != "ok"
    )
    return dict(Counter(keys))
