"""The base class of all built-in cells: weight shapes, initial values and counts."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from harness.contract import CellInfo, LayerSizes, Weights
from implementations.cells.initial import chrono_bias, draw_weights


class BuiltInCell(ABC):
    """A cell whose gates are computed from a = W x + U h + b.

    W is `w_ih` [gates, hidden, input], U is `w_hh` [gates, hidden, hidden] and b is `b`
    [gates, hidden], each in the order of `info.gates`.

    Attributes:
        info: Name, gates, state parts, source.
        elementwise: Operations of a time step for each hidden unit, matrix products not
            included. Every elementwise operation and every activation counts 1.
        biases: How many biases the layer of each framework has for each gate.
    """

    info: CellInfo
    elementwise: int
    biases: ClassVar[Mapping[str, int]]

    def weight_shapes(
        self, input_size: int, hidden_size: int
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `w_ih`, `w_hh` and `b`."""
        gates = len(self.info.gates)
        return {
            "w_ih": (gates, hidden_size, input_size),
            "w_hh": (gates, hidden_size, hidden_size),
            "b": (gates, hidden_size),
        }

    def initial_weights(
        self, scheme: str, rng: np.random.Generator, sizes: LayerSizes
    ) -> Weights:
        """Draw initial values.

        The bias of the gate that keeps the state is 1 in `canonical` and drawn as
        log U(1, T - 1) in `chrono`.

        Raises:
            ValueError: If no scheme has that name.
        """
        shapes = self.weight_shapes(sizes.input_size, sizes.hidden_size)
        weights = draw_weights(scheme, rng, shapes)
        if self.info.keep_bias is not None:
            name, gate = self.info.keep_bias
            if scheme == "canonical":
                weights[name][gate] = 1
            elif scheme == "chrono":
                spread = chrono_bias(rng, sizes.hidden_size, sizes.time_steps)
                weights[name][gate] = spread
        return weights

    def flops(self, input_size: int, hidden_size: int) -> int:
        """Count the operations of one sequence and time step.

        They are 2 G H (I + H) in the products of G gates, where a multiply-add counts
        2, and H times `elementwise`.
        """
        products = 2 * len(self.info.gates) * hidden_size * (input_size + hidden_size)
        return products + self.elementwise * hidden_size

    def parameter_counts(self, input_size: int, hidden_size: int) -> dict[str, int]:
        """Count parameters: `canonical`, and with all `biases` of each framework."""
        shapes = self.weight_shapes(input_size, hidden_size)
        counts = {name: math.prod(shape) for name, shape in shapes.items()}
        matrices = counts["w_ih"] + counts["w_hh"]
        return {"canonical": sum(counts.values())} | {
            framework: matrices + biases * counts["b"]
            for framework, biases in self.biases.items()
        }
