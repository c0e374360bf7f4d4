"""The form that the answer of a torch layer must have, and the error for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.errors import PluginError


@dataclass(frozen=True)
class AnswerForm:
    """The form of (outputs, state), which `nn.GRU` and `nn.LSTM` have.

    Attributes:
        layer: The layer's name in messages.
        parts: Names of the state parts.
        hidden_size: Width of outputs and of every state part.
        dtypes: The dtypes that an answer may have.
    """

    layer: str
    parts: tuple[str, ...]
    hidden_size: int
    dtypes: tuple[torch.dtype, ...]

    def check(
        self, found: object, x: Tensor | PackedSequence
    ) -> tuple[Any, list[Tensor]]:
        """Return outputs and state parts of an answer to x [time, batch, input].

        Raises:
            PluginError: Naming the answer, what is expected and what to do.
        """
        if not isinstance(found, tuple) or len(found) != 2:
            raise self._refused(
                _form(found), "(outputs, state), as nn.GRU", "return a tuple of two"
            )
        outputs, state = found
        if isinstance(x, PackedSequence):
            self._check_packed(outputs, x)
            batch = int(x.batch_sizes[0])
        else:
            self._check_outputs(outputs, x)
            batch = x.shape[1]
        return outputs, self._checked_state(state, batch)

    def _fits(self, found: object, shape: tuple[int, ...]) -> bool:
        return (
            isinstance(found, Tensor)
            and found.shape == shape
            and found.dtype in self.dtypes
        )

    def _check_outputs(self, outputs: object, x: Tensor) -> None:
        shape = (*x.shape[:2], self.hidden_size)
        if self._fits(outputs, shape):
            return
        advice = "return one output for each time step of each sequence"
        if not isinstance(outputs, Tensor):
            advice = "return a tensor"
        elif outputs.dtype not in self.dtypes:
            advice = "return them in the dtype of x"
        elif outputs.shape == (shape[1], shape[0], shape[2]):
            advice = "put time first"
        raise self._refused(
            f"outputs {_form(outputs)}",
            f"{self._words(shape)}, [time, batch, hidden]",
            advice,
        )

    def _check_packed(self, outputs: object, x: PackedSequence) -> None:
        shape = (len(x.data), self.hidden_size)
        if isinstance(outputs, PackedSequence) and self._fits(outputs.data, shape):
            return
        raise self._refused(
            f"outputs {_form(outputs)} to padded sequences",
            f"a PackedSequence of {self._words(shape)}, as nn.GRU",
            "return outputs that are packed as x is, or derive from nn.Module, whose "
            "layers are given no padding",
        )

    def _checked_state(self, state: Any, batch: int) -> list[Tensor]:
        shape = (1, batch, self.hidden_size)
        expected = f"{self._words(shape)}, [1, batch, hidden]"
        found = [state]
        if len(self.parts) > 1:
            if not isinstance(state, tuple | list) or len(state) != len(self.parts):
                raise self._refused(
                    f"the state {_form(state)}",
                    f"a tuple of {len(self.parts)}, each {expected}",
                    f"return (outputs, ({', '.join(self.parts)}))",
                )
            found = list(state)
        for name, part in zip(self.parts, found, strict=True):
            if self._fits(part, shape):
                continue
            advice = "return the state after the last time step, as nn.GRU"
            if not isinstance(part, Tensor):
                advice = f"return {name} itself"
            elif part.dtype not in self.dtypes:
                advice = "return it in the dtype of x"
            elif part.shape == shape[1:]:
                advice = f"add the axis of layers, as {name}[None]"
            raise self._refused(f"the state {name} {_form(part)}", expected, advice)
        return found

    def _words(self, shape: tuple[int, ...]) -> str:
        return f"{' or '.join(map(_name, self.dtypes))} {shape}"

    def _refused(self, found: str, expected: str, advice: str) -> PluginError:
        return PluginError(
            self.layer, f"answered {found}; expected {expected}; {advice}"
        )


def check_numbers(layer: str, x: Any, outputs: Any, state: list[Tensor]) -> None:
    """Check an answer to finite weights for NaN that no overflow explains.

    Raises:
        PluginError: Naming the tensor that holds NaN and what to look for.
    """
    x, outputs = (
        tensor.data if isinstance(tensor, PackedSequence) else tensor
        for tensor in (x, outputs)
    )
    if not x.isfinite().all() or any(t.isinf().any() for t in (outputs, *state)):
        return
    for what, tensor in (("outputs", outputs), *(("the state", s) for s in state)):
        count = int(tensor.isnan().sum())
        if count:
            raise PluginError(
                layer,
                f"answered {what} with {count} NaN of {tensor.numel()} numbers to "
                "finite inputs and weights; expected finite numbers; look for 0/0, for "
                "a root or logarithm below 0 and for memory never written "
                "(torch.empty)",
            )


def _form(found: object) -> str:
    """Return the dtype and shape of each tensor, or the name of another type."""
    if isinstance(found, PackedSequence):
        return f"PackedSequence of {_form(found.data)}"
    if isinstance(found, Tensor):
        return f"{_name(found.dtype)} {tuple(found.shape)}"
    if isinstance(found, tuple):
        return f"({', '.join(map(_form, found))})"
    return type(found).__name__


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
