"""What the methods of a network must return: types, shapes and kinds of numbers.

A network may return anything. What does not have the form of the contract ends its
trial with a sentence that names the method; whether the numbers are right is for others
to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from harness.contract import (
    Array,
    Cell,
    Forward,
    Gradients,
    Handle,
    LossAndGradients,
    NetworkSpec,
    State,
    Updates,
)
from harness.errors import HarnessError, shortened, shown

T = TypeVar("T")

Shape = tuple[int, ...]


class FormError(HarnessError):
    """What a method of a network returned does not have the form of the contract."""


def of_type(call: str, found: object, kind: type[T], words: str) -> T:
    """Return what a method returned, which must be of a type.

    Raises:
        FormError: If it is of another type.
    """
    if not isinstance(found, kind):
        raise _wrong(call, f"{_described(found)}; it returns {words}")
    return found


def method_of(phase: str) -> str:
    """Return the name of the method that computes a phase."""
    return {"train_step": "train_steps", "stream": "step"}.get(phase, phase)


def handle(call: str, found: object) -> Handle[Any]:
    """Return queued work that a method returned.

    Raises:
        FormError: If it is no queued work.
    """
    return of_type(call, found, Handle, "Handle(wait, read)")


def next_state(done: Handle[Forward], read: Forward) -> State | Any:
    """Return what the next time step takes: what a step carries, or else its state."""
    return read.state if done.carry is None else done.carry


def _wrong(call: str, what: str) -> FormError:
    return FormError(f"`{call}` returned {shortened(what, 500)}")


class Form:
    """What the methods of one network must return.

    Every method returns what it was given, or raises FormError.

    Args:
        spec: What the network was built from.
        cell: Its cell.
    """

    def __init__(self, spec: NetworkSpec, cell: Cell) -> None:
        self._spec = spec
        self._shapes = spec.weight_shapes(cell)
        self._parts = len(cell.info.state_parts)

    # --- what methods return ---------------------------------------------------------

    def forward(self, call: str, found: object, batch: int, readouts: int) -> Forward:
        """Check outputs and final state."""
        words = "Forward(outputs [batch, readouts, output], state)"
        read = of_type(call, found, Forward, words)
        shape = (batch, readouts, self._spec.output_size)
        self._array(call, "outputs", read.outputs, shape)
        self._state(call, read.state, batch)
        return read

    def gradients(
        self, call: str, found: object, batch: int, time_steps: int
    ) -> Gradients:
        """Check gradients for weights, inputs and the state."""
        words = "Gradients(weights, inputs, state)"
        read = of_type(call, found, Gradients, words)
        self._tensors(call, "weights", read.weights)
        shape = (batch, time_steps, self._spec.input_size)
        if self._spec.inputs.kind == "tokens" and not self._spec.inputs.embedded:
            shape = (batch, time_steps, self._spec.inputs.size)
        self._array(call, "inputs", read.inputs, shape)
        self._state(call, read.state, batch)
        return read

    def loss_and_gradients(self, call: str, found: object) -> LossAndGradients:
        """Check the loss and its gradients."""
        words = "LossAndGradients(loss, gradients)"
        read = of_type(call, found, LossAndGradients, words)
        loss: Any = read.loss
        if isinstance(loss, np.ndarray):
            self._array(call, "loss", loss, ())
        elif not isinstance(loss, float | np.floating):
            raise _wrong(call, f"{_described(loss)} as loss; it is a float")
        self._tensors(call, "gradients", read.gradients)
        return LossAndGradients(float(loss), read.gradients)

    def updates(self, call: str, found: object, count: int) -> Updates:
        """Check the losses and the gradient norms of updates."""
        words = "Updates(losses [updates], gradient_norms [updates])"
        read = of_type(call, found, Updates, words)
        self._array(call, "losses", read.losses, (count,))
        self._array(call, "gradient_norms", read.gradient_norms, (count,))
        return read

    def weights(self, call: str, found: object) -> dict[str, Array]:
        """Check the canonical weights."""
        return self._tensors(call, "", found)

    def moments(self, call: str, found: object) -> dict[str, Array]:
        """Check the state of an optimiser."""
        every = self._mapping(call, "", found)
        for name, array in every.items():
            self._array(call, f"'{name}'", array, None, kinds="biuf")
        return every

    def kernel(self, call: str, found: object) -> str:
        """Check the name of what ran."""
        return of_type(call, found, str, "a text")

    def of_phase(self, phase: str, read: Any, batch: int, readouts: int) -> Any:
        """Check the result of a call of a phase on a batch."""
        call = method_of(phase)
        if phase == "loss_and_gradients":
            return self.loss_and_gradients(call, read)
        if phase == "train_step":
            return self.updates(call, read, 1)
        return self.forward(call, read, batch, readouts)

    # --- their parts -----------------------------------------------------------------

    def _state(self, call: str, found: object, batch: int) -> None:
        if not isinstance(found, tuple | list) or len(found) != self._parts:
            parts = f"{self._parts} array{'s' * (self._parts > 1)}"
            raise _wrong(call, f"{_described(found)} as state; it is {parts}")
        shape = (self._spec.num_layers, batch, self._spec.hidden_size)
        for index, part in enumerate(found):
            self._array(call, f"state[{index}]", part, shape)

    def _mapping(self, call: str, name: str, found: object) -> dict[str, Array]:
        if not isinstance(found, Mapping) or not all(isinstance(n, str) for n in found):
            what = f"{_described(found)}{f' as {name}' if name else ''}"
            raise _wrong(call, f"{what}; it is a dict of arrays by name")
        return dict(found)

    def _tensors(self, call: str, name: str, found: object) -> dict[str, Array]:
        """Check tensors by their canonical names; others are not looked at."""
        every = self._mapping(call, name, found)
        for tensor, shape in self._shapes.items():
            if tensor not in every:
                of = f" in {name}" if name else ""
                raise _wrong(call, f"no '{tensor}'{of}")
            self._array(call, f"{name or 'weights'}['{tensor}']", every[tensor], shape)
        return {tensor: every[tensor] for tensor in self._shapes}

    def _array(
        self,
        call: str,
        name: str,
        found: object,
        shape: Shape | None,
        kinds: str = "f",
    ) -> None:
        if not isinstance(found, np.ndarray):
            raise _wrong(call, f"{_described(found)} as {name}; it is an array")
        if found.dtype.kind not in kinds:
            numbers = "floating-point numbers" if kinds == "f" else "real numbers"
            raise _wrong(call, f"{name} of dtype {found.dtype}; expected {numbers}")
        if shape is not None and found.shape != shape:
            raise _wrong(
                call, f"{name} of shape {_words(found.shape)}; expected {_words(shape)}"
            )


def _words(shape: Shape) -> str:
    return str(list(shape))


def _described(found: object) -> str:
    """Return "None", "3 (int)" or "an array of shape [3]"."""
    if found is None:
        return "None"
    if isinstance(found, np.ndarray):
        return f"an array of shape {_words(found.shape)}"
    if isinstance(found, tuple):
        return f"a tuple of {len(found)}"
    if isinstance(found, int) and abs(found) > 1e15:
        return "an int of many digits"
    if isinstance(found, int | float | str):
        return f"{shown(found)} ({type(found).__name__})"
    return f"a {type(found).__name__}"
