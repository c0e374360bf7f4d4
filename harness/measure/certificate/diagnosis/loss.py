"""Which other mean or other loss gives the loss that was found?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.contract import Array, Batch, Target, TrainableNetwork
from harness.measure.certificate.diagnosis import evidence
from harness.measure.certificate.diagnosis.evidence import Found, Hypothesis, Suspects
from harness.measure.certificate.network_pair import NetworkPair
from harness.measure.certificate.shapes import PAIRWISE
from harness.measure.subject import Subject

LOSS = "the loss"


@dataclass(frozen=True)
class _Asked:
    """A shape, and the loss and its gradients there: those found and the reference's.

    Attributes:
        outputs: The outputs of the reference.
    """

    target: Target
    batch: Batch
    outputs: Array
    found: Found
    right: Found

    def weigh_gradients(self, suspects: Suspects, factor: float) -> None:
        """Refute factors of all gradients that do not give what was found."""
        found, right = _without_loss(self.found), _without_loss(self.right)
        scaled = [
            (f"the gradient of the loss is {words}", partial(_scaled, right, by))
            for words, by in evidence.factors(self.batch, factor).items()
        ]
        suspects.weigh(scaled, found, right)


def loss_cause(subject: Subject, tolerance: float) -> str | None:
    """Return the likely cause of a wrong loss, or None if none is found.

    It explains all shapes with a loss of the same kind.
    """
    every = list[_Asked]()
    for shape in PAIRWISE:
        pair = NetworkPair(subject, shape)
        case = pair.case(0).load()
        found, right = (_of(n, case.batch) for n in (pair.network, pair.oracle))
        if evidence.disagreeing(found, right, tolerance):
            again = _of(pair.network, case.batch)
            cause = evidence.without_hypothesis(found, again, tolerance)
            if cause is not None:
                return cause
        outputs = pair.oracle.forward(pair.oracle.place(case.batch)).read().outputs
        every.append(_Asked(shape.target, case.batch, outputs, found, right))
    wrong = {
        asked.target
        for asked in every
        if LOSS in evidence.disagreeing(asked.found, asked.right, tolerance)
    }
    if wrong:
        return _value_cause(every, wrong, tolerance)
    return _gradient_cause(every, tolerance)


def _value_cause(
    every: Sequence[_Asked], wrong: Set[Target], tolerance: float
) -> str | None:
    """Return which other loss was computed, of targets for which it is wrong."""
    suspects = Suspects(tolerance)
    for asked in every:
        if asked.target in wrong:
            of_loss, right = ({LOSS: of[LOSS]} for of in (asked.found, asked.right))
            suspects.weigh(_other_losses(asked), of_loss, right)
    cause = suspects.cause()
    if cause and any(
        evidence.contradicted(cause, _other_losses(asked), asked.found, tolerance)
        for asked in every
        if asked.target not in wrong
    ):
        return f"{cause}, but only {' and '.join(_WORDS[target] for target in wrong)}"
    return cause


_WORDS = {Target.CLASS: "the cross-entropy", Target.REAL: "the squared error"}


def _gradient_cause(every: Sequence[_Asked], tolerance: float) -> str | None:
    """Return by what the gradients of a right loss are multiplied at all shapes."""
    pairs = (
        [(asked.found[n], r) for n, r in _without_loss(asked.right).items()]
        for asked in every
        if evidence.disagreeing(asked.found, asked.right, tolerance)
    )
    factor = evidence.common_factor(next(pairs, []), tolerance)
    if factor is None:
        return None
    suspects = Suspects(tolerance)
    for asked in every:
        asked.weigh_gradients(suspects, factor)
    return suspects.cause()


def _without_loss(found: Found) -> Found:
    return {name: array for name, array in found.items() if name != LOSS}


def _scaled(found: Found, factor: float) -> Found:
    return {name: factor * array for name, array in found.items()}


def _of(network: TrainableNetwork, batch: Batch) -> Found:
    done = network.loss_and_gradients(network.place(batch)).read()
    gradients = {f"the gradient of {n}": g for n, g in done.gradients.items()}
    return {LOSS: np.array(done.loss), **gradients}


def _other_losses(asked: _Asked) -> Iterator[Hypothesis]:
    """Yield other means and other losses of the outputs."""
    batch, squared = asked.batch, asked.target is Target.REAL
    losses = _position_losses(asked.target, asked.outputs, batch.targets)
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
        ("the squared error is halved", mean / 2 if squared else mean),
        (
            "the loss is summed over outputs, not averaged",
            mean * asked.outputs.shape[-1] if squared else mean,
        ),
        ("the loss is in bits, not nats", mean if squared else mean / np.log(2)),
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
