"""How fast numpy multiplies and copies on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from harness.contract import Array
from harness.errors import RefusedError
from implementations.shared.device import Probe


class NumpyProbe(Probe):
    """A `DeviceProbe` of numpy's BLAS and of its own loop over memory.

    Raises:
        RefusedError: If the device is not the CPU.
    """

    def __init__(self, device: str) -> None:
        if device != "cpu":
            raise RefusedError(f"numpy computes on the cpu, not on {device}")
        super().__init__(device)

    def _matmul(self, size: int, dtype: str, precision: str) -> Callable[[], None]:
        if precision != "highest":
            raise RefusedError(f"numpy computes at highest, not at {precision}")
        rng = np.random.default_rng(0)
        # Drawing normal numbers would take longer than all the products.
        a, b = (rng.random((2, size, size), np.float32) - 0.5).astype(dtype)
        return partial(np.matmul, a, b, out=np.empty_like(a))

    def _tenth(self, values: Array) -> Array:
        return np.multiply(values, np.float32(0.1))

    def copy(self, size: int) -> Callable[[], None]:
        """Return a call that reads and writes `size` bytes, with one thread."""
        held = np.ones(size // 4, np.float32)
        return partial(np.negative, held, out=held)
