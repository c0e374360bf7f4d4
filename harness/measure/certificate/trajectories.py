"""The optimiser's steps compared with the reference's, over a few short trainings.

Each optimiser runs with constants at which every update is clipped. It also runs with
other constants, all different from the defaults, at which no update is clipped, and
with the same constants at which about half of the updates are clipped. These last two
runs take several calls, and are interrupted and continued as learning is from a
checkpoint. They are over padded sequences of tokens and two layers: the first with an
answer at every step, the other with an answer at the end. With one optimiser everything
else is asked for between two calls, which may change no update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Optimizer,
    Placed,
    TrainableNetwork,
    Updates,
    Weights,
)
from harness.intervals import median
from harness.measure.certificate.distance import errors
from harness.measure.certificate.network_pair import (
    NetworkPair,
    random_batch,
    weight_points,
)
from harness.measure.certificate.record import Certificate
from harness.measure.certificate.rounding import ROOM, Responses, nudged
from harness.measure.certificate.shapes import (
    PADDED_TRAINING,
    SCORED_TRAINING,
    TRAINING,
    Shape,
)
from harness.measure.subject import Subject

Name = Literal["adam", "rmsprop", "sgd"]
NAMES: tuple[Name, ...] = ("adam", "rmsprop", "sgd")

# With ordinary constants correct float32 code differs from float64 by a half after 100
# updates. With these its noise stays under 2e-6, and every mistake is above 0.1.
STEADY = Optimizer(learning_rate=1e-3, epsilon=1e-3, clip_norm=0.01)

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
_RESOLVED = 1e-2
"""Updates are compared as long as the error that rounding may make is below this: a
tenth of what a mistake makes."""

_CALL = 5
"""Updates of one call, if a trajectory takes several calls."""


@dataclass(frozen=True)
class Trajectory:
    """A number of updates by one optimiser.

    Attributes:
        words: How many of the updates are clipped.
        shape: The shape of every batch.
        interrupted: Whether the implementation takes them in several calls, and gets
            its weights and moments back in the middle.
        asked_before: Whether gradients are asked for before the first update, which
            may take no part in it.
        asked_between: Whether all else that a network does is asked for between two
            calls, which may change nothing.
    """

    words: str
    shape: Shape
    optimizer: Optimizer
    updates: int
    interrupted: bool = False
    asked_before: bool = False
    asked_between: bool = False

    def batches(self, updates: int | None = None) -> list[Batch]:
        """Draw the batches, or only the first few."""
        return training_batches(self.shape, updates or self.updates)


def trajectories(name: Name, typical: float) -> tuple[Trajectory, ...]:
    """Return the trajectories of an optimiser.

    Args:
        name: The optimiser.
        typical: The `typical_norm`, which about half of the gradients exceed in the
            last trajectory.
    """
    steady = replace(STEADY, name=name)
    other = replace(_OTHER, name=name)
    if name == "sgd":  # its steps are as large as the gradient
        steady = replace(steady, momentum=0.9)
        other = replace(other, learning_rate=3e-2)
    half = replace(other, clip_norm=typical)
    return (
        Trajectory(
            "every update clipped",
            TRAINING,
            steady,
            _STEADY_UPDATES,
            asked_before=name == "sgd",
        ),
        Trajectory(
            "no update clipped",
            SCORED_TRAINING,
            other,
            _OTHER_UPDATES,
            interrupted=True,
            asked_between=name == "adam",  # it keeps the most
        ),
        Trajectory(
            "half of the updates clipped",
            PADDED_TRAINING,
            half,
            _OTHER_UPDATES,
            interrupted=True,
        ),
    )


def training_batches(shape: Shape, updates: int) -> list[Batch]:
    """Draw the batches of a trajectory."""
    rng = np.random.default_rng(0)
    return [random_batch(shape, rng) for _ in range(updates)]


def steady_weights(pair: NetworkPair) -> Weights:
    """Return canonical values with the recurrent matrices halved.

    Only the optimiser is checked here: an identity matrix with relu would amplify
    rounding over 100 updates up to the tolerance.
    """
    weights = next(weight_points(pair.spec, pair.cell, 0))
    return {n: w / 2 if n.endswith("w_hh") else w for n, w in weights.items()}


def typical_norm(subject: Subject) -> float:
    """Return the median norm of the reference's gradients before the first update."""
    pair = NetworkPair(subject, PADDED_TRAINING)
    pair.oracle.load_weights(steady_weights(pair))
    norms = []
    for batch in training_batches(PADDED_TRAINING, _OTHER_UPDATES):
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
            _compare(certificate, subject, trajectory)


