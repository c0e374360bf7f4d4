"""Canonical weights to the layout of ONNX's `RNN`, `GRU` and `LSTM` nodes, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.contract import Array, Cell, Weights
from implementations.shared.layout import GateLayout, Shapes

# Where ONNX's gates, z r h and i o f c, stand in canonical order, r z n and i f g o.
_ORDERS = {("r", "z", "n"): (1, 0, 2), ("i", "f", "g", "o"): (0, 3, 1, 2)}


class OnnxLayout(GateLayout):
    """`W` and `R` with the gates stacked, `B` with the biases of both side by side.

    The biases beside R h are zero but for a GRU whose reset comes after the product.
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int) -> None:
        super().__init__(cell, input_size, hidden_size)
        gates = cell.info.gates
        self._order = list(_ORDERS.get(gates, range(len(gates))))
        rows = len(gates) * hidden_size
        self.shapes: Shapes = {
            "W": (1, rows, input_size),
            "R": (1, rows, hidden_size),
            "B": (1, 2 * rows),
        }
        self.needed: Weights = {}

    def from_canonical(self, weights: Weights) -> Weights:
        """Return the three tensors of a node."""
        first, second = weights["b"][self._order], self.second_bias(weights)
        found = {
            "W": weights["w_ih"][self._order],
            "R": weights["w_hh"][self._order],
            "B": np.concatenate([first, second[self._order]]),
        }
        return {
            name: np.ascontiguousarray(tensor).reshape(self.shapes[name])
            for name, tensor in found.items()
        }

    def values(self, tensors: Mapping[str, Array]) -> Weights:
        """Return canonical weights; the second biases but `b_hn` are zero."""
        first, second = tensors["B"].reshape(2, -1)
        return self.collect(
            self._by_gate(tensors["W"]),
            self._by_gate(tensors["R"]),
            self._by_gate(first),
            self._by_gate(second),
        )

    gradients = values

    def _by_gate(self, tensor: Array) -> Array:
        gates = len(self._order)
        by_gate: Array = tensor.reshape(gates, tensor.size // gates)
        return by_gate[np.argsort(self._order)]
