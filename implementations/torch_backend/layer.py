"""Modules as layers of a `TorchNetwork`: their checks and their calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from harness.conformance import check_call
from harness.contract import Cell, NetworkSpec
from harness.errors import PluginError
from implementations.shared.layout import TorchLayout, layout_of
from implementations.torch_backend.answer import AnswerForm, check_numbers
from implementations.torch_backend.kernel import layer_call

Parts = list[Tensor]
"""One tensor [1, batch, hidden] for each state part."""

LayerFactory = Callable[[str, int, int], object]
"""Called with (cell, input_size, hidden_size); returns a module that is called as
`nn.GRU`: (x [time, batch, input], state) to (outputs, state), where a state of two
parts is a tuple. Its parameters are the canonical ones or `nn.GRU`'s."""


class RecurrentLayer:
    """A module of a known layout, called with padded sequences or without.

    Args:
        module: Called as `LayerFactory` says.
        cell: Names the canonical tensors and the state parts.
        input_size: Width of its input.
        spec: Hidden size, dtype and precision.

    Attributes:
        marked: Whether its calls are marked for the profiler.

    Raises:
        PluginError: If the module has another form, or another layout of its
            parameters.
    """

    def __init__(
        self, module: nn.Module, cell: Cell, input_size: int, spec: NetworkSpec
    ) -> None:
        self.module = module
        self.marked = False
        dtypes: tuple[torch.dtype, ...] = (getattr(torch, spec.dtype),)
        if spec.precision == "bf16":
            dtypes += (torch.bfloat16,)
        name, parts = type(module).__name__, cell.info.state_parts
        self._form = AnswerForm(name, parts, spec.hidden_size, dtypes)
        self._answered = False
        shapes = {n: tuple(p.shape) for n, p in module.named_parameters()}
        sizes = (input_size, spec.hidden_size)
        self.layout = layout_of(shapes, TorchLayout, cell, *sizes, name)

    def __call__(
        self, x: Tensor, lengths: Tensor | None, state: Parts | None
    ) -> tuple[Tensor, Parts]:
        """Run over x [time, batch, input] from a state.

        Args:
            x: The input.
            lengths: int [batch] on the host; None if no sequence is padded.
            state: Parts before the first time step; None for zero.

        Returns:
            Outputs [time, batch, hidden], zero from a sequence's end on, and the state
            after each sequence's own end.

        Raises:
            PluginError: If the module answers in another form.
        """
        if lengths is None:
            return self._call(x, state)
        if not isinstance(self.module, nn.RNNBase):
            return self._run_in_segments(x, lengths, state)
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        outputs, final = self._call(packed, state)
        outputs, _ = pad_packed_sequence(outputs, total_length=len(x))
        return outputs, final

    def _call(self, x: Any, state: Parts | None) -> tuple[Any, Parts]:
        argument: Any = None
        if state is not None:
            argument = state[0] if len(self._form.parts) == 1 else tuple(state)
        with layer_call() if self.marked else nullcontext():
            found = self.module(x, argument)
        outputs, final = self._form.check(found, x)
        if not self._answered:  # only once, because on a GPU the host waits for it
            check_numbers(self._form.layer, x, outputs, final)
            self._answered = True
        return outputs, final

    def _run_in_segments(
        self, x: Tensor, lengths: Tensor, state: Parts | None
    ) -> tuple[Tensor, Parts]:
        """Run a module that takes no padding, in segments between ends of sequences.

        In each segment only those sequences run that have not ended, from their states
        after the segment before. From its end on, a sequence's state does not change
        and its output is zero.
        """
        size = (1, x.shape[1], self._form.hidden_size)
        final = state or [x.new_zeros(size) for _ in self._form.parts]
        outputs = x.new_zeros(len(x), *size[1:])
        start = 0
        for end in sorted(set(lengths.tolist())):
            (running,) = torch.nonzero(lengths > start, as_tuple=True)
            running = running.to(x.device)
            before = [part.index_select(1, running) for part in final]
            segment = x[start:end].index_select(1, running)
            answered, after = self._call(segment, before)
            padding = (0, 0, 0, 0, start, len(x) - end)
            in_time = nn.functional.pad(answered, padding).to(outputs.dtype)
            outputs = outputs.index_add(1, running, in_time)
            final = [
                part.index_copy(1, running, new.to(part.dtype))
                for part, new in zip(final, after, strict=True)
            ]
            start = end
        return outputs, final


def checked_module(layer: object) -> nn.Module:
    """Return what a factory returned, after those checks for which nothing runs.

    Raises:
        PluginError: If it is not a module, or does not only run forward in time.
    """
    if not isinstance(layer, nn.Module):
        raise PluginError(
            "layer",
            f"returned {type(layer).__name__}; expected a torch.nn.Module that is "
            "called and laid out as nn.GRU",
        )
    name = type(layer).__name__
    if isinstance(layer, nn.RNNBase):
        for refused, words in (
            (layer.bidirectional, "is bidirectional; networks run forward in time"),
            (layer.num_layers != 1, "stacks layers; each layer is asked for by itself"),
            (layer.batch_first, "takes the batch first; expected [time, batch, input]"),
            (layer.proj_size, "projects its state; expected none, proj_size=0"),
        ):
            if refused:
                raise PluginError(name, words)
    check_call(layer.forward, ("x", "state"), name, by_position=True)
    return layer
