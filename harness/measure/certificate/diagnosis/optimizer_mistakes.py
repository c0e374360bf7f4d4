"""Known ways to get an optimiser wrong: another clip, step or constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from harness.contract import Array, Optimizer, Weights
from harness.measure.certificate.trajectories import Name

Moments = dict[str, Array]


@dataclass(frozen=True)
class Update:
    """One update of one tensor.

    Attributes:
        moments: The moments after the previous update; a step replaces them.
        number: The number of the update, counted from 1.
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
Mistake = tuple[str, Clip, Step]
"""A mistake as text, and the clip and the step of an optimiser that makes it."""


def mistakes(name: Name) -> Iterator[Mistake]:
    """Yield the known mistakes of an optimiser."""
    right = _RIGHT[name]
    for words, clip in (
        ("gradients are clipped per tensor", _clip_per_tensor),
        ("gradients are clipped by value", _clip_by_value),
        ("gradients are not clipped", lambda gradients, _: gradients),
        (
            "matches if the gradient is always rescaled to the clip norm, "
            "a smaller one too",
            _rescale,
        ),
    ):
        yield words, clip, right
    for words, step in _STEPS[name]:
        yield words, _clip, step
    for constants in _CONSTANTS[name]:
        for limit, taken in _LIMITS.items():
            words = _words(constants, limit)
            yield words, _clip, _with_constants(right, constants, taken)


_Taken = Callable[[float, float], float]
"""Returns what an optimiser takes, given the constant that is asked for and its own."""

_LIMITS: dict[str, _Taken] = {
    "always": lambda _, own: own,
    "at most": min,
    "at least": max,
}


def _with_constants(step: Step, constants: dict[str, float], taken: _Taken) -> Step:
    """Return a step that takes other constants than the optimiser's."""

    def changed(asked: Optimizer) -> Optimizer:
        others = {n: taken(getattr(asked, n), own) for n, own in constants.items()}
        return replace(asked, **others)  # type: ignore[arg-type]

    return lambda update: step(replace(update, optimizer=changed(update.optimizer)))


def _words(constants: dict[str, float], limit: str) -> str:
    names = " and ".join(constants).replace("learning_rate", "the learning rate")
    values = " and ".join(f"{value:g}" for value in constants.values())
    verb = "are" if len(constants) > 1 else "is"
    return f"matches if {names} {verb} {limit} {values}"


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


# --- steps ---------------------------------------------------------------------------


def _adam(update: Update, *, corrected: bool = True, inside: bool = False) -> Array:
    optimizer, g, number = update.optimizer, update.gradient, update.number
    first = update.average("first", g, optimizer.beta1)
    second = update.average("second", g * g, optimizer.beta2)
    if corrected:
        first = first / (1 - optimizer.beta1**number)
        second = second / (1 - optimizer.beta2**number)
    return optimizer.learning_rate * first / _root(second, optimizer.epsilon, inside)


def _adam_epsilon_hat(update: Update) -> Array:
    correction = np.sqrt(1 - update.optimizer.beta2**update.number)
    correction /= 1 - update.optimizer.beta1**update.number
    return float(correction) * _adam(update, corrected=False)


def _rmsprop(update: Update, *, inside: bool = False) -> Array:
    optimizer, g = update.optimizer, update.gradient
    second = update.average("second", g * g, optimizer.decay)
    return optimizer.learning_rate * g / _root(second, optimizer.epsilon, inside)


def _root(square: Array, epsilon: float, inside: bool) -> Array:
    root: Array = np.sqrt(square + epsilon) if inside else np.sqrt(square) + epsilon
    return root


def _sgd(update: Update, *, dampened: bool = False, nesterov: bool = False) -> Array:
    optimizer, g = update.optimizer, update.gradient
    momentum, velocity = optimizer.momentum, g
    if "momentum" in update.moments:
        share = 1 - momentum if dampened else 1
        velocity = momentum * update.moments["momentum"] + share * g
    update.moments["momentum"] = velocity
    step = g + momentum * velocity if nesterov else velocity
    return optimizer.learning_rate * step


_RIGHT: dict[Name, Step] = {"adam": _adam, "rmsprop": _rmsprop, "sgd": _sgd}

_STEPS: dict[Name, tuple[tuple[str, Step], ...]] = {
    "adam": (
        ("epsilon is added before the bias correction", _adam_epsilon_hat),
        ("epsilon is added inside the root", partial(_adam, inside=True)),
        ("the bias correction is left out", partial(_adam, corrected=False)),
    ),
    "rmsprop": (("epsilon is added inside the root", partial(_rmsprop, inside=True)),),
    "sgd": (
        ("momentum is Nesterov's", partial(_sgd, nesterov=True)),
        ("momentum is dampened", partial(_sgd, dampened=True)),
        ("there is no momentum", lambda u: u.optimizer.learning_rate * u.gradient),
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
