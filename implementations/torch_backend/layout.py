"""Canonical weights to the layout of `nn.RNN`, `nn.GRU` and `nn.LSTM`, and back.

torch stacks the gates into one axis and gives every gate two biases, `bias_ih` and
`bias_hh`. Only their sum matters, but for the GRU's candidate, whose `bias_hh` stands
inside the product with the reset gate.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from harness.contract import Array, Cell, Weights
from harness.errors import PluginError

NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


class Layout:
    """The layout of one layer of a cell."""

    def __init__(self, cell: Cell, input_size: int, hidden_size: int) -> None:
        self._shapes = cell.weight_shapes(input_size, hidden_size)
        gates = len(cell.info.gates)
        self._blocks = (gates, hidden_size)
        rows = gates * hidden_size
        self._torch_shapes = dict(
            zip(
                NAMES,
                [(rows, input_size), (rows, hidden_size), (rows,), (rows,)],
                strict=True,
            )
        )
        needed = np.zeros(self._blocks)
        if "b_hn" in self._shapes:
            needed[cell.info.gates.index("n")] = 1
        self.needed = needed.reshape(-1)
        """1 for the rows of `bias_hh` that are not redundant."""

    def check(self, parameters: Mapping[str, torch.Tensor], layer: str) -> None:
        """Check that a layer's parameters have the layout.

        Raises:
            PluginError: Naming the parameter that is missing, unknown or misshapen.
        """
        found = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
        for name, shape in self._torch_shapes.items():
            if found.get(name) != shape:
                what = f"has shape {found[name]}" if name in found else "is missing"
                raise PluginError(
                    layer, f"parameter '{name}' {what}; expected shape {shape}"
                )
        for name in found:
            if name not in self._torch_shapes:
                raise PluginError(
                    layer, f"parameter '{name}' is unknown; expected {', '.join(NAMES)}"
                )

    def to_torch(self, weights: Weights) -> dict[str, Array]:
        """Return torch's four tensors; the redundant bias is zero."""
        hidden = np.zeros(self._blocks, weights["b"].dtype)
        if "b_hn" in weights:
            hidden[self.needed.reshape(self._blocks)[:, 0] == 1] = weights["b_hn"]
        tensors = (weights["w_ih"], weights["w_hh"], weights["b"], hidden)
        return {
            name: tensor.reshape(self._torch_shapes[name])
            for name, tensor in zip(NAMES, tensors, strict=True)
        }

    def values(self, tensors: Mapping[str, Array]) -> Weights:
        """Return canonical weights: the two biases of a gate are summed."""
        hidden = tensors["bias_hh_l0"]
        return self._canonical(
            tensors, tensors["bias_ih_l0"] + np.where(self.needed == 1, 0, hidden)
        )

    def gradients(self, tensors: Mapping[str, Array]) -> Weights:
        """Return canonical gradients, or moments: those of the first bias."""
        return self._canonical(tensors, tensors["bias_ih_l0"])

    def _canonical(self, tensors: Mapping[str, Array], bias: Array) -> Weights:
        found = {
            "w_ih": tensors["weight_ih_l0"],
            "w_hh": tensors["weight_hh_l0"],
            "b": bias,
            "b_hn": tensors["bias_hh_l0"][self.needed == 1],
        }
        return {
            name: np.ascontiguousarray(found[name]).reshape(shape)
            for name, shape in self._shapes.items()
        }
