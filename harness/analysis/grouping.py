"""Headings of trials, groups of items, and the values of a record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from harness.store import TrialRecord
from harness.trial import Trial

T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True, order=True)
class Heading:
    """What a panel of a figure, or a block of a table, is about.

    Attributes:
        task: The task, or "" if the input is random numbers.
        length: The task's own parameter, or None.
        variant: How it differs from its neighbours: "hidden size 128".
    """

    task: str
    length: int | None
    variant: str = ""

    @property
    def title(self) -> str:
        """The heading in words: "adding, length 100"."""
        words = (
            self.task if self.length is None else f"{self.task}, length {self.length}"
        )
        return " · ".join(word for word in (words, self.variant) if word)

    def with_words(self, words: str) -> Heading:
        """Return the heading with more words in its variant."""
        return replace(self, variant=" · ".join(filter(None, (self.variant, words))))

    def without(self, *names: str) -> Heading:
        """Return the heading without some facts of its variant."""
        words = self.variant.split(" · ")
        kept = [word for word in words if word.rpartition(" ")[0] not in names]
        return replace(self, variant=" · ".join(kept))


def group(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Return the items by key, keys and items in order of appearance."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def facts(trial: Trial) -> dict[str, Any]:
    """Return what may differ between trials of one task, length and cell."""
    found = {
        "hidden size": trial.hidden_size,
        "layers": trial.num_layers,
        "batch": trial.batch,
        "time steps": trial.time_steps,
        "input size": trial.input_size,
        "readout": trial.readout if trial.time_steps is not None else None,
        "init": trial.init,
        "optimiser": trial.optimizer.name,
        "learning rate": trial.optimizer.learning_rate,
        "clip": trial.optimizer.clip_norm or "none",
        "device": trial.device,
        "dtype": trial.dtype,
        "precision": trial.precision,
        "biases": trial.biases,
        "threads": trial.threads,
    }
    for extra in (trial.task_options, trial.settings.to_json()):
        found |= {str(key).replace("_", " "): value for key, value in extra.items()}
    return found


def varying(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return the facts that differ inside one task, length, cell and implementation."""
    names: dict[str, None] = {}
    keyed = group(trials, lambda t: (t.task, t.length, t.cell, t.implementation))
    for members in keyed.values():
        known = [facts(trial) for trial in members]
        for name in {name: None for each in known for name in each}:
            if len({json.dumps(each.get(name), default=str) for each in known}) > 1:
                names[name] = None
    return tuple(names)


def heading_of(trial: Trial, names: Iterable[str]) -> Heading:
    """Return the heading of a trial.

    Args:
        trial: The trial.
        names: The facts to name, from `varying`. A fact that is None does not apply to
            the trial and is left out: a task has a length, and no time steps.
    """
    known = facts(trial)
    named = [f"{name} {known[name]}" for name in names if known.get(name) is not None]
    return Heading(trial.task or "", trial.length, " · ".join(named))


def number(record: TrialRecord, split: str, metric: str) -> float | None:
    """Return a value of the whole trial as a number, or None."""
    found = record.value(split, metric)
    return float(found) if isinstance(found, int | float) else None


def numbers(records: Iterable[TrialRecord], split: str, metric: str) -> list[float]:
    """Return the value of each trial that has one."""
    found = (number(record, split, metric) for record in records)
    return [value for value in found if value is not None]


def curve(
    record: TrialRecord, split: str, metric: str
) -> tuple[list[float], list[float | None]]:
    """Return x and values of one metric of one split, in the order of x."""
    points: list[tuple[float, float | None]] = []
    for reading in record.readings:
        if reading.split != split or reading.x is None or metric not in reading.values:
            continue
        found = reading.values[metric]
        if isinstance(reading.x, Sequence):
            points += zip(map(float, reading.x), found, strict=True)
        else:
            points.append((float(reading.x), found))
    points.sort(key=lambda point: point[0])
    return [x for x, _ in points], [value for _, value in points]


def known_curve(
    record: TrialRecord, split: str, metric: str
) -> tuple[list[float], list[float]]:
    """Return x and values of one metric of one split, without the missing values."""
    points = zip(*curve(record, split, metric), strict=True)
    known = [(x, float(value)) for x, value in points if value is not None]
    return [x for x, _ in known], [value for _, value in known]
