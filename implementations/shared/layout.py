"""Canonical weights to the layouts that layers keep them in, and back.

A layout may hold a redundant bias: a second one whose sum with the first is all that
matters. In `canonical` mode it stays zero and is not trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from harness.contract import Array, Cell, Weights, layer_weights
from harness.errors import PluginError

Shapes = Mapping[str, tuple[int, ...]]


class Layout(Protocol):
    """How one layer keeps the canonical weights of its cell.

    Attributes:
        shapes: The layer's own tensors.
        needed: For tensors with redundant entries, 1 where an entry is not redundant.
    """

    shapes: Shapes
    needed: Weights

    def from_canonical(self, weights: Weights) -> Weights:
        """Return the layer's tensors; redundant entries are zero."""

    def values(self, tensors: Mapping[str, Array]) -> Weights:
        """Return canonical weights: a redundant bias is added to its twin."""

    def gradients(self, tensors: Mapping[str, Array]) -> Weights:
        """Return canonical gradients, or moments; redundant biases' drop out."""


LayoutOf = Callable[[Cell, int, int], Layout]
"""Makes a layout of (cell, input_size, hidden_size)."""


class CanonicalLayout:
    """The canonical tensors under their own names."""

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


class GateLayout:
    """Matrices and biases of all gates stacked: what torch and Keras have in common."""

    def __init__(self, cell: Cell, input_size: int, hidden_size: int) -> None:
        self._canonical_shapes = cell.weight_shapes(input_size, hidden_size)
        self._gates = cell.info.gates
        self._hidden_size = hidden_size

    def second_bias(self, weights: Weights) -> Array:
        """Return the bias beside U h, [gates, hidden]: `b_hn`, else zero."""
        second = np.zeros((len(self._gates), self._hidden_size), weights["b"].dtype)
        if "b_hn" in weights:
            second[self._gates.index("n")] = weights["b_hn"]
        return second

    def _second_needed(self) -> Array:
        needed = np.zeros((len(self._gates), self._hidden_size), bool)
        if "b_hn" in self._canonical_shapes:
            needed[self._gates.index("n")] = True
        return needed

    def collect(self, w_ih: Array, w_hh: Array, b: Array, second: Array) -> Weights:
        """Return canonical tensors of those of all gates, in canonical order."""
        found = {"w_ih": w_ih, "w_hh": w_hh, "b": b}
        if "b_hn" in self._canonical_shapes:
            found["b_hn"] = second[self._gates.index("n")]
        return {
            name: np.ascontiguousarray(found[name]).reshape(shape)
            for name, shape in self._canonical_shapes.items()
        }


class TorchLayout(GateLayout):
    """The layout of `nn.RNN`, `nn.GRU` and `nn.LSTM`.

    The gates are stacked into one axis, in canonical order. Every gate has two biases,
    `bias_ih` and `bias_hh`. Only their sum matters, but for the GRU's candidate, whose
    `bias_hh` stands inside the product with the reset gate.
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int) -> None:
        super().__init__(cell, input_size, hidden_size)
        rows = len(self._gates) * hidden_size
        self.shapes: Shapes = {
            "weight_ih_l0": (rows, input_size),
            "weight_hh_l0": (rows, hidden_size),
            "bias_ih_l0": (rows,),
            "bias_hh_l0": (rows,),
        }
        self.needed: Weights = {"bias_hh_l0": self._second_needed().reshape(-1)}

    def from_canonical(self, weights: Weights) -> Weights:
        """Return torch's four tensors; the redundant bias is zero."""
        tensors = (
            weights["w_ih"],
            weights["w_hh"],
            weights["b"],
            self.second_bias(weights),
        )
        return {
            name: tensor.reshape(shape)
            for (name, shape), tensor in zip(self.shapes.items(), tensors, strict=True)
        }

    def values(self, tensors: Mapping[str, Array]) -> Weights:
        """Return canonical weights: the two biases of a gate are summed."""
        redundant = np.where(self.needed["bias_hh_l0"], 0, tensors["bias_hh_l0"])
        return self._canonical(tensors, tensors["bias_ih_l0"] + redundant)

    def gradients(self, tensors: Mapping[str, Array]) -> Weights:
        """Return canonical gradients, or moments: those of the first bias."""
        return self._canonical(tensors, tensors["bias_ih_l0"])

    def _canonical(self, tensors: Mapping[str, Array], bias: Array) -> Weights:
        second = tensors["bias_hh_l0"].reshape(len(self._gates), -1)
        return self.collect(
            tensors["weight_ih_l0"], tensors["weight_hh_l0"], bias, second
        )


