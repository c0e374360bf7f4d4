"""Known ways to get an optimiser wrong: another clip, step or constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.contract import Array, Optimizer, Weights
from harness.measure.certificate.trajectories import Name

Moments = dict[str, Array]
Clip = Callable[[Weights, float], Weights]
Step = Callable[[Optimizer, Array, Moments, int], Array]


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
    """Return an optimiser's step with constants of its own."""
    return lambda o, g, moments, update: step(
        replace(o, **constants), g, moments, update
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


def _no_momentum(optimizer: Optimizer, g: Array, _: Moments, update: int) -> Array:
    return optimizer.learning_rate * g


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

_CONSTANTS: dict[Name, tuple[dict[str, Any], ...]] = {
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
    "sgd": (
        {"learning_rate": 1e-3},
        {"learning_rate": 1e-2},
        {"momentum": 0.9},
    ),
}
"""What torch, Keras or optax take where nothing is asked for."""
