"""Does the trial's optimiser change the weights as the float64 reference's does?

The certificate's trajectories use other constants. A network with a largest learning
rate or a fixed epsilon could pass them and learn differently.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.contract import Array, Batch, TrainableNetwork, Weights
from harness.measure.problem import Problem
from harness.measure.readback import ReadBack, Reference, gradient_norm, tolerance_of

LOOSER = 1000
"""The tolerance, as a multiple of the certificate's: 1e-2 in float32. Over four cells,
two tasks and three optimisers correct code was seen up to 1.3e-3 at learning rates from
1e-3. At 1e-4 it was up to 1.2e-2, where rounding the weights alone makes 8e-3. A wrong
constant made 0.2 and more."""

MOST_TOLERANCE = 0.5
"""The tolerance stays below the error of weights that do not change, which is 1."""

ABOVE_CLIP = 10
"""Gradients are made this many times as large as the clip norm and as the initial
gradients. Adam's steps do not show whether all gradients are scaled alike."""

MOST_SCALINGS = 15


def check_updates(
    found: ReadBack, problem: Problem, network: TrainableNetwork, reference: Reference
) -> None:
    """Compare the change of the weights in three updates with the reference's.

    The updates are taken in two calls, from the initial values. If the trial clips,
    they are taken again, the first two from weights with a gradient far above the clip
    norm, so that the third starts with moments of clipped gradients.

    Args:
        found: Records the comparison.
        problem: The trial.
        network: Its network; its weights and moments change.
        reference: The network's reference.
    """
    trial = problem.trial
    # With native biases the second bias takes its own step, so that both together move
    # twice as far.
    if problem.spec.biases != "canonical":
        return
    batches = [problem.batch("train", index) for index in range(3)]
    initial = problem.initial_weights()
    tolerance = tolerance_of(trial, LOOSER, MOST_TOLERANCE)
    starts = {"three updates": initial}
    clipping = _clipping_weights(problem, reference, initial, batches[0])
    if clipping is not None:
        starts["clipped updates"] = clipping
    for where, first in starts.items():
        right = _changes(reference.network, (first, initial), batches, trial.dtype)
        if not all(np.isfinite(change).all() for change in right.values()):
            continue

        def expected(
            nudge: int | None, right: Weights = right, first: Weights = first
        ) -> Weights:
            if nudge is None:
                return right
            nudged = [reference.nudged(weights, nudge) for weights in (first, initial)]
            return _changes(reference.network, nudged, batches, trial.dtype, True)

        computed = _changes(network, (first, initial), batches, trial.dtype)
        found.compare(computed, expected, where, tolerance)


def _changes(
    network: TrainableNetwork,
    starts: Sequence[Weights],
    batches: list[Batch],
    dtype: str,
    rounded: bool = False,
) -> Weights:
    """Take two updates, then one more; return the changes, each of all weights.

    Args:
        network: The implementation's network or the reference.
        starts: Weights before the first two updates and before the third. If they are
            equal, the third update continues from the first two.
        batches: Three batches.
        dtype: The dtype that the weights are rounded to first.
        rounded: Whether the weights after updates are rounded to it too.
    """
    first, third = ({n: w.astype(dtype) for n, w in s.items()} for s in starts)
    network.load_weights(first)
    network.train_steps([network.place(batch) for batch in batches[:2]]).read()
    changes = {"change of the weights": _change(network, first, dtype, rounded)}
    if any(not np.array_equal(w, first[n]) for n, w in third.items()):
        # Copied, because it may be the network's own memory.
        moments = {n: np.array(a) for n, a in network.optimizer_state().items()}
        network.load_weights(third)
        network.load_optimizer_state(moments)
    network.train_steps([network.place(batches[2])]).read()
    changes["change of the weights at last"] = _change(network, third, dtype, rounded)
    return changes


def _change(
    network: TrainableNetwork, before: Weights, dtype: str, rounded: bool
) -> Array:
    """Return the change of all weights since `before`, as one vector."""
    after = network.weights()
    if rounded:
        after = {n: w.astype(dtype) for n, w in after.items()}
    changes = (np.subtract(after[n], w, dtype=np.float64) for n, w in before.items())
    return np.concatenate([change.ravel() for change in changes])


def _clipping_weights(
    problem: Problem, reference: Reference, initial: Weights, batch: Batch
) -> Weights | None:
    """Return initial values with a readout so large that gradients are clipped.

    The result is None if the trial does not clip or the gradients stay too small.
    """
    clip_norm = problem.trial.optimizer.clip_norm
    if clip_norm is None:
        return None
    weights = dict(initial)
    enough = ABOVE_CLIP * max(clip_norm, _norm(reference, initial, batch))
    for _ in range(MOST_SCALINGS):
        if _norm(reference, weights, batch) >= enough:
            return weights
        weights["readout.w"] = 4 * weights["readout.w"]
    return None


def _norm(reference: Reference, weights: Weights, batch: Batch) -> float:
    reference.load(weights)
    return gradient_norm(reference.loss_and_gradients(batch))
