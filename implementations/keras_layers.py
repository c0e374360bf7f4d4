"""Keras layers for the two backends that compute with them: stock layers, and checks.

Keras reads its own backend, TensorFlow or JAX, from the environment, once a process.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras

from harness.contract import Tensor
from harness.errors import PluginError, UnavailableError

LayerFactory = Callable[[str, int, int], object]
"""Called with (cell, input_size, hidden_size); returns a `keras.layers.Layer` that is
called as `keras.layers.GRU(return_sequences=True, return_state=True)`: (x [batch, time,
input], initial_state=, mask=) to (outputs, *state). Its weights are the canonical ones
or Keras'."""

_STOCK: dict[str, Callable[..., Any]] = {
    "rnn": keras.layers.SimpleRNN,
    "rnn-relu": partial(keras.layers.SimpleRNN, activation="relu"),
    "gru": keras.layers.GRU,
    "gru-reset-before": partial(keras.layers.GRU, reset_after=False),
    "lstm": keras.layers.LSTM,
}


def stock(cell: str, input_size: int, hidden_size: int) -> Any:
    """Return Keras' own layer of a cell.

    Its initial values are zero: drawing those of Keras takes seconds, and no network
    uses them.
    """
    return _STOCK[cell](
        hidden_size,
        return_sequences=True,
        return_state=True,
        kernel_initializer="zeros",
        recurrent_initializer="zeros",
    )


def check_backend(framework: str, backend: str) -> None:
    """Check that Keras computes with this backend in this process.

    Raises:
        UnavailableError: If it computes with another one.
    """
    if keras.backend.backend() != backend:
        raise UnavailableError(
            framework,
            f"keras {keras.__version__} computes with {keras.backend.backend()} in "
            f"this process; KERAS_BACKEND must be {backend} before it is imported",
        )


def checked(layer: object) -> Any:
    """Return what a factory returned, after those checks for which nothing runs.

    Raises:
        PluginError: If it is not a Keras layer, takes other arguments, or keeps its
            state from call to call.
    """
    if not isinstance(layer, keras.layers.Layer):
        raise PluginError(
            "layer",
            f"returned {type(layer).__name__}; expected a keras.layers.Layer that is "
            "called and laid out as keras.layers.GRU",
        )
    name = type(layer).__name__
    signature = inspect.signature(layer.call)
    try:
        signature.bind(None, initial_state=None, mask=None)
    except TypeError as error:
        raise PluginError(
            name,
            f"call{signature} has a wrong signature: {error}; expected call(x, "
            "initial_state, mask), as keras.layers.GRU",
        ) from error
    if any(getattr(part, "stateful", False) for part in layer._flatten_layers()):
        raise PluginError(
            name,
            "keeps its state from call to call (stateful=True); expected a layer that "
            "starts from initial_state; build it with stateful=False",
        )
    return layer


def leave_cudnn(layer: Any) -> None:
    """Keep a layer on the CPU: Keras uses cuDNN wherever it sees a GPU."""
    for part in layer._flatten_layers():
        if isinstance(part, keras.layers.GRU | keras.layers.LSTM):
            part.use_cudnn = False


def check_dtype(layer: Any, dtype: str) -> None:
    """Check that a layer computes in a dtype, and that its weights have it.

    Raises:
        PluginError: If any part of it has another dtype.
    """
    policies = [part.dtype_policy.name for part in layer._flatten_layers()]
    for found in [*policies, *(variable.dtype for variable in layer.weights)]:
        if found != dtype:
            raise PluginError(
                type(layer).__name__,
                f"has the dtype policy {found}; expected {dtype}, which Keras gives a "
                "layer that names no dtype",
            )


def by_name(layer: Any, variables: Sequence[Any]) -> dict[str, Any]:
    """Return variables of a layer by name.

    Raises:
        PluginError: If two have the same name.
    """
    names = Counter(variable.name for variable in variables)
    for repeated, count in names.items():
        if count > 1:
            raise PluginError(
                type(layer).__name__,
                f"has {count} parameters named '{repeated}'; expected one layer of "
                "one direction",
            )
    return dict(zip(names, variables, strict=True))


def check_answer(
    layer: Any, found: Any, x: Tensor, state: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Return the parts of a layer's answer to x [batch, time, input] and a state.

    Raises:
        PluginError: If the answer is not outputs [batch, time, hidden] and the state.
    """
    parts = list(found) if isinstance(found, tuple | list) else [found]
    dtype = keras.backend.standardize_dtype(x.dtype)
    shapes = [(*x.shape[:2], state[0].shape[1]), *(tuple(p.shape) for p in state)]
    expected = [f"{dtype} {shape}" for shape in shapes]
    forms = [_form(part) for part in parts]
    if forms != expected:
        raise PluginError(
            type(layer).__name__,
            f"answered {', '.join(forms)}; expected outputs {expected[0]}, [batch, "
            f"time, hidden], and {len(state)} state parts {expected[1]}, as a layer of "
            "Keras with return_sequences=True and return_state=True",
        )
    return parts


def _form(found: Any) -> str:
    """Return dtype and shape of a tensor, or a type's name."""
    if not keras.ops.is_tensor(found):
        return type(found).__name__
    return f"{keras.backend.standardize_dtype(found.dtype)} {tuple(found.shape)}"
