"""Which other optimiser takes the steps that were found: known mistakes, simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np

from harness.contract import Array, Batch, Optimizer, TrainableNetwork, Weights
from harness.measure.certificate import relative_error
from harness.measure.pair import (
    OPTIMIZERS,
    Pair,
    Subject,
    random_batch,
    weight_points,
)
from harness.measure.shapes import TRAINING

UPDATES = 10
"""Enough for a mistake to show, few enough for rounding not to."""

CLOSE = 1e-5

Moments = dict[str, Array]
Clip = Callable[[Weights, float], Weights]
Step = Callable[[Optimizer, Array, Moments, int], Array]


@dataclass(frozen=True)
class Mistake:
    """One way to get an optimiser wrong: another clip, another step, or both."""

    words: str
    clip: Clip
    step: Step


def likely_optimizer_mistake(
    subject: Subject, name: Literal["adam", "rmsprop", "sgd"]
) -> str | None:
    """Return the mistake whose weights after some updates are those that were found."""
    optimizer = next(o for o in OPTIMIZERS if o.name == name)
    pair = subject.pair(TRAINING, optimizer)
    weights = next(weight_points(pair.spec, pair.cell, 0))
    loaded = pair.load(weights)
    rng = np.random.default_rng(0)
    batches = [random_batch(TRAINING, rng) for _ in range(UPDATES)]
    network = cast(TrainableNetwork, pair.network)
    network.train_steps([network.place(b) for b in batches]).read()
    found = network.weights()
    if all(np.array_equal(found[n], w) for n, w in loaded.items()):
        return "no update is taken: the weights stay as they were"
    for mistake in _mistakes(name):
        expected = _simulate(pair, loaded, batches, optimizer, mistake)
        moved = {n: expected[n] - loaded[n] for n in expected}
        errors = (relative_error(found[n] - loaded[n], m) for n, m in moved.items())
        # A weight moves by a hundredth of itself, so its change has lost two digits.
        if all(e is None or e <= 1000 * CLOSE for e in errors):
            return mistake.words
    return None


def _simulate(
    pair: Pair,
    weights: Weights,
    batches: Sequence[Batch],
    optimizer: Optimizer,
    mistake: Mistake,
) -> Weights:
    at = {n: w.astype(np.float64) for n, w in weights.items()}
    moments: dict[str, Moments] = {n: {} for n in at}
    assert optimizer.clip_norm is not None
    for update, batch in enumerate(batches, 1):
        pair.oracle.load_weights(at)
        placed = pair.oracle.place(batch)
        gradients = pair.oracle.loss_and_gradients(placed).read().gradients
        clipped = mistake.clip(gradients, optimizer.clip_norm)
        for n, g in clipped.items():
            at[n] = at[n] - mistake.step(optimizer, g, moments[n], update)
    return at


def _mistakes(name: Literal["adam", "rmsprop", "sgd"]) -> Iterator[Mistake]:
    right = {"adam": _adam, "rmsprop": _rmsprop, "sgd": _sgd}[name]
    yield Mistake("gradients are clipped per tensor", _clip_per_tensor, right)
    yield Mistake("gradients are clipped by value", _clip_by_value, right)
    yield Mistake("gradients are not clipped", lambda g, _: g, right)
    if name == "adam":
        yield Mistake(
            "epsilon is added before the bias correction", _clip, _adam_epsilon_hat
        )
        yield Mistake("epsilon is added inside the root", _clip, _adam_inside)
        yield Mistake("the bias correction is left out", _clip, _adam_uncorrected)
    if name == "rmsprop":
        yield Mistake("epsilon is added inside the root", _clip, _rmsprop_inside)
        yield Mistake(
            "decay is 0.9, not the one asked for",
            _clip,
            lambda o, g, m, u: _rmsprop(replace(o, decay=0.9), g, m, u),
        )
    if name == "sgd":
        yield Mistake("momentum is Nesterov's", _clip, _nesterov)
        yield Mistake("momentum is dampened", _clip, _dampened)
        yield Mistake(
            "there is no momentum", _clip, lambda o, g, m, u: o.learning_rate * g
        )


# --- clipping ------------------------------------------------------------------------


def _clip(gradients: Weights, clip_norm: float) -> Weights:
    norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
    factor = min(1.0, clip_norm / (norm + 1e-6))
    return {n: g * factor for n, g in gradients.items()}


def _clip_per_tensor(gradients: Weights, clip_norm: float) -> Weights:
    return {n: _clip({n: g}, clip_norm)[n] for n, g in gradients.items()}


def _clip_by_value(gradients: Weights, clip_norm: float) -> Weights:
    return {n: np.clip(g, -clip_norm, clip_norm) for n, g in gradients.items()}


# --- steps ---------------------------------------------------------------------------


def _averages(optimizer: Optimizer, g: Array, moments: Moments) -> tuple[Array, Array]:
    first = moments.get("first", np.zeros_like(g))
    second = moments.get("second", np.zeros_like(g))
    moments["first"] = first + (1 - optimizer.beta1) * (g - first)
    moments["second"] = second + (1 - optimizer.beta2) * (g * g - second)
    return moments["first"], moments["second"]


def _adam(optimizer: Optimizer, g: Array, moments: Moments, update: int) -> Array:
    first, second = _averages(optimizer, g, moments)
    first = first / (1 - optimizer.beta1**update)
    second = second / (1 - optimizer.beta2**update)
    return optimizer.learning_rate * first / (np.sqrt(second) + optimizer.epsilon)


def _adam_inside(
    optimizer: Optimizer, g: Array, moments: Moments, update: int
) -> Array:
    first, second = _averages(optimizer, g, moments)
    first = first / (1 - optimizer.beta1**update)
    second = second / (1 - optimizer.beta2**update)
    return optimizer.learning_rate * first / np.sqrt(second + optimizer.epsilon)


def _adam_epsilon_hat(
    optimizer: Optimizer, g: Array, moments: Moments, update: int
) -> Array:
    first, second = _averages(optimizer, g, moments)
    corrected = np.sqrt(1 - optimizer.beta2**update) / (1 - optimizer.beta1**update)
    root = np.sqrt(second) + optimizer.epsilon
    return optimizer.learning_rate * float(corrected) * first / root


def _adam_uncorrected(
    optimizer: Optimizer, g: Array, moments: Moments, update: int
) -> Array:
    first, second = _averages(optimizer, g, moments)
    return optimizer.learning_rate * first / (np.sqrt(second) + optimizer.epsilon)


def _second(optimizer: Optimizer, g: Array, moments: Moments) -> Array:
    second = moments.get("second", np.zeros_like(g))
    moments["second"] = second + (1 - optimizer.decay) * (g * g - second)
    return moments["second"]


def _rmsprop(optimizer: Optimizer, g: Array, moments: Moments, update: int) -> Array:
    root = np.sqrt(_second(optimizer, g, moments)) + optimizer.epsilon
    return optimizer.learning_rate * g / root


def _rmsprop_inside(
    optimizer: Optimizer, g: Array, moments: Moments, update: int
) -> Array:
    root = np.sqrt(_second(optimizer, g, moments) + optimizer.epsilon)
    return optimizer.learning_rate * g / root


def _velocity(
    optimizer: Optimizer, g: Array, moments: Moments, share: float = 1.0
) -> Array:
    before = moments.get("momentum")
    new = g if before is None else optimizer.momentum * before + share * g
    moments["momentum"] = new
    return new


def _sgd(optimizer: Optimizer, g: Array, moments: Moments, update: int) -> Array:
    return optimizer.learning_rate * _velocity(optimizer, g, moments)


def _nesterov(optimizer: Optimizer, g: Array, moments: Moments, update: int) -> Array:
    ahead = optimizer.momentum * _velocity(optimizer, g, moments)
    return optimizer.learning_rate * (g + ahead)


def _dampened(optimizer: Optimizer, g: Array, moments: Moments, update: int) -> Array:
    share = 1 - optimizer.momentum
    return optimizer.learning_rate * _velocity(optimizer, g, moments, share)
