"""A finished trial as it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.quantities import ImpossibleError, range_of, range_of_unit
from harness.reading import Reading
from harness.trial import Trial

SCHEMA = 2

UNSEALED = (1,)
"""The schemas of documents that hold no checksum of their own."""

COUNTED = ("ok", "diverged")
"""Outcomes that say something about the network; the others are about the machine."""


def check_ranges(
    readings: Iterable[Reading], quantities: Mapping[str, Mapping[str, str]]
) -> None:
    """Check that each value is one that a measurement can have.

    Args:
        readings: The values.
        quantities: Unit and direction of each, as a result states them.

    Raises:
        ImpossibleError: If one is outside its range; the message says which.
    """
    units = {name: stated["unit"] for name, stated in quantities.items()}
    for reading in readings:
        given = [
            (name, range_of(reading.split, name, units), found)
            for name, found in reading.values.items()
        ]
        given.append(("point", range_of_unit(reading.x_unit), reading.x))
        for name, allowed, found in given:
            several = found if isinstance(found, list) else (found,)
            if problem := allowed.problem(several):
                raise ImpossibleError(f"{reading.split} {name} {problem}")


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial.

    Attributes:
        result: `result.json`: kernel, framework, parameters, quantities, times.
        readings: Values of the whole trial, then its curves in order.
    """

    id: str
    trial: Trial
    outcome: str
    reason: str | None
    result: Mapping[str, Any]
    readings: tuple[Reading, ...] = field(repr=False, default=())

    def value(self, split: str, metric: str) -> Any:
        """Return a value of the whole trial, or None."""
        for reading in self.readings:
            if reading.split == split and reading.x is None:
                found = reading.values.get(metric)
                if found is not None:
                    return found
        return None
