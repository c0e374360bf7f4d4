"""How fast JAX multiplies and copies on one device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from harness.contract import Array, FrameworkState
from implementations.jax_backend.network import find_device
from implementations.shared.device import Probe
from implementations.shared.keras_state import keras_holders, keras_settings

_BUILDS = "/jax/core/compile/"
"""The beginning of the names of events of tracing, lowering and compiling."""


_events: Counter[str] = Counter()
"""The events that JAX has reported since this module was imported."""


def _listen(event: str, duration_secs: float, **_: object) -> None:
    _events[event] += 1


jax.monitoring.register_event_duration_secs_listener(_listen)


class JaxProbe(Probe):
    """A `DeviceProbe` of XLA's matrix product, memory and allocator.

    Raises:
        UnavailableError: If JAX sees no such device.
    """

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self._device = find_device(device)

    def _matmul(self, size: int, dtype: str, precision: str) -> Callable[[], None]:
        # For float32 on a GPU, XLA computes in TF32 unless more than HIGH is asked for.
        asked = jax.lax.Precision.HIGHEST
        if precision != "highest":
            asked = jax.lax.Precision.HIGH
        kind = jnp.bfloat16 if precision == "bf16" else dtype
        # Drawing normal numbers would take longer than all the products.
        arrays = np.random.default_rng(0).random((2, size, size), np.float32) - 0.5
        with jax.enable_x64(dtype == "float64"):
            a, b = (self._put(x.astype(kind)) for x in arrays)
            product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=asked))
            compiled = product.lower(a, b).compile()

        def call() -> None:
            compiled(a, b).block_until_ready()

        return call

    def _tenth(self, values: Array) -> Array:
        return np.asarray(jax.jit(lambda x: x * 0.1)(self._put(values)))

    def copy(self, size: int) -> Callable[[], None]:
        """Return a call that reads and writes `size` bytes and waits."""
        held = self._put(np.ones(size // 4, np.float32))
        negative = jax.jit(jnp.negative, donate_argnums=0).lower(held).compile()

        def call() -> None:
            nonlocal held
            held = negative(held).block_until_ready()

        return call

    def _put(self, array: Any) -> jax.Array:
        placed: jax.Array = jax.device_put(array, self._device)
        return placed

    def _peak_bytes(self) -> int | None:
        """Return the peak since the process began: JAX cannot reset it."""
        stats = self._device.memory_stats()
        return None if stats is None else stats.get("peak_bytes_in_use")

    def state(self) -> FrameworkState:
        """Return the count of builds and all options; JAX reports no threads."""
        builds = sum(n for event, n in _events.items() if event.startswith(_BUILDS))
        options = {f"JAX's {n}": v for n, v in jax.config.values.items()}
        settings = {**options, **keras_settings()}
        return FrameworkState(builds, None, settings, (*_SHARED, *keras_holders()))


_SHARED = (jnp, jnp.linalg, jax.lax, jax.nn, jax.random, jax.tree_util)
"""Where JAX's functions are; `jax` itself is its framework's module."""
