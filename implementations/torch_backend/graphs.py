"""The graphs of a recurrence: compiled once for all sizes, and differentiable."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.fx.experimental._config as symbols
from torch import Tensor
from torch._dynamo import config as dynamo
from torch._dynamo import mark_static
from torch.autograd.function import once_differentiable

from implementations.torch_backend.loop import State
from implementations.torch_backend.recurrence import Recurrence

Weights = Mapping[str, Tensor]

# Sizes are guarded where tensors enter a graph. Asserting them again in every time step
# took a tenth of its time.
_OPTIONS = {"size_asserts": False, "scalar_asserts": False, "alignment_asserts": False}


class Graph:
    """A method of `Recurrence`, compiled once for all sizes."""

    def __init__(self, method: Callable[..., Any]) -> None:
        # Isolated, because otherwise all cells together may have only eight graphs.
        self._compiled = torch.compile(  # type: ignore[call-overload]
            method,
            fullgraph=True,
            dynamic=True,
            options=_OPTIONS,
            isolate_recompiles=True,
        )
        self._seen: set[Any] = set()

    def __call__(self, w: Weights, a: Tensor, *parts: tuple[Tensor, ...]) -> Any:
        """Call the graph; it is compiled first for shapes and settings that are new."""
        shapes = tuple(tensor.shape for tensor in w.values())
        key = (a.shape, a.dtype, a.device, torch.get_num_threads(), shapes)
        if key in self._seen:
            return self._compiled(w, a, *parts)
        for tensor in w.values():
            if tensor.ndim > 1:
                mark_static(tensor, 0)  # gates, which equations slice
        # Settings of the compiler; to set them takes as long as a time step. A loop
        # reads its counter (a scalar output). A size of 1 must be like any other size,
        # and two sizes that are equal now need not be equal in other calls.
        with (
            dynamo.patch(capture_scalar_outputs=True),
            symbols.patch(  # type: ignore[attr-defined]
                backed_size_oblivious=True, use_duck_shape=False
            ),
        ):
            found = self._compiled(w, a, *parts)
        self._seen.add(key)
        return found


class Graphs:
    """The compiled methods of one recurrence."""

    def __init__(self, recurrence: Recurrence) -> None:
        self.run, self.trace = Graph(recurrence.run), Graph(recurrence.trace)
        self.backward = Graph(recurrence.backward)


graphs_of = functools.cache(Graphs)
"""Returns the graphs of all networks of a process that have the same equations."""


class _OverTime(torch.autograd.Function):
    """A recurrence whose forward and backward passes are compiled graphs."""

    @staticmethod
    def forward(
        ctx: Any,
        graphs: Graphs,
        names: tuple[str, ...],
        parts: int,
        a: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return outputs [time, batch, hidden] and the parts of the state after.

        `tensors` are the parts of the state before and the weights called `names`.
        """
        a, *rest = _plain((a, *tensors))
        before, w = tuple(rest[:parts]), dict(zip(names, rest[parts:], strict=True))
        after, states, products = graphs.trace(w, a, before)
        ctx.graphs, ctx.names, ctx.parts = graphs, names, parts
        ctx.save_for_backward(a, *rest, *states, *products)
        return states[0], *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of a, the state before and the weights."""
        d_outputs, *d_after = _plain(gradients)
        a, *rest = _plain(ctx.saved_tensors)
        before, rest = tuple(rest[: ctx.parts]), rest[ctx.parts :]
        w, rest = dict(zip(ctx.names, rest, strict=False)), rest[len(ctx.names) :]
        states, products = tuple(rest[: ctx.parts]), tuple(rest[ctx.parts :])
        d_a, d_before, d_w, in_rows = ctx.graphs.backward(
            w, a, before, states, products, (d_outputs,), tuple(d_after)
        )
        for name, rows in in_rows.items():
            d_vector = rows.sum(0)
            d_w[name] = d_w[name] + d_vector if name in d_w else d_vector
        return None, None, None, d_a, *d_before, *(d_w[n] for n in ctx.names)


def _plain(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return tensors that differ only in size, because a graph guards all the rest.

    It guards whether they need a gradient and their strides. Where a size is 1, even a
    contiguous tensor may have any strides.
    """
    return [
        tensor.detach()
        if tensor.storage_offset() == 0 and tensor.stride() == _strides(tensor.shape)
        else tensor.detach().clone(memory_format=torch.contiguous_format)
        for tensor in tensors
    ]


def _strides(shape: torch.Size) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return tuple(strides)


def over_time(
    graphs: Graphs, w: Weights, a: Tensor, state: State
) -> tuple[Tensor, State]:
    """Return outputs [time, batch, hidden] and the state after.

    Args:
        graphs: The graphs of the recurrence.
        w: The weights that its equations use.
        a: W x + b of all gates [time, batch, gates * hidden].
        state: The state before, parts [batch, hidden].
    """
    tensors = (a, *state, *w.values())
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        apply: Any = _OverTime.apply
        outputs, *after = apply(graphs, tuple(w), len(state), *tensors)
        return outputs, tuple(after)
    with torch.no_grad():
        a, *rest = _plain(tensors)
        before, weights = rest[: len(state)], rest[len(state) :]
        outputs, after = graphs.run(
            dict(zip(w, weights, strict=True)), a, tuple(before)
        )
    return outputs, after
