"""What all code of a process shares of Keras, on whichever backend it computes."""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any


def keras_settings() -> dict[str, Any]:
    """Return the defaults of Keras; nothing if it is not imported."""
    keras = sys.modules.get("keras")
    if keras is None:
        return {}
    return {
        "Keras' float type": keras.config.floatx(),
        "Keras' dtype policy": keras.config.dtype_policy().name,
        "Keras' epsilon": keras.config.epsilon(),
        "Keras' image format": keras.config.image_data_format(),
        "Keras' flash attention": str(keras.config.is_flash_attention_enabled()),
    }


@functools.cache
def keras_holders() -> tuple[ModuleType | type, ...]:
    """Return where the functions of Keras and of its backend are."""
    keras = sys.modules.get("keras")
    if keras is None:
        return ()
    backend = f"keras.src.backend.{keras.config.backend()}"
    parts = ("core", "math", "nn", "numpy", "rnn")
    names = [f"{backend}.{part}" for part in parts]
    names += ["keras.ops", "keras.layers", "keras.activations"]
    modules = [sys.modules[name] for name in names if name in sys.modules]
    layers = {v for v in vars(keras.layers).values() if isinstance(v, type)}
    return (*modules, *layers)
