"""Layers in JAX: their tensors, and a pure function of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jax import Array

from harness.conformance import check_call
from harness.contract import Cell
from harness.errors import PluginError
from implementations.shared.layout import CanonicalLayout

Tensors = dict[str, Array]
Parts = tuple[Array, ...]
"""One array [batch, hidden] for each state part."""
Run = Callable[[Tensors, Array, Parts, Array | None], tuple[Array, Parts]]
"""Called with the layer's tensors, x [time, batch, input], the state before and
`active`, bool [time, batch, 1], which is False from a sequence's end on, or None if no
sequence is padded. Returns outputs [time, batch, hidden] and the state after each
sequence's own end."""


@dataclass(frozen=True)
class Layer:
    """One recurrent layer.

    Attributes:
        name: The layer's name in messages.
        shapes: Shapes of the layer's tensors: the canonical ones or those of Keras.
        run: The layer as a pure function.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    run: Run


LayerFactory = Callable[[str, int, int], object]
"""Called with (cell, input_size, hidden_size); see `as_layer`."""


def as_layer(found: object, cell: Cell, input_size: int, hidden_size: int) -> Layer:
    """Return the layer of what a factory returned, a `Layer` or a function.

    A function is a `Run` whose tensors are the canonical ones.

    Raises:
        PluginError: If it is neither, or takes other arguments.
    """
    if isinstance(found, Layer):
        return found
    if not callable(found) or isinstance(found, type):
        raise PluginError(
            "layer",
            f"returned {type(found).__name__}; expected a function (weights, x, "
            "state, active) to (outputs, state), or a Layer of it",
        )
    name = getattr(found, "__name__", type(found).__name__)
    check_call(found, ("weights", "x", "state", "active"), name, by_position=True)
    layout = CanonicalLayout(cell, input_size, hidden_size)
    return Layer(name, layout.shapes, found)


def check_answer(layer: Layer, found: Any, x: Array, state: Parts) -> None:
    """Check a layer's answer to x [time, batch, input] and a state.

    Raises:
        PluginError: Naming the answer and what was expected.
    """
    outputs = f"{x.dtype} {(*x.shape[:2], state[0].shape[1])}"
    expected = f"({outputs}, {_form(state)})"
    if _form(found) != expected:
        raise PluginError(
            layer.name,
            f"answered {_form(found)}; expected {expected}, a tuple of outputs [time, "
            "batch, hidden] and a tuple of state parts [batch, hidden]",
        )


def _form(found: Any) -> str:
    """Return the dtype and shape of each array, or the name of another type."""
    if isinstance(found, tuple):
        return f"({', '.join(map(_form, found))})"
    if isinstance(found, Array):
        return f"{found.dtype} {found.shape}"
    return type(found).__name__
