"""A cell's equations in torch operations, in a Python loop over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from harness.contract import Cell, Equations

State = tuple[Tensor, ...]
OverTime = Callable[[Mapping[str, Tensor], Tensor, State], tuple[Tensor, State]]
"""Called with the weights, a = W x + b of all gates [time, batch, gates * hidden] and
the state before, parts [batch, hidden]; returns outputs [time, batch, hidden] and the
state after."""


class Operations:
    """The operations of equations, in torch."""

    sigmoid = staticmethod(torch.sigmoid)
    tanh = staticmethod(torch.tanh)
    relu = staticmethod(torch.relu)

    def products(self, w: Tensor, v: Tensor) -> Sequence[Tensor]:
        """Multiply v [batch, size] by w [gates, hidden, size] in one product."""
        return nn.functional.linear(v, w.flatten(0, 1)).chunk(len(w), dim=1)


class Layer(nn.Module):
    """One layer: called as `nn.GRU`, its parameters the canonical weights."""

    def __init__(
        self, cell: Cell, input_size: int, hidden_size: int, over_time: OverTime
    ) -> None:
        super().__init__()
        self._over_time = over_time
        self._parts = len(cell.info.state_parts)
        self._hidden_size = hidden_size
        shapes = cell.weight_shapes(input_size, hidden_size)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(
        self, x: Tensor, state: Tensor | State | None = None
    ) -> tuple[Tensor, Tensor | State]:
        """Run over x [time, batch, input] from a state, parts [1, batch, hidden]."""
        w = dict(self.named_parameters())
        # W x + b does not depend on the state: all time steps in one product.
        a = nn.functional.linear(x, w["w_ih"].flatten(0, 1), w["b"].flatten())
        outputs, after = self._over_time(w, a, self._parts_of(x, state))
        final = tuple(part[None] for part in after)
        return outputs, final if self._parts > 1 else final[0]

    def _parts_of(self, x: Tensor, state: Tensor | State | None) -> State:
        if state is None:
            size = (x.shape[1], self._hidden_size)
            return tuple(x.new_zeros(size) for _ in range(self._parts))
        parts = state if isinstance(state, tuple) else (state,)
        return tuple(part[0] for part in parts)


def layer(
    equations: Equations, cell: Cell, input_size: int, hidden_size: int
) -> nn.Module:
    """Return a layer of any cell that has equations."""
    operations, gates = Operations(), len(cell.info.gates)

    def over_time(
        w: Mapping[str, Tensor], a: Tensor, state: State
    ) -> tuple[Tensor, State]:
        outputs = []
        for a_t in a.unbind():
            state = equations(operations, w, a_t.chunk(gates, dim=1), state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    return Layer(cell, input_size, hidden_size, over_time)
