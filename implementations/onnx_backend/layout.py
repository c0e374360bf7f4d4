"""The layout of ONNX's `RNN`, `GRU` and `LSTM` nodes, from and to canonical weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.contract import Array, Cell
from implementations.shared.layout import GateLayout

_ORDERS: dict[tuple[str, ...], list[int]] = {
    ("r", "z", "n"): [1, 0, 2],
    ("i", "f", "g", "o"): [0, 3, 1, 2],
}
"""The canonical index of each ONNX gate: z r h in r z n, and i o f c in i f g o."""


class OnnxLayout(GateLayout):
    """`W` and `R` have the gates stacked; `B` has the biases of both side by side.

    The biases beside R h are zero, except for a GRU with the reset after the product.
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int) -> None:
        super().__init__(cell, input_size, hidden_size)
        self._order = _ORDERS.get(cell.info.gates, slice(None))
        self.shapes = {
            "W": (1, self._rows, input_size),
            "R": (1, self._rows, hidden_size),
            "B": (1, 2 * self._rows),
        }
        self.needed = {}

    def _packed(
        self, w_ih: Array, w_hh: Array, first: Array, second: Array
    ) -> Sequence[Array]:
        return w_ih, w_hh, np.stack([first, second])

    def _unpacked(self, tensors: Mapping[str, Array]) -> Sequence[Array]:
        return [tensors["W"][0], tensors["R"][0], *tensors["B"].reshape(2, -1)]
