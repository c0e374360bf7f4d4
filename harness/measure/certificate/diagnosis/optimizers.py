"""Which mistake takes the optimiser's steps that were found? Each is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.contract import Batch, Optimizer, Weights
from harness.measure.certificate.diagnosis.optimizer_mistakes import (
    Mistake,
    Moments,
    Update,
    mistakes,
)
from harness.measure.certificate.pair import Pair
from harness.measure.certificate.record import relative_error
from harness.measure.certificate.shapes import TRAINING
from harness.measure.certificate.trajectories import (
    Name,
    steady_weights,
    training_batches,
    trajectories,
    typical_norm,
)
from harness.measure.subject import Subject

UPDATES = 10
"""Enough for a mistake to show, and too few for rounding to show."""

CLOSE = 1e-2
"""The largest relative difference of a change of weights. A weight moves by a hundredth
of itself or less, so that in float32 its change has lost two digits or more."""


def optimizer_cause(subject: Subject, name: Name) -> str | None:
    """Return the mistake that explains the steps of all trajectories, or None."""
    taken = list(_taken(subject, name))
    if not any(steps.moved for steps in taken):
        return "no update is taken: the weights stay as they were"
    for mistake in mistakes(name):
        if all(steps.agree_with(mistake) for steps in taken):
            return mistake.words
    return None


@dataclass(frozen=True)
class _Taken:
    """The first steps of a trajectory, as the implementation took them."""

    pair: Pair
    optimizer: Optimizer
    batches: list[Batch]
    before: Weights
    after: Weights

    @property
    def moved(self) -> bool:
        """Whether any weight changed."""
        return any(not np.array_equal(self.after[n], w) for n, w in self.before.items())

    def agree_with(self, mistake: Mistake) -> bool:
        """Say whether a mistake changes every tensor as the implementation did."""
        expected = self._simulated(mistake)
        errors = (
            relative_error(self.after[n] - w, expected[n] - w)
            for n, w in self.before.items()
        )
        return all(e is None or e <= CLOSE for e in errors)

    def _simulated(self, mistake: Mistake) -> Weights:
        oracle = self.pair.oracle
        at = {n: w.astype(np.float64) for n, w in self.before.items()}
        moments: dict[str, Moments] = {n: {} for n in at}
        for number, batch in enumerate(self.batches, 1):
            oracle.load_weights(at)
            placed = oracle.place(batch)
            gradients = oracle.loss_and_gradients(placed).read().gradients
            if self.optimizer.clip_norm is not None:
                gradients = mistake.clip(gradients, self.optimizer.clip_norm)
            for n, g in gradients.items():
                update = Update(self.optimizer, g, moments[n], number)
                at[n] = at[n] - mistake.step(update)
        return at


def _taken(subject: Subject, name: Name) -> Iterator[_Taken]:
    for trajectory in trajectories(name, typical_norm(subject)):
        pair = Pair(subject, TRAINING, trajectory.optimizer)
        before = pair.load(steady_weights(pair))
        batches = training_batches(UPDATES)
        network = pair.network
        network.train_steps([network.place(batch) for batch in batches]).read()
        yield _Taken(pair, trajectory.optimizer, batches, before, network.weights())
