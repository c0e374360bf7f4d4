"""A finished trial as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.reading import Reading
from harness.trial import Trial

SCHEMA = 2

UNSEALED = (1,)
"""The schemas of documents that hold no checksum of their own."""

COUNTED = ("ok", "diverged")
"""Outcomes that say something about the network; the others are about the machine."""


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
