"""Which other mean or other loss gives the loss that was found?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from harness.contract import Array, Batch, Readout, Target, TrainableNetwork
from harness.measure.certificate.diagnosis import evidence
from harness.measure.certificate.diagnosis.evidence import Found, Hypothesis
from harness.measure.certificate.network_pair import NetworkPair
from harness.measure.certificate.shapes import PAIRWISE, Shape
from harness.measure.subject import Subject

LOSS = "the loss"


def loss_cause(subject: Subject, tolerance: float) -> str | None:
    """Return the likely cause of a wrong loss, or None if none is found."""
    suspects = evidence.Suspects(tolerance)
    for shape in sorted(PAIRWISE, key=_ambiguity):
        pair = NetworkPair(subject, shape)
        case = pair.case(0).load()
        found, expected = (_of(n, case.batch) for n in (pair.network, pair.oracle))
        if not evidence.disagreeing(found, expected, tolerance):
            continue
        again = _of(pair.network, case.batch)
        cause = evidence.without_hypothesis(found, again, tolerance)
        if cause is not None:
            return cause
        of_loss, right = ({LOSS: of[LOSS]} for of in (found, expected))
        if evidence.disagreeing(of_loss, right, tolerance):
            outputs = pair.oracle.forward(pair.oracle.place(case.batch)).read().outputs
            others = _other_losses(shape.target, outputs, case.batch)
            suspects.weigh(others, of_loss, right)
            if suspects.decided:
                return suspects.cause()
            continue
        pairs = [(found[n], r) for n, r in expected.items() if n != LOSS]
        factor = evidence.common_factor(pairs, tolerance)
        if factor is not None:
            return f"the gradient of the loss is {factor:.4g} times the reference"
    return suspects.cause()


def _ambiguity(shape: Shape) -> tuple[bool, bool]:
    # With one readout or one sequence several means are the same number.
    return shape.readout is Readout.LAST, shape.batch == 1


def _of(network: TrainableNetwork, batch: Batch) -> Found:
    done = network.loss_and_gradients(network.place(batch)).read()
    gradients = {f"the gradient of {n}": g for n, g in done.gradients.items()}
    return {LOSS: np.array(done.loss), **gradients}


def _other_losses(target: Target, outputs: Array, batch: Batch) -> Iterator[Hypothesis]:
    """Yield other means and other losses of the outputs."""
    losses = _position_losses(target, outputs, batch.targets)
    scored = np.where(batch.scored, losses, 0)
    per_sequence = scored.sum(axis=1) / np.maximum(batch.scored.sum(axis=1), 1)
    mean = scored.sum() / batch.scored.sum()
    for words, value in (
        ("the loss is averaged over every position, scored or not", losses.mean()),
        ("the loss is summed over scored positions, not averaged", scored.sum()),
        ("the loss is averaged over sequences alone", scored.sum() / batch.size),
        ("the loss is averaged over time alone", scored.sum() / scored.shape[1]),
        ("the loss is divided by the number of all positions", scored.mean()),
        ("each sequence is averaged by itself, then all", per_sequence.mean()),
        ("the squared error is halved", mean / 2),
        ("the loss is summed over outputs, not averaged", mean * outputs.shape[-1]),
        ("the loss is in bits, not nats", mean / np.log(2)),
    ):
        yield words, partial(dict, {LOSS: np.array(value)})


def _position_losses(target: Target, outputs: Array, targets: Array) -> Array:
    """Return the loss at every position, [batch, readouts]."""
    if target is Target.REAL:
        squared: Array = ((outputs - targets) ** 2).mean(axis=-1)
        return squared
    chosen = np.take_along_axis(outputs, targets[..., None], axis=-1)[..., 0]
    entropy: Array = np.logaddexp.reduce(outputs, axis=-1) - chosen
    return entropy
