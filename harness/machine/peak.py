"""What rates do a device's own libraries reach? Measured rates are shares of these."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
"""Up to this size a product may be expected to take so long. If threads wait for a core
of another process, a small product takes 16 ms instead of 0.3 ms."""

FEWEST_CALLS = 3

LEAST_COPY_BYTES = 2**28
"""Far above the cache of any GPU, and of a processor whose cache is not known."""

MOST_COPY_BYTES = 2**30

_CACHES = 4
"""An array so many times as large as the last-level cache does not stay in it."""

_MEMORY_SHARE = 8
"""The array takes at most 1 / 8 of free memory, so that the machine does not swap."""


@dataclass(frozen=True)
class Peak:
    """The best rates of one library on one device, in one dtype and precision.

    Attributes:
        flop_per_s: Rate of the product of two square matrices, 2 size³ operations.
        size: Rows of the matrices that reached this rate.
        copy_bytes_per_s: Bytes read and bytes written per second, together.
        copy_bytes: Size of the array that was read and written in place.
    """

    flop_per_s: float
    size: int
    copy_bytes_per_s: float
    copy_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Peak:
        """Rebuild a peak from `to_json`."""
        return cls(**values)


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
    return Peak(flop_per_s, size, 2 * copy_bytes / copy_s, copy_bytes)


def _best_product(probe: DeviceProbe, dtype: str, precision: str) -> tuple[float, int]:
    """Return the highest rate over the sizes, and its size."""
    rates: dict[float, int] = {}
    for size in SIZES:
        call_s = fastest_s(probe.matmul(size, dtype, precision))
        rates[2 * size**3 / call_s] = size
        expected_s = 8 * call_s  # of twice the size
        if expected_s > (_MOST_SMALL_S if size < _SMALL else MOST_CALL_S):
            break
    best = max(rates)
    return best, rates[best]


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
