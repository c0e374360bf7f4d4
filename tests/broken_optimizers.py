"""Mistakes in optimiser, clipping and loss for frameworks that update by `shared`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

from harness import declare_implementation
from implementations.shared import optimizers

NAMES = (
    "rmsprop-epsilon-inside",
    "clipped-per-tensor",
    "always-rescaled",
    "loss-over-sequences",
)


def epsilon_inside(
    optimizer: Any, g: Any, before: Any, corrections: Any
) -> tuple[Any, dict[str, Any]]:
    """Add RMSprop's epsilon inside the root, as Keras does."""
    second = before["second"] + (1 - optimizer.decay) * (g * g - before["second"])
    root = (second + optimizer.epsilon) ** 0.5
    return optimizer.learning_rate * g / root, {"second": second}


def clipping_per_tensor(
    clip_norm: float, norm: Callable[[Any], Any], minimum: Callable[[Any, Any], Any]
) -> Callable[..., Any]:
    """Return the right step after clipping the norm of each tensor by itself."""
    right = optimizers.step

    def step(optimizer: Any, g: Any, before: Any, corrections: Any) -> Any:
        own = g * minimum(1.0, clip_norm / (norm(g) + optimizers.CLIP_EPSILON))
        return right(optimizer, own, before, corrections)

    return step


def declare_mistakes(file: str, prefix: str, framework: str) -> None:
    """Declare the implementations that `mistakes` makes, built by a plugin file."""
    for name in NAMES:
        declare_implementation(
            f"{prefix}-{name}",
            framework=framework,
            cells=["rnn"],
            factory=f"{file}:{name.replace('-', '_')}",
        )


def mistakes(right: type[Any], library: Any, norm: Callable[[Any], Any]) -> list[Any]:
    """Return networks with one mistake each in optimiser, clipping or loss, as `NAMES`.

    Args:
        right: A correct network that updates by `optimizers.step`.
        library: Its framework's module that has `minimum`.
        norm: Returns the norm of a tensor of the framework.
    """

    class EpsilonInside(right):
        def train_steps(self, placed: Any) -> Any:
            if self._spec.optimizer.name != "rmsprop":
                return super().train_steps(placed)
            with mock.patch.object(optimizers, "step", epsilon_inside):
                return super().train_steps(placed)

    class ClippedPerTensor(right):
        def __init__(self, spec: Any, cell: Any, device: str) -> None:
            self._clip_norm = spec.optimizer.clip_norm
            unclipped = replace(spec.optimizer, clip_norm=None)
            super().__init__(replace(spec, optimizer=unclipped), cell, device)

        def train_steps(self, placed: Any) -> Any:
            if self._clip_norm is None:
                return super().train_steps(placed)
            step = clipping_per_tensor(self._clip_norm, norm, library.minimum)
            with mock.patch.object(optimizers, "step", step):
                return super().train_steps(placed)

    class AlwaysRescaled(right):
        def train_steps(self, placed: Any) -> Any:
            with mock.patch.object(library, "minimum", lambda one, clipped: clipped):
                return super().train_steps(placed)

    class LossOverSequences(right):
        """Divides the loss by the number of sequences, not of scored positions."""

        def place(self, batch: Any) -> Any:
            placed = super().place(batch)
            factor = float(batch.scored.sum()) / batch.size
            return placed._replace(weights=placed.weights * factor)

    return [EpsilonInside, ClippedPerTensor, AlwaysRescaled, LossOverSequences]
