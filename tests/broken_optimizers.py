"""Steps of `implementations.shared.optimizers` with a mistake, for any framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from implementations.shared import optimizers


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
