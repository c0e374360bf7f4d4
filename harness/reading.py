"""A reading: values that a measure finds, and a run folder keeps.

It is apart from the store because a worker, which only sends readings, starts sooner
without the types of a run folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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
    try:
        finite = all(map(math.isfinite, filter(None, values)))
    except OverflowError:  # an integer that no float can hold
        finite = False
    if not finite:
        raise ValueError("a value is not finite")