def _compare(
    certificate: Certificate, subject: Subject, trajectory: Trajectory
) -> None:
    pair = NetworkPair(subject, trajectory.shape, trajectory.optimizer)
    loaded = pair.load(steady_weights(pair))
    batches, network, oracle = trajectory.batches(), pair.network, pair.oracle
    placed = [oracle.place(batch) for batch in batches]

    def expected(nudge: int | None = None) -> Answers:
        start = loaded if nudge is None else nudged(loaded, pair.unit, nudge)
        oracle.load_weights(start)
        return _answers(oracle, oracle.train_steps(placed).read())

    if trajectory.asked_before:
        network.loss_and_gradients(network.place(batches[0])).wait()
    found = _answers(network, _updates(network, batches, trajectory))
    right = expected()
    responses = Responses(expected, right)
    name, words = trajectory.optimizer.name, trajectory.words
    if max(errors(found, right).values()) > certificate.tolerance.certified:
        resolved = _resolved(responses, trajectory.updates)
        if resolved < trajectory.updates:
            certificate.remarks.append(
                f"{name}, {words}: of {trajectory.updates} updates the first "
                f"{resolved} are compared, because rounding the weights alone changes "
                "later ones"
            )
            _compare(certificate, subject, replace(trajectory, updates=resolved))
            return
    for (check, what), reference in right.items():
        certificate.compare(
            f"{name} {check}",
            found.get((check, what), np.empty(0)),
            reference,
            f"{what}, {words}",
            changes=responses.of((check, what)),
        )
    moments = network.optimizer_state()
    network.load_optimizer_state(moments)
    again = network.optimizer_state()
    for key, array in moments.items():
        kept = again.get(key, np.empty(0))
        certificate.require_equal("optimiser state comes back", kept, array, key)


def _resolved(responses: Responses[tuple[str, str]], updates: int) -> int:
    """Return how many of the updates are hardly changed by rounding; one at least."""
    for number in range(2, updates + 1):
        names = [("updates", f"{what} of update {number}") for what in _OF_ONE]
        if ROOM * max(next(responses.of(name)) for name in names) > _RESOLVED:
            return number - 1
    return updates


Answers = dict[tuple[str, str], Array]
"""Losses, norms, weights and moments, by check ("updates", "moments") and words."""

_OF_ONE = ("loss", "norm")


def _answers(network: TrainableNetwork, done: Updates) -> Answers:
    answers: Answers = {}
    for what, values in zip(_OF_ONE, (done.losses, done.gradient_norms), strict=True):
        answers["updates", f"every {what}"] = values
        for number, value in enumerate(values, 1):
            # One by one, because a loss that falls would hide a later mistake.
            answers["updates", f"{what} of update {number}"] = np.array(value)
    for tensor, array in network.weights().items():
        answers["updates", tensor] = array
    for key, array in network.optimizer_state().items():
        answers["moments", key] = array
    return answers


def _updates(
    network: TrainableNetwork, batches: list[Batch], trajectory: Trajectory
) -> Updates:
    """Take the updates in one call, or in several with an interruption."""
    placed = [network.place(b) for b in batches]
    if not trajectory.interrupted:
        return network.train_steps(placed).read()
    done = []
    size = min(_CALL, max(1, len(batches) // 2))
    starts = range(0, len(batches), size)
    for start in starts:
        call = placed[start : start + size]
        if start == starts[len(starts) // 2]:
            _interrupt(network, call)
        elif start and trajectory.asked_between:
            _ask_all_else(network, batches[0], placed[0])
        done.append(network.train_steps(call).read())
    return Updates(
        np.concatenate([updates.losses for updates in done]),
        np.concatenate([updates.gradient_norms for updates in done]),
    )


def _ask_all_else(network: TrainableNetwork, batch: Batch, placed: Placed) -> None:
    """Ask for everything but an update, which changes no later update."""
    done = network.forward(placed).read()
    network.step(batch.inputs[:, 0], done.state).wait()
    network.vjp(placed, None, np.ones_like(done.outputs), done.state)
    network.loss_and_gradients(placed).wait()
    network.weights()
    network.optimizer_state()


def _interrupt(network: TrainableNetwork, placed: list[Placed]) -> None:
    """Train from other weights, then load the weights and moments of before again.

    It trains on the batches that come next, so that updates which were kept for a batch
    show.
    """
    # Copied, because they may be the network's own memory.
    weights = {n: np.array(w) for n, w in network.weights().items()}
    moments = {n: np.array(a) for n, a in network.optimizer_state().items()}
    network.load_weights({n: w / 2 for n, w in weights.items()})
    network.train_steps(placed).wait()
    network.load_optimizer_state({n: np.zeros_like(a) for n, a in moments.items()})
    network.load_weights(weights)
    network.load_optimizer_state(moments)
