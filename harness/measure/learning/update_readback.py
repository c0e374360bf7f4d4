"""Does the trial's own optimiser move the weights as the float64 reference's does?

The certificate's trajectories have constants of their own. A network that caps the
learning rate, or holds an epsilon of its own, would pass them and learn otherwise.
"""

from __future__ import annotations

import numpy as np

from harness.contract import Array, Batch, TrainableNetwork, Weights
from harness.measure.certificate.record import TOLERANCES
from harness.measure.problem import Problem
from harness.measure.readback import ReadBack, Reference, gradient_norm

LOOSER = 1000
"""Times the certificate's tolerance: 1e-2 in float32. Over four cells, two tasks and
three optimisers correct code was seen up to 1.3e-3 at learning rates from 1e-3. At 1e-4
it was up to 1.2e-2, where rounding the weights alone makes 8e-3. A wrong constant made
0.2 and more."""

MOST_TOLERANCE = 0.5
"""Weights that stay where they were have the error 1."""

LOUD = 10
"""Gradients are made so many times as large as the clip norm and as the initial ones:
Adam's steps do not tell whether all gradients are scaled alike."""

MOST_SCALINGS = 15


def check_updates(
    found: ReadBack, problem: Problem, network: TrainableNetwork, reference: Reference
) -> None:
    """Hold the change of the weights in three updates against the reference's.

    They are taken in two calls: from the initial values, and, where the trial clips,
    the first two from others with a gradient far beyond the clip norm, so that the
    moments of the third are of clipped gradients.

    Args:
        found: Takes the comparison.
        problem: The trial.
        network: Its network; it is left with other weights and moments.
        reference: The reference of it.
    """
    trial = problem.trial
    # A framework's second bias takes a step of its own, and so moves twice as far.
    if problem.spec.biases != "canonical":
        return
    assert trial.batch is not None
    batches = [problem.batch("train", index, trial.batch) for index in range(3)]
    initial = problem.initial_weights()
    certified = TOLERANCES[trial.dtype, trial.precision].certified
    tolerance = min(LOOSER * certified, MOST_TOLERANCE)
    starts = {"three updates": initial}
    loud = _loud(problem, reference, initial, batches[0])
    if loud is not None:
        starts["clipped updates"] = loud
    for where, first in starts.items():
        expected = _expected(problem, reference, (first, initial), batches)
        if not all(np.isfinite(change).all() for change in expected.values()):
            continue

        def nudged(nudge: int, first: Weights = first) -> Weights:
            return _expected(problem, reference, (first, initial), batches, nudge)

        computed = _changes(network, (first, initial), batches, trial.dtype)
        found.compare(computed, expected, where, tolerance, nudged)


def _expected(
    problem: Problem,
    reference: Reference,
    starts: tuple[Weights, Weights],
    batches: list[Batch],
    nudge: int | None = None,
) -> Weights:
    """Return the reference's changes; with a nudge, rounded as the dtype would."""
    if nudge is None:
        return _changes(reference.network, starts, batches, problem.trial.dtype)
    first, initial = (reference.nudged(weights, nudge) for weights in starts)
    return _changes(
        reference.network, (first, initial), batches, problem.trial.dtype, rounded=True
    )


def _changes(
    network: TrainableNetwork,
    starts: tuple[Weights, Weights],
    batches: list[Batch],
    dtype: str,
    rounded: bool = False,
) -> Weights:
    """Take two updates, then one more; return the changes, each of all weights.

    Args:
        network: On trial, or the reference.
        starts: Weights of the first two updates, and, where they are others, of the
            third; elsewhere it goes on from where the first two led.
        batches: Three.
        dtype: To which the weights are rounded first, as the network on trial does.
        rounded: Whether the weights that are reached are rounded to it too.
    """
    first, third = ({n: w.astype(dtype) for n, w in s.items()} for s in starts)
    network.load_weights(first)
    network.train_steps([network.place(batch) for batch in batches[:2]]).read()
    changes = {"change of the weights": _change(network, first, dtype, rounded)}
    if any(not np.array_equal(w, first[n]) for n, w in third.items()):
        # Copied: it may be the network's own memory.
        moments = {n: np.array(a) for n, a in network.optimizer_state().items()}
        network.load_weights(third)
        network.load_optimizer_state(moments)
    network.train_steps([network.place(batches[2])]).read()
    changes["change of the weights at last"] = _change(network, third, dtype, rounded)
    return changes


def _change(
    network: TrainableNetwork, before: Weights, dtype: str, rounded: bool
) -> Array:
    """Return the change of all weights since, in one vector."""
    after = network.weights()
    if rounded:
        after = {n: w.astype(dtype) for n, w in after.items()}
    return np.concatenate(
        [
            (np.asarray(after[n], np.float64) - np.asarray(w, np.float64)).ravel()
            for n, w in before.items()
        ]
    )


def _loud(
    problem: Problem, reference: Reference, initial: Weights, batch: Batch
) -> Weights | None:
    """Return the initial values with a readout so large that gradients are clipped.

    None where no update is ever clipped.
    """
    clip_norm = problem.trial.optimizer.clip_norm
    if clip_norm is None:
        return None
    weights = dict(initial)
    enough = LOUD * max(clip_norm, _norm(reference, initial, batch))
    for _ in range(MOST_SCALINGS):
        if _norm(reference, weights, batch) >= enough:
            return weights
        weights["readout.w"] = 4 * weights["readout.w"]
    return None


def _norm(reference: Reference, weights: Weights, batch: Batch) -> float:
    reference.load(weights)
    return gradient_norm(reference.loss_and_gradients(batch))
