"""The sum of the two marked numbers of a long sequence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
from tasks.options import whole_number

HIT = 0.04
"""An answer nearer to the sum than this is a hit (Hochreiter & Schmidhuber 1997)."""

VARIANCE = 1 / 6
"""Of the sum of two numbers uniform on [0, 1)."""

SOLVED_LOSS = 1 / 600


class Adding:
    """Add the two marked numbers of a long sequence.

    Each step carries a value drawn uniformly from [0, 1) and a marker. Two markers are
    1, one in each half of the sequence; an odd length has the longer half last. The
    answer is read at the last step:

        value    0.3  0.7  0.1  0.9  0.4  0.6
        marker    0    1    0    0    1    0       answer 0.7 + 0.4 = 1.1

    `length` is the number of time steps. The floor is always to answer 1, the mean of
    the sum: the loss is then its variance, 1/6, and 0.0784 of the answers are hits. A
    network there has learned nothing. A network that knows one of the two numbers has a
    loss of 1/12. A network that sees only the last step knows a number in 1 of
    T - T // 2 sequences.

    Solved: a mean squared error of at most 1/600, a hundredth of the floor.

    Source: Arjovsky, Shah & Bengio (2016), arXiv:1511.06464, after Hochreiter &
    Schmidhuber (1997).
    """

    info = TaskInfo(
        name="adding",
        inputs=Inputs("reals", 2),
        target=Target.REAL,
        output_size=1,
        readout=Readout.LAST,
        scores={
            "loss": Quantity("squared error", "lower"),
            "hit_rate": Quantity("fraction", "higher"),
        },
        headline="loss",
        source="Arjovsky, Shah & Bengio (2016), arXiv:1511.06464",
    )

    def time_steps(self, length: int) -> int:
        """Return `length`, the number of time steps.

        Raises:
            ValueError: If `length` is below 2, which leaves no room for two markers.
        """
        return whole_number("adding", "length", length, at_least=2)

    def sample(self, rng: np.random.Generator, *, batch: int, length: int) -> Batch:
        """Draw a batch of adding problems.

        Returns:
            Inputs float32 [batch, length, 2] (value, marker) and targets float32
            [batch, 1, 1], the sums of the values as they are stored.

        Raises:
            ValueError: If `length` is below 2.
        """
        time_steps = self.time_steps(length)
        half = time_steps // 2
        first = rng.integers(0, half, batch)
        second = rng.integers(half, time_steps, batch)
        # Drawn as float32: a float64 just below 1 would be rounded to 1.
        values = rng.random((batch, time_steps), np.float32)
        sequence = np.arange(batch)
        markers = np.zeros_like(values)
        markers[sequence, first] = 1
        markers[sequence, second] = 1
        sums = values[sequence, first] + values[sequence, second]
        return Batch(
            inputs=np.stack([values, markers], axis=-1),
            lengths=np.full(batch, time_steps, np.int64),
            targets=sums[:, None, None],
            scored=np.ones((batch, 1), bool),
        )

    def score(self, outputs: Array, batch: Batch) -> dict[str, Tally]:
        """Score outputs [batch, 1, 1]: squared errors, and errors below 0.04."""
        errors = outputs.astype(np.float64) - batch.targets
        return {
            "loss": Tally(float(np.sum(errors**2)), batch.size),
            "hit_rate": Tally(float(np.sum(np.abs(errors) < HIT)), batch.size),
        }

    def floor(self, *, length: int) -> dict[str, float]:
        """Return what always answering 1 reaches: 1/6 and 1 - (1 - 0.04)² = 0.0784.

        The density of the sum is a triangle around 1. Its two ends, at a distance of
        0.04 or more from 1, hold (1 - 0.04)² of the probability.
        """
        self.time_steps(length)
        return {"loss": VARIANCE, "hit_rate": 1 - (1 - HIT) ** 2}

    def solved(self, loss: float, scores: Mapping[str, float]) -> bool:
        """Say whether the mean squared error is at most 1/600."""
        return loss <= SOLVED_LOSS

    def first_recalled(self, *, length: int) -> int:
        """Return 0: there is one readout."""
        self.time_steps(length)
        return 0
