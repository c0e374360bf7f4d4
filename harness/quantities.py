"""What is measured: the unit, the direction and the range of every stored value.

No measurement has a value outside the range of its unit, such as a negative time. A
trial with such a value is not stored, and is left out where results are read. Nothing
that computes with stored values has to ask for such values again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.contract import Quantity

# --- the values of each measure ------------------------------------------------------

READBACK = {
    "ok": Quantity("yes or no", "higher"),
    "error": Quantity("relative error", "lower"),
    "tolerance": Quantity("relative error", "neither"),
}
"""Values of a comparison with the reference, beside those of its measure."""

PARITY = {
    "error": Quantity("relative error", "lower"),
    "tolerance": Quantity("relative error", "neither"),
    "usual_tolerance": Quantity("relative error", "neither"),
    "warned_above": Quantity("relative error", "neither"),
    "expected_norm": Quantity("norm", "neither"),
    "found_norm": Quantity("norm", "neither"),
    "certified": Quantity("yes or no", "higher"),
    "checks": Quantity("checks", "neither"),
    "broken": Quantity("checks", "lower"),
    "warned": Quantity("checks", "lower"),
    "underflowed": Quantity("tensors", "neither"),
    "shapes": Quantity("shapes", "neither"),
}

LEARNING = {
    "gradient_norm": Quantity("norm before clipping", "neither"),
    "clipped_fraction": Quantity("fraction", "neither"),
    "solved": Quantity("yes or no", "higher"),
    "updates_to_solve": Quantity("updates", "lower"),
    "updates": Quantity("updates", "neither"),
    "budget": Quantity("updates", "neither"),
    "evaluate_every": Quantity("updates", "neither"),
    **READBACK,
}
"""Values of learning, without the scores of its task."""

GRADIENTS = {
    **{
        f"ratio_{cotangent}_{quantile}": Quantity("ratio", "neither")
        for cotangent in ("loss", "random")
        for quantile in ("median", "q10", "q90")
    },
    "horizon_loss": Quantity("time steps", "higher"),
    "horizon_random": Quantity("time steps", "higher"),
    "max_lag": Quantity("time steps", "neither"),
}

_S = Quantity("s", "lower")
_PER_S = Quantity("tokens/s", "higher")

SPEED = {
    **dict.fromkeys(("time_s", "time_low_s", "time_high_s", "sample_s"), _S),
    **dict.fromkeys(("latency_s", "latency_p50_s", "latency_p95_s"), _S),
    **dict.fromkeys(("latency_p99_s", "first_call_s"), _S),
    **dict.fromkeys(("device_time_s", "device_s"), _S),
    **dict.fromkeys(("tokens_per_s", "tokens_low_per_s", "tokens_high_per_s"), _PER_S),
    "flop_per_s": Quantity("FLOP/s", "higher"),
    "flops": Quantity("FLOP", "neither"),
    "least_bytes": Quantity("bytes", "neither"),
    "bytes": Quantity("bytes", "neither"),
    "loops": Quantity("calls", "neither"),
    "round": Quantity("rounds", "neither"),
    "at_s": Quantity("s", "neither"),
    "own_load": Quantity("cores", "neither"),
    "other_load": Quantity("cores", "lower"),
    "shaky": Quantity("yes or no", "lower"),
    "subnormal_share": Quantity("share", "lower"),
    **READBACK,
}

MEMORY = {
    "peak_bytes": Quantity("bytes", "lower"),
    "baseline_bytes": Quantity("bytes", "neither"),
    "allocator_peak_bytes": Quantity("bytes", "lower"),
    "device_peak_bytes": Quantity("bytes", "lower"),
    "first_call_s": Quantity("s", "lower"),
}

_KNOWN = {**PARITY, **LEARNING, **GRADIENTS, **SPEED, **MEMORY}

OF_TASK = ("held_out", "floor")
"""The splits whose values are scores of the task, in the units that the task states."""

# --- ranges --------------------------------------------------------------------------


class ImpossibleError(ValueError):
    """A value is outside the range of its unit, so that it was not measured."""


@dataclass(frozen=True)
class Range:
    """The values that a measurement can have.

    Attributes:
        what: What is measured, for messages.
        least: The smallest value.
        most: The largest value.
    """

    what: str
    least: float
    most: float

    def problem(self, values: Iterable[float | None]) -> str | None:
        """Return how one of the values is outside, or None; a value may be unknown."""
        known = [value for value in values if value is not None]
        ends = (min(known), max(known)) if known else ()
        found = next((end for end in ends if not self.holds(end)), None)
        if found is None:
            return None
        return (
            f"is {found:.4g}, but {self.what} lies between {self.least:g} and "
            f"{self.most:g}"
        )

    def holds(self, value: float) -> bool:
        """Say whether a value is inside."""
        return self.least <= value <= self.most


TIME = Range("a time in seconds", 1e-12, 1e10)
"""No call takes less than a picosecond, and none takes three centuries."""

SINCE = Range("a time in seconds", 0.0, 1e10)
"""A time since something began, or one that a device's coarse clock measures."""

COUNT = Range("a count", 0, 2**53)
BYTES = Range("a number of bytes", 0, 1e18)
RATE = Range("a rate per second", 1e-12, 1e27)
NORM = Range("a norm or an error", 0.0, 1e300)
"""Infinity is stored as 1e300, since JSON has no infinity."""

ANY = Range("a number", -1e300, 1e300)
_SHARE = Range("a share", 0.0, 1 + 1e-6)
"""A mean of rounded numbers may be above 1 in its last digits."""

_BY_UNIT = {
    "s": TIME,
    "tokens/s": RATE,
    "FLOP/s": Range("a rate per second", 0.0, RATE.most),
    "FLOP": Range("a number of operations", 0.0, 1e27),
    "bytes": BYTES,
    "cores": Range("a number of cores", 0.0, 1e6),
    "yes or no": Range("yes or no", 0, 1),
    "share": _SHARE,
    "fraction": _SHARE,
    "relative error": NORM,
    "norm": NORM,
    "norm before clipping": NORM,
    "ratio": NORM,
    **dict.fromkeys(("calls", "rounds", "readings", "updates", "time steps"), COUNT),
    **dict.fromkeys(("checks", "tensors", "shapes"), COUNT),
}
"""The range of each unit; a number of another unit may be `ANY`, such as a loss."""

_MAY_BE_ZERO = ("at_s", "device_s", "device_time_s")


def range_of_unit(unit: str | None) -> Range:
    """Return the values that a measurement in a unit can have."""
    return ANY if unit is None else _BY_UNIT.get(unit, ANY)


def range_of(split: str, metric: str, units: Mapping[str, str]) -> Range:
    """Return the values that a metric can have.

    Args:
        split: The part of the trial.
        metric: The name of the value.
        units: Those that the result states. A value that this version measures has the
            unit that it has here, because a file may state any other.
    """
    if metric in _MAY_BE_ZERO:
        return SINCE
    known = None if split in OF_TASK else _KNOWN.get(metric)
    return range_of_unit(units.get(metric) if known is None else known.unit)
