"""A finished trial as it is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.trial import Trial

SCHEMA = 2

UNSEALED = (1,)
"""The schemas of documents that hold no checksum of their own."""

COUNTED = ("ok", "diverged")
"""Outcomes that say something about the network; the others are about the machine."""


@dataclass(frozen=True)
class Reading:
    """Values that belong together, at points of a curve or for the whole trial.

    Attributes:
        split: The part of the trial: `train`, `held_out`, `initial`, a phase, a check.
        values: Values by metric; each is a list if `x` is a list.
        x: The point on the curve, or points, or None for the whole trial.
        x_unit: The unit of `x`.
    """

    split: str
    values: Mapping[str, Any]
    x: float | Sequence[float] | None = None
    x_unit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the reading as one JSON object."""
        line: dict[str, Any] = {"split": self.split, "values": dict(self.values)}
        if self.x is not None:
            line |= {"x": self.x, "x_unit": self.x_unit}
        return line

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Reading:
        """Rebuild a reading from `to_json`.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: If it is not a reading.
        """
        found = cls(line["split"], line["values"], line.get("x"), line.get("x_unit"))
        words = [found.split, *found.values, found.x_unit or ""]
        if not all(isinstance(word, str) for word in words):
            raise TypeError("a name of a reading is not text")
        if isinstance(found.x, list):
            _check_numbers(found.x)
            if None in found.x:
                raise TypeError("a point of a curve is missing")
            for values in found.values.values():
                if not isinstance(values, list) or len(values) != len(found.x):
                    raise ValueError("a curve has other points than values")
                _check_numbers(values)
        else:
            _check_numbers([found.x, *found.values.values()])
        return found


def _check_numbers(values: Sequence[Any]) -> None:
    """Check that each is a finite number or None, without a loop in Python."""
    if not {*map(type, values)} <= {float, int, bool, type(None)}:
        raise TypeError("a value is not a number")
    if not all(map(math.isfinite, filter(None, values))):
        raise ValueError("a value is not finite")


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
