"""From canonical weights to the layouts in which layers keep them, and back.

A layout may hold a redundant bias: a second one of a gate, of which only the sum with
the first matters. With `canonical` biases it stays zero and is not trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from harness.contract import Array, Cell, Weights, layer_weights
from harness.errors import PluginError

Shapes = Mapping[str, tuple[int, ...]]


class CanonicalLayout:
    """The canonical tensors under their own names; see `GateLayout`."""

    def __init__(self, cell: Cell, input_size: int, hidden_size: int) -> None:
        self.shapes: Shapes = cell.weight_shapes(input_size, hidden_size)
        self.needed: Weights = {}

    def from_canonical(self, weights: Weights) -> Weights:
        """Return the weights as they are."""
        return dict(weights)

    def values(self, tensors: Mapping[str, Array]) -> Weights:
        """Return the tensors as they are."""
        return {name: tensors[name] for name in self.shapes}

    gradients = values


class GateLayout(ABC):
    """Matrices and biases of all gates stacked: the layout of a framework's layers.

    Beside the bias of W x there may be a second one, of U h. Only their sum matters,
    except for the GRU's candidate: its second bias, `b_hn`, is inside the product with
    the reset gate.

    Attributes:
        shapes: The layer's own tensors.
        needed: For tensors with redundant entries, 1 where an entry is not redundant.
    """

    shapes: Shapes
    needed: Weights
    _order: Any = slice(None)
    """The canonical index of each of the layer's gates."""

    def __init__(self, cell: Cell, input_size: int, hidden_size: int) -> None:
        self._canonical_shapes = cell.weight_shapes(input_size, hidden_size)
        self._gates = cell.info.gates
        self._rows = len(self._gates) * hidden_size
        self._second_needed = np.zeros((len(self._gates), hidden_size), bool)
        if "b_hn" in self._canonical_shapes:
            self._second_needed[self._gates.index("n")] = True

    @abstractmethod
    def _packed(
        self, w_ih: Array, w_hh: Array, first: Array, second: Array
    ) -> Sequence[Array]:
        """Return the layer's tensors, in the order of `shapes`.

        Matrices are [gates, hidden, size] and biases [gates, hidden], with the gates in
        the layer's order.
        """

    @abstractmethod
    def _unpacked(self, tensors: Mapping[str, Array]) -> Sequence[Array]:
        """Return the arguments of `_packed`, with the gates stacked in one axis."""

    def hint(self, found: Shapes) -> str:
        """Return advice about tensors of other shapes, or ""."""
        return ""

    def from_canonical(self, weights: Weights) -> Weights:
        """Return the layer's tensors; the redundant bias is zero."""
        b = weights["b"]
        second = np.zeros(b.shape, b.dtype)
        if "b_hn" in weights:
            second[self._gates.index("n")] = weights["b_hn"]
        canonical = (weights["w_ih"], weights["w_hh"], b, second)
        packed = self._packed(*(tensor[self._order] for tensor in canonical))
        return {
            name: np.ascontiguousarray(tensor).reshape(shape)
            for (name, shape), tensor in zip(self.shapes.items(), packed, strict=True)
        }

    def values(self, tensors: Mapping[str, Array]) -> Weights:
        """Return canonical weights: the two biases of a gate are summed."""
        return self._canonical(tensors, summed=True)

    def gradients(self, tensors: Mapping[str, Array]) -> Weights:
        """Return canonical gradients or moments; of two biases, those of the first."""
        return self._canonical(tensors, summed=False)

    def _canonical(self, tensors: Mapping[str, Array], *, summed: bool) -> Weights:
        w_ih, w_hh, b, second = map(self._by_gate, self._unpacked(tensors))
        if summed:
            b = b + np.where(self._second_needed, 0, second)
        found = {"w_ih": w_ih, "w_hh": w_hh, "b": b}
        if "b_hn" in self._canonical_shapes:
            found["b_hn"] = second[self._gates.index("n")]
        return {
            name: np.ascontiguousarray(found[name]).reshape(shape)
            for name, shape in self._canonical_shapes.items()
        }

    def _by_gate(self, tensor: Array) -> Array:
        """Return [gates, hidden, …] in canonical order of [gates * hidden, …]."""
        gates, hidden_size = self._second_needed.shape
        by_gate = tensor.reshape(gates, hidden_size, *tensor.shape[1:])
        canonical = np.empty_like(by_gate)
        canonical[self._order] = by_gate
        return canonical


class TorchLayout(GateLayout):
    """The layout of `nn.RNN`, `nn.GRU` and `nn.LSTM`: gates in canonical order."""

    def __init__(self, cell: Cell, input_size: int, hidden_size: int) -> None:
        super().__init__(cell, input_size, hidden_size)
        self.shapes = {
            "weight_ih_l0": (self._rows, input_size),
            "weight_hh_l0": (self._rows, hidden_size),
            "bias_ih_l0": (self._rows,),
            "bias_hh_l0": (self._rows,),
        }
        self.needed = {"bias_hh_l0": self._second_needed.reshape(-1)}

    def _packed(self, *tensors: Array) -> Sequence[Array]:
        return tensors

    def _unpacked(self, tensors: Mapping[str, Array]) -> Sequence[Array]:
        return [tensors[name] for name in self.shapes]


