"""How fast this machine computes, measured with numpy in half a second."""

from __future__ import annotations

import functools
import timeit
from dataclasses import dataclass

from harness.measure.work import Work

_STEPS, _ARITHMETIC = 3.0, 1.5
"""How many times as long as in numpy a trial's empty steps and arithmetic take."""


@dataclass(frozen=True)
class Calibration:
    """How fast numpy is: seconds of an empty time step, operations in a second."""

    step_s: float
    flop_per_s: float

    def expected_s(self, work: Work, share: float = 1.0) -> float:
        """Return the seconds that a share of the work would take."""
        steps_s = _STEPS * work.time_steps * self.step_s
        flops_s = _ARITHMETIC * work.flops / self.flop_per_s
        return work.start_s + share * max(steps_s + flops_s, work.least_s, 1e-6)


@functools.cache
def calibrate() -> Calibration:
    """Time a recurrent step at two sizes.

    One thread is used, as in most trials: on a busy machine several threads would wait
    for each other.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        small_s, small = _step(batch=8, hidden_size=8)
        large_s, large = _step(batch=64, hidden_size=128)
    flop_per_s = (large - small) / max(large_s - small_s, 1e-6)
    return Calibration(max(small_s - small / flop_per_s, 1e-6), flop_per_s)


def _step(batch: int, hidden_size: int) -> tuple[float, int]:
    """Return the seconds and the operations of one step of a gated cell."""
    import numpy as np

    rng = np.random.default_rng(0)
    state = rng.standard_normal((batch, hidden_size), np.float32)
    weights = rng.standard_normal((hidden_size, 3 * hidden_size), np.float32) * 0.01

    def step() -> None:
        gates = np.tanh(state @ weights)
        reset, update, new = np.split(gates, 3, axis=1)
        _ = (1 - update) * new + update * state * reset

    return min(timeit.repeat(step, number=5, repeat=60)) / 5, 6 * batch * hidden_size**2
