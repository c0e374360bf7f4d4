"""The optimiser's steps compared with the reference's, over a few short trainings.

Each optimiser runs with constants at which every update is clipped. It also runs with
other constants, all different from the defaults, at which no update is clipped, and
with the same constants at which about half of the updates are clipped. These last two
runs take several calls, and are interrupted and continued as learning is from a
checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness.contract import Array, Batch, Optimizer, TrainableNetwork, Updates, Weights
from harness.intervals import median
from harness.measure.certificate.network_pair import (
    NetworkPair,
    random_batch,
    weight_points,
)
from harness.measure.certificate.record import Certificate
from harness.measure.certificate.shapes import TRAINING
from harness.measure.subject import Subject

Name = Literal["adam", "rmsprop", "sgd"]
NAMES: tuple[Name, ...] = ("adam", "rmsprop", "sgd")

# With ordinary constants correct float32 code differs from float64 by a half after 100
# updates. With these its noise stays under 2e-6, and every mistake is above 0.1.
_STEADY = Optimizer(learning_rate=1e-3, epsilon=1e-3, clip_norm=0.01)

# No constant is a framework's default or one of those above, so that a backend with a
# fixed constant of its own takes other steps.
_OTHER = Optimizer(
    learning_rate=4e-3,
    epsilon=5e-3,
    beta1=0.7,
    beta2=0.95,
    decay=0.8,
    momentum=0.6,
    clip_norm=None,
)

_STEADY_UPDATES = 100
_OTHER_UPDATES = 20
_CALL = 5
"""Updates of one call, if a trajectory takes several calls."""


@dataclass(frozen=True)
class Trajectory:
    """A number of updates by one optimiser.

    Attributes:
        words: How many of the updates are clipped.
        interrupted: Whether the implementation takes them in several calls, and gets
            its weights and moments back in the middle.
    """

    words: str
    optimizer: Optimizer
    updates: int
    interrupted: bool = False


def trajectories(name: Name, typical: float) -> tuple[Trajectory, ...]:
    """Return the trajectories of an optimiser.

    Args:
        name: The optimiser.
        typical: The `typical_norm`, which about half of the gradients exceed.
    """
    steady = replace(_STEADY, name=name)
    other = replace(_OTHER, name=name)
    if name == "sgd":  # its steps are as large as the gradient
        steady = replace(steady, momentum=0.9)
        other = replace(other, learning_rate=3e-2)
    half = replace(other, clip_norm=typical)
    return (
        Trajectory("every update clipped", steady, _STEADY_UPDATES),
        Trajectory("no update clipped", other, _OTHER_UPDATES, True),
        Trajectory("half of the updates clipped", half, _OTHER_UPDATES, True),
    )


def training_batches(updates: int) -> list[Batch]:
    """Draw the batches of a trajectory."""
    rng = np.random.default_rng(0)
    return [random_batch(TRAINING, rng) for _ in range(updates)]


def steady_weights(pair: NetworkPair) -> Weights:
    """Return canonical values with the recurrent matrices halved.

    Only the optimiser is checked here: an identity matrix with relu would amplify
    rounding over 100 updates up to the tolerance.
    """
    weights = next(weight_points(pair.spec, pair.cell, 0))
    return {n: w / 2 if n.endswith("w_hh") else w for n, w in weights.items()}


def typical_norm(subject: Subject) -> float:
    """Return the median norm of the reference's gradients before the first update."""
    pair = NetworkPair(subject, TRAINING)
    pair.oracle.load_weights(steady_weights(pair))
    norms = []
    for batch in training_batches(_OTHER_UPDATES):
        done = pair.oracle.loss_and_gradients(pair.oracle.place(batch)).read()
        norms.append(np.sqrt(sum(np.sum(g**2) for g in done.gradients.values())))
    return median(norms)


def compare_optimizers(
    certificate: Certificate, subject: Subject, names: Sequence[Name] = NAMES
) -> None:
    """Compare losses, norms, weights and moments along every trajectory."""
    typical = typical_norm(subject)
    for name in names:
        for trajectory in trajectories(name, typical):
            pair = NetworkPair(subject, TRAINING, trajectory.optimizer)
            pair.load(steady_weights(pair))
            _compare(certificate, pair, trajectory)


def _compare(
    certificate: Certificate, pair: NetworkPair, trajectory: Trajectory
) -> None:
    batches = training_batches(trajectory.updates)
    name, words = trajectory.optimizer.name, trajectory.words
    network, oracle = pair.network, pair.oracle
    found = _updates(network, batches, trajectory.interrupted)
    reference = oracle.train_steps([oracle.place(b) for b in batches]).read()
    check = f"{name} updates"
    for what, a, b in (
        ("loss", found.losses, reference.losses),
        ("norm", found.gradient_norms, reference.gradient_norms),
    ):
        where = f"{what} of an update, {words}"
        certificate.record(check, _largest_difference(a, b), where)
    weights = network.weights()
    for tensor, array in oracle.weights().items():
        certificate.compare(check, weights[tensor], array, f"{tensor}, {words}")
    moments = network.optimizer_state()
    for key, array in oracle.optimizer_state().items():
        kept = moments.get(key, np.empty(0))
        certificate.compare(f"{name} moments", kept, array, f"{key}, {words}")
    network.load_optimizer_state(moments)
    again = network.optimizer_state()
    for key, array in moments.items():
        kept = again.get(key, np.empty(0))
        certificate.require_equal("optimiser state comes back", kept, array, key)


def _updates(
    network: TrainableNetwork, batches: list[Batch], interrupted: bool
) -> Updates:
    """Take the updates in one call, or in several with an interruption."""
    if not interrupted:
        return network.train_steps([network.place(b) for b in batches]).read()
    done = []
    for start in range(0, len(batches), _CALL):
        if start == len(batches) // 2:
            _interrupt(network, batches[:_CALL])
        call = batches[start : start + _CALL]
        done.append(network.train_steps([network.place(b) for b in call]).read())
    return Updates(
        np.concatenate([updates.losses for updates in done]),
        np.concatenate([updates.gradient_norms for updates in done]),
    )


def _interrupt(network: TrainableNetwork, batches: list[Batch]) -> None:
    """Train from other weights, then load the weights and moments of before again."""
    # Copied, because they may be the network's own memory.
    weights = {n: np.array(w) for n, w in network.weights().items()}
    moments = {n: np.array(a) for n, a in network.optimizer_state().items()}
    network.load_weights({n: w / 2 for n, w in weights.items()})
    network.train_steps([network.place(b) for b in batches]).wait()
    network.load_optimizer_state({n: np.zeros_like(a) for n, a in moments.items()})
    network.load_weights(weights)
    network.load_optimizer_state(moments)


def _largest_difference(found: Array, reference: Array) -> float:
    if found.shape != reference.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.max(np.abs(found - reference) / np.abs(reference)))
