"""A cell's equations in torch operations, in a Python loop over time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.contract import Cell, Equations


class Operations:
    """What equations are written in, in torch."""

    sigmoid = staticmethod(torch.sigmoid)
    tanh = staticmethod(torch.tanh)
    relu = staticmethod(torch.relu)

    @staticmethod
    def products(w: Tensor, v: Tensor) -> Sequence[Tensor]:
        """Multiply v [batch, size] by w [gates, hidden, size] in one product."""
        return nn.functional.linear(v, w.flatten(0, 1)).chunk(len(w), dim=1)


class Loop(nn.Module):
    """One layer: called as `nn.GRU`, its parameters the canonical weights."""

    def __init__(
        self, equations: Equations, cell: Cell, input_size: int, hidden_size: int
    ) -> None:
        super().__init__()
        self._equations = equations
        self._parts = len(cell.info.state_parts)
        self._hidden_size = hidden_size
        shapes = cell.weight_shapes(input_size, hidden_size)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(
        self, x: Tensor, state: Tensor | tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """Run over x [time, batch, input] from a state, parts [1, batch, hidden]."""
        w = dict(self.named_parameters())
        # W x + b does not depend on the state: all time steps in one product.
        a = nn.functional.linear(x, w["w_ih"].flatten(0, 1), w["b"].flatten())
        h = self._parts_of(x, state)
        outputs = []
        for a_t in a.unbind():
            h = self._equations(Operations(), w, a_t.chunk(len(w["b"]), dim=1), h)
            outputs.append(h[0])
        final = tuple(part[None] for part in h)
        return torch.stack(outputs), final if self._parts > 1 else final[0]

    def _parts_of(
        self, x: Tensor, state: Tensor | tuple[Tensor, ...] | None
    ) -> tuple[Tensor, ...]:
        if state is None:
            zero = x.new_zeros(x.shape[1], self._hidden_size)
            return (zero,) * self._parts
        parts = state if isinstance(state, tuple) else (state,)
        return tuple(part[0] for part in parts)


def layer(
    equations: Equations, cell: Cell, input_size: int, hidden_size: int
) -> nn.Module:
    """Return a layer of any cell that has equations."""
    return Loop(equations, cell, input_size, hidden_size)