class KerasLayout(GateLayout):
    """The layout of Keras' `SimpleRNN`, `GRU` and `LSTM`.

    Matrices are transposed, with the gates side by side. A GRU's gates are in the order
    z, r, n. A GRU with the reset after the product has two biases for each gate, `bias`
    [2, gates * hidden]; every other layer has one.
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int) -> None:
        super().__init__(cell, input_size, hidden_size)
        self._is_gru = self._gates == ("r", "z", "n")
        if self._is_gru:
            self._order = [1, 0, 2]
        self._two_biases = bool(self._second_needed.any())
        self.shapes = {
            "kernel": (input_size, self._rows),
            "recurrent_kernel": (hidden_size, self._rows),
            "bias": (2, self._rows) if self._two_biases else (self._rows,),
        }
        self.needed = {}
        if self._two_biases:
            second = self._second_needed[self._order].reshape(-1)
            self.needed = {"bias": np.stack([np.ones_like(second), second])}

    def hint(self, found: Shapes) -> str:
        """Return advice about a GRU that has the reset at the other place, or ""."""
        forms = {(self._rows,): False, (2, self._rows): True}
        reset_after = forms.get(found.get("bias", ()))
        if not self._is_gru or reset_after in (None, self._two_biases):
            return ""
        other = "gru" if reset_after else "gru-reset-before"
        return (
            f"; a GRU with reset_after={reset_after} computes the cell {other}: "
            f"declare it for that one, or give it reset_after={not reset_after}"
        )

    def _packed(
        self, w_ih: Array, w_hh: Array, first: Array, second: Array
    ) -> Sequence[Array]:
        kernels = [w.reshape(self._rows, -1).T for w in (w_ih, w_hh)]
        return [*kernels, np.stack([first, second]) if self._two_biases else first]

    def _unpacked(self, tensors: Mapping[str, Array]) -> Sequence[Array]:
        bias = tensors["bias"]
        first, second = bias if self._two_biases else (bias, np.zeros_like(bias))
        return [tensors["kernel"].T, tensors["recurrent_kernel"].T, first, second]


Layout = CanonicalLayout | GateLayout
"""How one layer keeps the canonical weights of its cell."""

Convert = Callable[[Weights], Weights]
"""Converts the tensors of one layer."""


def layout_of(
    found: Shapes,
    stock: type[GateLayout],
    cell: Cell,
    input_size: int,
    hidden_size: int,
    layer: str,
) -> Layout:
    """Return the layout of a layer: the canonical one, or that of its framework.

    Args:
        found: The shapes of the layer's parameters.
        stock: The layout of the framework's own layers.
        cell: The cell that the layer computes.
        input_size: Width of its input.
        hidden_size: Width of its state.
        layer: Its name in messages.

    Raises:
        PluginError: Naming the parameter that is missing, unknown or misshapen.
    """
    layout: Layout = CanonicalLayout(cell, input_size, hidden_size)
    hint = ""
    if set(found) != set(layout.shapes):
        layout = stock(cell, input_size, hidden_size)
        hint = layout.hint(found)
    for name, shape in layout.shapes.items():
        if found.get(name) != shape:
            what = f"has shape {found[name]}" if name in found else "is missing"
            expected = f"expected shape {shape}{hint}"
            raise PluginError(layer, f"parameter '{name}' {what}; {expected}")
    for name in set(found) - set(layout.shapes):
        expected = f"expected {', '.join(layout.shapes)}"
        raise PluginError(layer, f"parameter '{name}' is unknown; {expected}")
    return layout


class NetworkLayout:
    """The layouts of all layers, and the tensors that belong to no layer.

    Names are `layer0.weight_ih_l0` inside a layer, `readout.w` and `embedding` outside.

    Attributes:
        outside: Shapes of the tensors outside every layer.
        shapes: Shapes of all tensors as the network keeps them.
        needed: `Layout.needed` of all layers, under the network's names.
    """

    def __init__(self, canonical_shapes: Shapes, layouts: Sequence[Layout]) -> None:
        self._canonical_names = tuple(canonical_shapes)
        self._layouts = layouts
        self.outside = {
            name: shape
            for name, shape in canonical_shapes.items()
            if not name.startswith("layer")
        }
        self.shapes: Shapes = {
            **self.outside,
            **with_layer_names(x.shapes for x in layouts),
        }
        self.needed: Weights = with_layer_names(x.needed for x in layouts)

    def from_canonical(self, weights: Weights) -> Weights:
        """Return every tensor as the network keeps it."""
        return self._each(weights, [x.from_canonical for x in self._layouts])

    def values(self, tensors: Weights) -> Weights:
        """Return canonical weights, in canonical order."""
        return self._ordered(tensors, [x.values for x in self._layouts])

    def gradients(self, tensors: Weights) -> Weights:
        """Return canonical gradients, or moments, in canonical order."""
        return self._ordered(tensors, [x.gradients for x in self._layouts])

    def _each(self, tensors: Weights, convert: Sequence[Convert]) -> Weights:
        parts = (own(layer_weights(tensors, i)) for i, own in enumerate(convert))
        return {name: tensors[name] for name in self.outside} | with_layer_names(parts)

    def _ordered(self, tensors: Weights, convert: Sequence[Convert]) -> Weights:
        found = self._each(tensors, convert)
        return {name: found[name].copy() for name in self._canonical_names}


T = TypeVar("T")


def with_layer_names(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """Join the tensors of all layers under names such as `layer0.w_ih`."""
    return {
        f"layer{i}.{name}": tensor
        for i, part in enumerate(parts)
        for name, tensor in part.items()
    }
