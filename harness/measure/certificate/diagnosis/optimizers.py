"""Which mistake explains an optimiser's updates? Each known mistake is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from harness.contract import Batch, Weights
from harness.measure.certificate.diagnosis.evidence import Suspects
from harness.measure.certificate.diagnosis.optimizer_mistakes import (
    Mistake,
    Moments,
    Update,
    mistakes,
)
from harness.measure.certificate.network_pair import NetworkPair
from harness.measure.certificate.trajectories import (
    Name,
    steady_weights,
    trajectories,
    typical_norm,
)
from harness.measure.subject import Subject

UPDATES = 10
"""Enough for a mistake to show, and too few for rounding to show."""

CLOSE = 1e-2
"""The largest relative difference of a change of weights. A weight changes by a
hundredth of itself or less, so that in float32 its change has lost two digits or more.
"""


_Taken = tuple[NetworkPair, list[Batch], Weights, Weights]
"""The first updates of a trajectory, as the implementation took them: its network and
the reference with their optimiser, the batches, the weights before, and how much each
changed."""


def optimizer_cause(subject: Subject, name: Name) -> str | None:
    """Return the mistake that explains the updates of all trajectories, or None."""
    every = list(_every_trajectory(subject, name))
    if not any(np.any(d) for *_, changes in every for d in changes.values()):
        return "no update is taken: the weights stay as they were"
    suspects = Suspects(CLOSE)
    for taken in every:
        given = [(m[0], partial(_simulated, taken, m)) for m in mistakes(name)]
        suspects.weigh(given, taken[-1])
    return suspects.cause()


def _every_trajectory(subject: Subject, name: Name) -> Iterator[_Taken]:
    for trajectory in trajectories(name, typical_norm(subject)):
        pair = NetworkPair(subject, trajectory.shape, trajectory.optimizer)
        before, network = pair.load(steady_weights(pair)), pair.network
        batches = trajectory.batches(UPDATES)
        network.train_steps([network.place(batch) for batch in batches]).read()
        after = network.weights()
        yield pair, batches, before, {n: after[n] - w for n, w in before.items()}


def _simulated(taken: _Taken, mistake: Mistake) -> Weights:
    """Return how much each weight changes if an optimiser makes the mistake."""
    pair, batches, before, _ = taken
    _, clip, step = mistake
    oracle, optimizer = pair.oracle, pair.optimizer
    at = {n: w.astype(np.float64) for n, w in before.items()}
    moments: dict[str, Moments] = {n: {} for n in at}
    for number, batch in enumerate(batches, 1):
        oracle.load_weights(at)
        gradients = oracle.loss_and_gradients(oracle.place(batch)).read().gradients
        if optimizer.clip_norm is not None:
            gradients = clip(gradients, optimizer.clip_norm)
        for n, g in gradients.items():
            at[n] = at[n] - step(Update(optimizer, g, moments[n], number))
    return {n: w - before[n] for n, w in at.items()}