class KerasLayout(GateLayout):
    """The layout of Keras' `SimpleRNN`, `GRU` and `LSTM`.

    Matrices are transposed, with the gates side by side; the GRU's come in the order z,
    r, n. A GRU with the reset after the product has two biases a gate, `bias` [2,
    gates * hidden], every other layer one.
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int) -> None:
        super().__init__(cell, input_size, hidden_size)
        # Exchanging r and z is its own inverse.
        self._order = [1, 0, 2] if self._gates == ("r", "z", "n") else slice(None)
        columns = len(self._gates) * hidden_size
        self._two_biases = "b_hn" in self._canonical_shapes
        self.shapes: Shapes = {
            "kernel": (input_size, columns),
            "recurrent_kernel": (hidden_size, columns),
            "bias": (2, columns) if self._two_biases else (columns,),
        }
        self.needed: Weights = {}
        if self._two_biases:
            second = self._second_needed()[self._order].reshape(-1)
            self.needed = {"bias": np.stack([np.ones_like(second), second])}

    def hint(self, found: Shapes) -> str:
        """Return what to do about a GRU of the cell's other form, or ""."""
        columns = self.shapes["recurrent_kernel"][1]
        forms = {(columns,): False, (2, columns): True}
        reset_after = forms.get(found.get("bias", ()))
        if self._gates != ("r", "z", "n") or reset_after in (None, self._two_biases):
            return ""
        other = "gru" if reset_after else "gru-reset-before"
        return (
            f"; a GRU with reset_after={reset_after} computes the cell {other}: "
            f"declare it for that one, or give it reset_after={not reset_after}"
        )

    def from_canonical(self, weights: Weights) -> Weights:
        """Return Keras' three tensors; the redundant bias is zero."""
        bias = weights["b"][self._order].reshape(-1)
        if self._two_biases:
            second = self.second_bias(weights)[self._order].reshape(-1)
            bias = np.stack([bias, second])
        return {
            "kernel": self._side_by_side(weights["w_ih"]),
            "recurrent_kernel": self._side_by_side(weights["w_hh"]),
            "bias": bias,
        }

    def _side_by_side(self, matrices: Array) -> Array:
        ordered = matrices[self._order]
        return np.ascontiguousarray(ordered.reshape(-1, ordered.shape[-1]).T)

    def _by_gate(self, tensor: Array) -> Array:
        """Return [gates, hidden, …] in canonical order of [gates * hidden, …]."""
        shape = (len(self._gates), self._hidden_size, *tensor.shape[1:])
        by_gate: Array = tensor.reshape(shape)[self._order]
        return by_gate

    def values(self, tensors: Mapping[str, Array]) -> Weights:
        """Return canonical weights: the two biases of a gate are summed."""
        bias = tensors["bias"]
        if self._two_biases:
            bias = bias[0] + np.where(self.needed["bias"][1], 0, bias[1])
        return self._canonical(tensors, bias)

    def gradients(self, tensors: Mapping[str, Array]) -> Weights:
        """Return canonical gradients, or moments: those of the first bias."""
        bias = tensors["bias"]
        return self._canonical(tensors, bias[0] if self._two_biases else bias)

    def _canonical(self, tensors: Mapping[str, Array], bias: Array) -> Weights:
        second = tensors["bias"][1] if self._two_biases else bias
        return self.collect(
            self._by_gate(tensors["kernel"].T),
            self._by_gate(tensors["recurrent_kernel"].T),
            self._by_gate(bias),
            self._by_gate(second),
        )


def layout_of(
    found: Shapes,
    stock: LayoutOf,
    cell: Cell,
    input_size: int,
    hidden_size: int,
    layer: str,
) -> Layout:
    """Return the layout of a layer: the canonical one, or its framework's stock one.

    Args:
        found: The layer's parameters.
        stock: The layout of the framework's own layers.
        cell: What the layer computes.
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
        if isinstance(layout, KerasLayout):
            hint = layout.hint(found)
    for name, shape in layout.shapes.items():
        if found.get(name) != shape:
            what = f"has shape {found[name]}" if name in found else "is missing"
            raise PluginError(
                layer, f"parameter '{name}' {what}; expected shape {shape}{hint}"
            )
    for name in found:
        if name not in layout.shapes:
            raise PluginError(
                layer,
                f"parameter '{name}' is unknown; expected {', '.join(layout.shapes)}",
            )
    return layout


class NetworkLayout:
    """The layouts of all layers, with the tensors that belong to none.

    Names are `layer0.weight_ih_l0` inside a layer, `readout.w` and `embedding` outside.

    Attributes:
        outside: Shapes of the tensors outside every layer.
        shapes: Shapes of all tensors as the network keeps them.
        needed: As `Layout.needed`, under the network's names.
    """

    def __init__(self, canonical_shapes: Shapes, layouts: Sequence[Layout]) -> None:
        self._canonical_names = tuple(canonical_shapes)
        self._layouts = layouts
        self.outside = {
            name: shape
            for name, shape in canonical_shapes.items()
            if not name.startswith("layer")
        }
        self.shapes: Shapes = {**self.outside, **_joined(x.shapes for x in layouts)}
        self.needed: Weights = _joined(x.needed for x in layouts)

    def from_canonical(self, weights: Weights) -> Weights:
        """Return every tensor as the network keeps it."""
        parts = (
            layout.from_canonical(layer_weights(weights, i))
            for i, layout in enumerate(self._layouts)
        )
        return {name: weights[name] for name in self.outside} | _joined(parts)

    def values(self, tensors: Weights) -> Weights:
        """Return canonical weights, in canonical order."""
        parts = (
            layout.values(layer_weights(tensors, i))
            for i, layout in enumerate(self._layouts)
        )
        return self._ordered(tensors, parts)

    def gradients(self, tensors: Weights) -> Weights:
        """Return canonical gradients, or moments, in canonical order."""
        parts = (
            layout.gradients(layer_weights(tensors, i))
            for i, layout in enumerate(self._layouts)
        )
        return self._ordered(tensors, parts)

    def _ordered(self, tensors: Weights, parts: Iterable[Weights]) -> Weights:
        found = {name: tensors[name] for name in self.outside} | _joined(parts)
        return {name: found[name].copy() for name in self._canonical_names}


T = TypeVar("T")


def _joined(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """Put the name of its layer before every tensor's."""
    return {
        f"layer{i}.{name}": tensor
        for i, part in enumerate(parts)
        for name, tensor in part.items()
    }
