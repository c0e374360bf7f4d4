"""How fast do a device's libraries multiply and copy? Trials are compared with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from harness.contract import DeviceProbe
from harness.machine.clock import no_garbage_collection
from harness.machine.system import System

SIZES = (256, 512, 1024, 2048, 4096, 8192)
"""Rows of the square matrices; the next size is tried while products are fast."""

EACH_S = 0.15
"""How long a call is repeated. The fastest counts, because disturbances only slow."""

MOST_CALL_S = 0.1
"""A product that is expected to take longer is not tried: it would run only once."""

_SMALL, _MOST_SMALL_S = 1024, 0.4
"""A product up to this size is tried if it is expected to take up to this long. If
threads wait for a core, a small product takes 16 ms instead of 0.3 ms."""

FEWEST_CALLS = 3

LEAST_COPY_BYTES = 2**28
"""Far above the cache of any GPU, and of a processor whose cache is not known."""

MOST_COPY_BYTES = 2**30

_CACHES = 4
"""An array this many times as large as the last-level cache does not stay in it."""

_MEMORY_SHARE = 8
"""The array takes at most 1 / 8 of free memory, so that the machine does not swap."""


RateName = Literal["flop", "copy"]


@dataclass(frozen=True)
class Rate:
    """The highest rate of one operation, and which library reached it.

    Attributes:
        per_s: Floating-point operations, or bytes, in a second.
        size: Rows of the matrices, or bytes of the array.
        library: "torch", or "torch, doctor" if `doctor` measured it earlier.
        versions: "torch 2.13.0"; None if the trials beside it have the version.
        measured_at: The time in UTC, if `doctor` measured it earlier.
        machine: The fitness of the machine then: "fit", "noisy" or "unfit".
    """

    per_s: float
    size: int | None = None
    library: str | None = None
    versions: str | None = None
    measured_at: str | None = None
    machine: str | None = None


@dataclass(frozen=True)
class Peak:
    """The highest rates on one device, in one dtype and precision.

    Attributes:
        flop: The rate of a product of two square matrices, 2 size³ operations.
        copy: The rate of bytes read and written, together, in place; None if unknown.
    """

    flop: Rate
    copy: Rate | None = None

    def rate(self, name: RateName) -> Rate | None:
        """Return one of the two rates."""
        return self.flop if name == "flop" else self.copy

    def of_library(self, library: str, **source: str | None) -> Peak:
        """Return the rates with the library that reached them, and without sizes.

        Args:
            library: Its name.
            source: More fields of `Rate`.
        """
        named = {"library": library, "size": None, **source}
        copy = self.copy and replace(self.copy, **named)  # type: ignore[arg-type]
        return Peak(replace(self.flop, **named), copy)  # type: ignore[arg-type]

    @property
    def ridge(self) -> float | None:
        """The intensity in FLOP/byte from which arithmetic is the limit."""
        return self.flop.per_s / self.copy.per_s if self.copy else None

    def roof(self, intensity: float | None) -> float | None:
        """Return the most FLOP/s at an intensity in FLOP/byte, or None if unknown."""
        if intensity is None or self.copy is None:
            return None
        return min(self.flop.per_s, intensity * self.copy.per_s)

    def limit(self, intensity: float | None) -> Rate:
        """Return the rate that is the limit at an intensity in FLOP/byte."""
        if self.copy is None or intensity is None:
            return self.flop
        return self.copy if intensity < self.flop.per_s / self.copy.per_s else self.flop

    def facts(self) -> dict[str, Any]:
        """Return the rates by the keys of a result, None where one is unknown."""
        found: dict[str, Any] = {}
        for name, keys in _KEYS.items():
            rate = self.rate(name)
            values = (None,) * len(keys) if rate is None else astuple(rate)
            found |= zip(keys, values, strict=True)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values, without those that are None."""
        facts = self.facts()
        return {key: value for key, value in facts.items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Peak:
        """Rebuild a peak from `to_json`."""
        rates = {
            name: Rate(values[keys[0]], *(values.get(key) for key in keys[1:]))
            for name, keys in _KEYS.items()
            if values.get(keys[0])
        }
        return cls(**rates)


_SOURCES = ("by", "versions", "measured_at", "machine")
_KEYS: dict[RateName, tuple[str, ...]] = {
    "flop": ("flop_per_s", "size", *(f"flop_{each}" for each in _SOURCES)),
    "copy": ("copy_bytes_per_s", "copy_bytes", *(f"copy_{each}" for each in _SOURCES)),
}
"""The keys of a rate in a result, in the order of the fields of `Rate`."""


def best_of(peaks: Sequence[Peak], best: Callable[..., Any] = max) -> Peak:
    """Return the highest of each rate, or with `min` the lowest.

    If several are equal, the first is returned.
    """
    copies = [peak.copy for peak in peaks if peak.copy is not None]
    return Peak(
        best((peak.flop for peak in peaks), key=attrgetter("per_s")),
        best(copies, key=attrgetter("per_s"), default=None),
    )


def measure_peak(
    probe: DeviceProbe, dtype: str, precision: str, *, copy_bytes: int | None = None
) -> Peak:
    """Return the best rates that a library reaches; takes about a second.

    Args:
        probe: The library's probe of the device.
        dtype: The dtype of the matrices.
        precision: As in a network.
        copy_bytes: Size of the array to read and write; by default larger than any
            cache of this machine.

    Raises:
        RefusedError: If the library has no such product.
    """
    copy_bytes = copy_bytes or bytes_beyond_caches()
    with no_garbage_collection():
        flop_per_s, size = _best_product(probe, dtype, precision)
        copy_s = fastest_s(probe.copy(copy_bytes))
    return Peak(Rate(flop_per_s, size), Rate(2 * copy_bytes / copy_s, copy_bytes))


def _best_product(probe: DeviceProbe, dtype: str, precision: str) -> tuple[float, int]:
    """Return the highest rate over the sizes, and its size."""
    best = (0.0, 0)
    for size in SIZES:
        call_s = fastest_s(probe.matmul(size, dtype, precision))
        best = max(best, (2 * size**3 / call_s, size))
        expected_s = 8 * call_s  # of twice the size
        if expected_s > (_MOST_SMALL_S if size < _SMALL else MOST_CALL_S):
            break
    return best


def fastest_s(call: Callable[[], None]) -> float:
    """Return the seconds of the fastest of many calls, after one that warms up."""
    call()
    fastest_s, calls = float("inf"), 0
    begun_s = ended_s = time.perf_counter()
    while ended_s - begun_s < EACH_S or calls < FEWEST_CALLS:
        start_s = time.perf_counter()
        call()
        ended_s = time.perf_counter()
        fastest_s, calls = min(fastest_s, ended_s - start_s), calls + 1
    return fastest_s


def bytes_beyond_caches(root: Path = Path("/")) -> int:
    """Return the size of an array that is larger than any cache of this machine.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    system = System(root)
    wanted = max(LEAST_COPY_BYTES, _CACHES * system.last_level_cache_bytes())
    free = system.available_bytes()
    most = MOST_COPY_BYTES if free is None else free // _MEMORY_SHARE
    return max(2**20, min(wanted, most, MOST_COPY_BYTES) // 2**20 * 2**20)
