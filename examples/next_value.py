"""A task in one's own file: the next value of a sine wave, as in many tutorials."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness import declare_task
from harness.contract import (
    Array,
    Batch,
    Inputs,
    Quantity,
    Readout,
    Tally,
    Target,
    TaskInfo,
)

declare_task(
    "next-value",
    factory="next_value:NextValue",
    summary="predict the next value of a sine wave",
)


class NextValue:
    """Predict x_T from x_0 … x_{T-1}, where x_t = sin(ω t + φ).

    ω is uniform in [0.2, 1), φ uniform over the circle. `length` is T, at least 2.

    The floor is always to answer 0, the mean: 1/2, the variance of a sine of random
    phase. Solved: a mean squared error of at most a hundredth of that.
    """

    info = TaskInfo(
        name="next-value",
        inputs=Inputs("reals", 1),
        target=Target.REAL,
        output_size=1,
        readout=Readout.LAST,
        scores={"loss": Quantity("squared error", "lower")},
        headline="loss",
        source="a common tutorial example",
    )

    def time_steps(self, length: int) -> int:
        """Return `length`.

        Raises:
            ValueError: If `length` is below 2: one value does not determine the next.
        """
        if length < 2:
            raise ValueError(f"next-value: length must be at least 2, not {length}")
        return length

    def sample(self, rng: np.random.Generator, *, batch: int, length: int) -> Batch:
        """Draw waves [batch, time, 1] with their next value."""
        frequency = rng.uniform(0.2, 1, (batch, 1))
        phase = rng.uniform(0, 2 * np.pi, (batch, 1))
        values = np.sin(frequency * np.arange(self.time_steps(length) + 1) + phase)
        waves = values[..., None].astype(np.float32)
        return Batch(
            waves[:, :-1],
            np.full(batch, length),
            waves[:, -1:],
            np.ones((batch, 1), bool),
        )

    def score(self, outputs: Array, batch: Batch) -> dict[str, Tally]:
        """Sum the squared errors of outputs [batch, 1, 1]."""
        error = outputs.astype(np.float64) - batch.targets
        return {"loss": Tally(float(np.sum(error**2)), batch.size)}

    def floor(self, *, length: int) -> dict[str, float]:
        """Return the variance of a sine of random phase."""
        return {"loss": 1 / 2}

    def solved(self, loss: float, scores: Mapping[str, float]) -> bool:
        """Say whether the loss is at most a hundredth of the variance."""
        return loss <= 1 / 200

    def first_recalled(self, *, length: int) -> int:
        """Return 0: there is one answer."""
        return 0
