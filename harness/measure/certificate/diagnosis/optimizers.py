"""Which mistake explains an optimiser's updates? Each known mistake is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from harness.contract import Array, Batch, Optimizer, TrainableNetwork, Weights
from harness.measure.certificate.diagnosis.evidence import Found, Suspects
from harness.measure.certificate.diagnosis.optimizer_mistakes import (
    Mistake,
    Moments,
    Update,
    mistakes,
)
from harness.measure.certificate.network_pair import NetworkPair
from harness.measure.certificate.shapes import TRAINING
from harness.measure.certificate.trajectories import (
    Name,
    Trajectory,
    steady_weights,
    trajectories,
    typical_norm,
)
from harness.measure.subject import Subject

UPDATES = 10
"""Enough for a mistake to show, and too few for rounding to show."""

# Beside those of the trajectories, so that each default of `optimizer_mistakes` is
# above one and below another: a constant that is bounded by a default then shows. The
# gradients are clipped so small that the smallest epsilon counts.
_LOW = Optimizer(
    learning_rate=3e-4,
    epsilon=1e-9,
    beta1=0.95,
    beta2=0.9995,
    decay=0.995,
    momentum=0.95,
    clip_norm=1e-8,
)
# A large epsilon keeps its steps small, which would amplify rounding.
_HIGH = replace(_LOW, learning_rate=2e-2, epsilon=0.1, decay=0.8, clip_norm=None)

_Taken = tuple[NetworkPair, list[Batch], Weights, Found]
"""The first updates of a trajectory, as the implementation took them: its network and
the reference with their optimiser, the batches, the weights before, and the weights and
moments after."""


def optimizer_cause(subject: Subject, name: Name, tolerance: float) -> str | None:
    """Return the mistake that explains the updates of all trajectories, or None."""
    every = list(_every_trajectory(subject, name))
    if not any(np.any(after[n] != w) for *_, at, after in every for n, w in at.items()):
        return "no update is taken: the weights stay as they were"
    suspects = Suspects(tolerance)
    for taken in every:
        pair, batches, before, found = taken
        right = _after(pair.oracle, before, batches)
        known: dict[tuple[bytes, ...], Weights] = {}
        given = [(m[0], partial(_simulated, taken, m, known)) for m in mistakes(name)]
        # A moment that is not kept is another one than the reference's.
        missing = dict.fromkeys(right, np.empty(0))
        suspects.weigh(given, {**missing, **found}, right)
    return suspects.cause()


def _trajectories(subject: Subject, name: Name) -> Iterator[Trajectory]:
    yield from trajectories(name, typical_norm(subject))
    low, high = (replace(constants, name=name) for constants in (_LOW, _HIGH))
    if name == "sgd":  # its steps are as large as the gradient
        low = replace(low, clip_norm=None)
    yield Trajectory("low constants", TRAINING, low, UPDATES)
    yield Trajectory("high constants", TRAINING, high, UPDATES)


def _every_trajectory(subject: Subject, name: Name) -> Iterator[_Taken]:
    for trajectory in _trajectories(subject, name):
        pair = NetworkPair(subject, trajectory.shape, trajectory.optimizer)
        before = pair.load(steady_weights(pair))
        batches = trajectory.batches(UPDATES)
        yield pair, batches, before, _after(pair.network, before, batches)


def _after(network: TrainableNetwork, before: Weights, batches: list[Batch]) -> Found:
    """Return a network's weights and moments after an update for each batch."""
    network.load_weights(before)
    network.train_steps([network.place(batch) for batch in batches]).read()
    # Copied, because they may be the network's own memory.
    after = {**network.weights(), **network.optimizer_state()}
    return {name: np.array(array) for name, array in after.items()}


def _simulated(
    taken: _Taken, mistake: Mistake, known: dict[tuple[bytes, ...], Weights]
) -> Found:
    """Return the weights and moments if an optimiser makes the mistake.

    Args:
        taken: A trajectory.
        mistake: The mistake.
        known: The gradients of the trajectory by update and weights. Many mistakes take
            the same first updates, and "at most" and "always" often take the same.
    """
    pair, batches, before, _ = taken
    _, clip, step = mistake
    optimizer = pair.optimizer
    at = {n: w.astype(np.float64) for n, w in before.items()}
    moments: dict[str, Moments] = {n: {} for n in at}
    for number, batch in enumerate(batches, 1):
        key = (str(number).encode(), *(w.tobytes() for w in at.values()))
        if key not in known:
            known[key] = _gradients(pair.oracle, at, batch)
        gradients = known[key]
        if optimizer.clip_norm is not None:
            gradients = clip(gradients, optimizer.clip_norm)
        for n, g in gradients.items():
            at[n] = at[n] - step(Update(optimizer, g, moments[n], number))
    kept: dict[str, Array] = {
        f"{moment}/{n}": array
        for n, of_tensor in moments.items()
        for moment, array in of_tensor.items()
    }
    return {**at, **kept}


def _gradients(oracle: TrainableNetwork, at: Weights, batch: Batch) -> Weights:
    oracle.load_weights(at)
    return oracle.loss_and_gradients(oracle.place(batch)).read().gradients
