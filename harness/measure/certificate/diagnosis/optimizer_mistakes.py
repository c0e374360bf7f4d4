"""Known ways to get an optimiser wrong: another clip, step or constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.contract import Array, Optimizer, Weights
from harness.measure.certificate.trajectories import Name

Moments = dict[str, Array]


@dataclass(frozen=True)
class Update:
    """One update of one tensor.

    Attributes:
        moments: The moments after the previous update; a step replaces them.
        number: The number of the update; the first is 1.
    """

    optimizer: Optimizer
    gradient: Array
    moments: Moments
    number: int

    def average(self, name: str, value: Array, decay: float) -> Array:
        """Update a moving average, which starts at zero, and return it."""
        before = self.moments.get(name, np.zeros_like(value))
        self.moments[name] = before + (1 - decay) * (value - before)
        return self.moments[name]


Clip = Callable[[Weights, float], Weights]
Step = Callable[[Update], Array]
"""Returns the change that is subtracted from the tensor."""


@dataclass(frozen=True)
class Mistake:
    """One way to get an optimiser wrong: another clip, another step, or both."""

    words: str
    clip: Clip
    step: Step


def mistakes(name: Name) -> Iterator[Mistake]:
    """Yield the known mistakes of an optimiser."""
    right = {"adam": _adam, "rmsprop": _rmsprop, "sgd": _sgd}[name]
    for words, clip in (
        ("gradients are clipped per tensor", _clip_per_tensor),
        ("gradients are clipped by value", _clip_by_value),
        ("gradients are not clipped", _clip_nothing),
        (
            "matches if the gradient is always rescaled to the clip norm, "
            "a smaller one too",
            _rescale,
        ),
    ):
        yield Mistake(words, clip, right)
    for words, step in _STEPS[name]:
        yield Mistake(words, _clip, step)
    for constants in _CONSTANTS[name]:
        yield Mistake(_words(constants), _clip, _holding(right, constants))


def _holding(step: Step, constants: dict[str, Any]) -> Step:
    """Return an optimiser's step with fixed constants, whatever is asked for."""
    return lambda update: step(
        replace(update, optimizer=replace(update.optimizer, **constants))
    )


def _words(constants: dict[str, Any]) -> str:
    names = " and ".join(_NAMES.get(name, name) for name in constants)
    values = " and ".join(f"{value:g}" for value in constants.values())
    verb = "are" if len(constants) > 1 else "is"
    return f"matches if {names} {verb} always {values}"


_NAMES = {"learning_rate": "the learning rate"}


# --- clipping ------------------------------------------------------------------------


def _norm(gradients: Weights) -> float:
    return float(np.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values())))


def _rescale(gradients: Weights, clip_norm: float) -> Weights:
    factor = clip_norm / (_norm(gradients) + 1e-6)
    return {n: g * factor for n, g in gradients.items()}


def _clip(gradients: Weights, clip_norm: float) -> Weights:
    too_large = _norm(gradients) + 1e-6 > clip_norm
    return _rescale(gradients, clip_norm) if too_large else gradients


def _clip_per_tensor(gradients: Weights, clip_norm: float) -> Weights:
    return {n: _clip({n: g}, clip_norm)[n] for n, g in gradients.items()}


def _clip_by_value(gradients: Weights, clip_norm: float) -> Weights:
    return {n: np.clip(g, -clip_norm, clip_norm) for n, g in gradients.items()}


def _clip_nothing(gradients: Weights, _: float) -> Weights:
    return gradients


# --- steps ---------------------------------------------------------------------------


def _averages(update: Update) -> tuple[Array, Array]:
    optimizer, g = update.optimizer, update.gradient
    first = update.average("first", g, optimizer.beta1)
    return first, update.average("second", g * g, optimizer.beta2)


def _corrected(update: Update) -> tuple[Array, Array]:
    optimizer, (first, second) = update.optimizer, _averages(update)
    first = first / (1 - optimizer.beta1**update.number)
    return first, second / (1 - optimizer.beta2**update.number)


def _adam(update: Update) -> Array:
    optimizer, (first, second) = update.optimizer, _corrected(update)
    return optimizer.learning_rate * first / (np.sqrt(second) + optimizer.epsilon)


def _adam_inside(update: Update) -> Array:
    optimizer, (first, second) = update.optimizer, _corrected(update)
    return optimizer.learning_rate * first / np.sqrt(second + optimizer.epsilon)


def _adam_epsilon_hat(update: Update) -> Array:
    correction = np.sqrt(1 - update.optimizer.beta2**update.number)
    correction /= 1 - update.optimizer.beta1**update.number
    return float(correction) * _adam_uncorrected(update)


def _adam_uncorrected(update: Update) -> Array:
    optimizer, (first, second) = update.optimizer, _averages(update)
    return optimizer.learning_rate * first / (np.sqrt(second) + optimizer.epsilon)


def _second(update: Update) -> Array:
    return update.average("second", update.gradient**2, update.optimizer.decay)


def _rmsprop(update: Update) -> Array:
    root = np.sqrt(_second(update)) + update.optimizer.epsilon
    return update.optimizer.learning_rate * update.gradient / root


def _rmsprop_inside(update: Update) -> Array:
    root = np.sqrt(_second(update) + update.optimizer.epsilon)
    return update.optimizer.learning_rate * update.gradient / root


def _velocity(update: Update, share: float = 1.0) -> Array:
    new, before = update.gradient, update.moments.get("momentum")
    if before is not None:
        new = update.optimizer.momentum * before + share * new
    update.moments["momentum"] = new
    return new


def _sgd(update: Update) -> Array:
    return update.optimizer.learning_rate * _velocity(update)


def _nesterov(update: Update) -> Array:
    ahead = update.optimizer.momentum * _velocity(update)
    return update.optimizer.learning_rate * (update.gradient + ahead)


def _dampened(update: Update) -> Array:
    share = 1 - update.optimizer.momentum
    return update.optimizer.learning_rate * _velocity(update, share)


def _no_momentum(update: Update) -> Array:
    return update.optimizer.learning_rate * update.gradient


_STEPS: dict[Name, tuple[tuple[str, Step], ...]] = {
    "adam": (
        ("epsilon is added before the bias correction", _adam_epsilon_hat),
        ("epsilon is added inside the root", _adam_inside),
        ("the bias correction is left out", _adam_uncorrected),
    ),
    "rmsprop": (("epsilon is added inside the root", _rmsprop_inside),),
    "sgd": (
        ("momentum is Nesterov's", _nesterov),
        ("momentum is dampened", _dampened),
        ("there is no momentum", _no_momentum),
    ),
}

_CONSTANTS: dict[Name, tuple[dict[str, float], ...]] = {
    "adam": (
        {"learning_rate": 1e-3},
        {"beta1": 0.9},
        {"beta2": 0.999},
        {"beta1": 0.9, "beta2": 0.999},
        {"epsilon": 1e-8},
        {"epsilon": 1e-7},
    ),
    "rmsprop": (
        {"learning_rate": 1e-3},
        {"learning_rate": 1e-2},
        {"decay": 0.99},
        {"decay": 0.9},
        {"epsilon": 1e-8},
        {"epsilon": 1e-7},
    ),
    "sgd": ({"learning_rate": 1e-3}, {"learning_rate": 1e-2}, {"momentum": 0.9}),
}
"""The defaults of torch, Keras or optax."""
