"""Do the timed gradients pass through numbers that are too small to be normal?

Below its smallest normal number a dtype has fewer digits and processors may compute
many times slower. A library may set such results to zero instead ("flush"), and is then
as fast as ever. A time then says which numbers occurred, not how fast the code is. The
numbers are counted in the reference's gradients for the states, at the timed shape and
weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.measure.problem import Problem, rows
from harness.measure.readback import MOST_STATES
from harness.reading import Reading
from harness.reason import Reason
from harness.runner.runner import AnyStopwatch

OF_GRADIENTS = ("loss_and_gradients", "train_step")

NOTICED = 1e-4
"""A share of subnormal numbers from which a timing is doubted."""

_SEQUENCES = 8

_FLUSHES = {
    True: "this library sets them to zero, others compute with them, more slowly",
    False: "this library computes with them, which may be slow; others set them to 0",
    None: "whether this library computes with them is not known",
}


@dataclass(frozen=True)
class Subnormals:
    """What is known about subnormal numbers in the timed gradients.

    Attributes:
        share: Their share of the gradients over time; None if none are timed.
        flushes: Whether the library sets them to zero; None if that is not known.
    """

    share: float | None
    flushes: bool | None

    @classmethod
    def of(
        cls, problem: Problem, stopwatch: AnyStopwatch, phases: tuple[str, ...]
    ) -> Subnormals:
        """Count them with the reference, and try what the library does with them."""
        timed = set(OF_GRADIENTS) & set(phases)
        share = share_of_gradients(problem) if timed else None
        return cls(share, stopwatch.flushes_subnormals())

    def doubts(self, phase: str) -> Iterator[Reason]:
        """Yield why the time of a phase depends on subnormal numbers."""
        if phase in OF_GRADIENTS and (self.share or 0.0) >= NOTICED:
            yield Reason(
                "subnormal",
                f"{self.share:.2%} of the gradients over time are below the smallest "
                f"normal number; {_FLUSHES[self.flushes]}",
                'time with readout = "every" in the [[speed]] section, or shorter '
                "sequences",
            )

    def readings(self, phases: tuple[str, ...]) -> Iterator[Reading]:
        """Yield the share, for each phase with gradients."""
        for phase in phases:
            if phase in OF_GRADIENTS and self.share is not None:
                yield Reading(phase, {"subnormal_share": self.share})

    @property
    def facts(self) -> dict[str, Any]:
        """What the result holds, if the library's mode is known."""
        known = self.flushes is not None
        return {"flushes_subnormals": self.flushes} if known else {}


def share_of_gradients(problem: Problem) -> float:
    """Return the share of subnormal numbers in the reference's gradients over time.

    They are the gradients of the loss for the states, at the first initial values, of a
    few sequences of a training batch. Numbers that round to zero are not counted.
    """
    oracle, batch = problem.oracle(), problem.batch("train", 0)
    oracle.load_weights(problem.initial_weights())
    width = problem.spec.hidden_size * problem.spec.num_layers
    most = max(1, MOST_STATES // (width * problem.time_steps))
    kept = rows(batch, slice(min(_SEQUENCES, most, batch.size)))
    if not kept.scored.any():
        return 0.0
    # The mean over all scored positions, of the whole batch.
    scale = kept.scored.sum() / batch.scored.sum()
    dtype = np.finfo(problem.spec.dtype)
    # Halved in float64: in the dtype itself the half would round to zero.
    least, normal = float(dtype.smallest_subnormal) / 2, float(dtype.tiny)
    below, total = 0, 0
    for part in oracle.state_gradients(oracle.place(kept), None):
        sizes = np.abs(part) * scale
        small = (sizes < normal) & (sizes > least)
        below, total = below + int(small.sum()), total + sizes.size
    return below / total
