"""Mistakes with the same effect as other weights: another order, sign, size or bias."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from harness.contract import Array, CellInfo, Weights, layer_weights

EVERY = ("w_ih", "w_hh", "b")
"""The tensors that have one row for each gate."""

Change = Callable[[Weights], Weights]


def changed_weights(info: CellInfo, weights: Weights) -> Iterator[tuple[str, Weights]]:
    """Yield mistakes, simple ones first, and the weights with the same effect."""
    names = dict.fromkeys(n.partition(".")[2] for n in weights if "." in n)
    for words, change in itertools.chain(
        _exchanges(info.gates),
        *(_of_gate(gate, k) for k, gate in enumerate(info.gates)),
        *(_of_tensor(name) for name in names),
        [("matches if w_hh is transposed", _transposed)],
        _orders(info.gates),
    ):
        yield words, of_layers(weights, change)


def of_layers(weights: Weights, change: Change) -> Weights:
    """Apply a change to the tensors of every layer."""
    layers = {n.partition(".")[0] for n in weights if n.startswith("layer")}
    changed = dict(weights)
    for layer in range(len(layers)):
        own = change(layer_weights(weights, layer))
        changed |= {f"layer{layer}.{n}": w for n, w in own.items()}
    return changed


def of_row(
    weights: Weights, gate: int, names: Sequence[str], change: Callable[[Array], Array]
) -> Weights:
    """Apply a change to one gate's row of a layer's tensors."""
    changed = dict(weights)
    for name in names:
        if name in weights and gate < len(weights[name]):
            tensor = weights[name].copy()
            tensor[gate] = change(tensor[gate])
            changed[name] = tensor
    return changed


def _exchanges(gates: Sequence[str]) -> Iterator[tuple[str, Change]]:
    for i, j in itertools.combinations(range(len(gates)), 2):
        order = list(range(len(gates)))
        order[i], order[j] = j, i
        words = f"matches if gates {gates[i]} and {gates[j]} are exchanged"
        yield words, partial(_reordered, order=order)


def _orders(gates: Sequence[str]) -> Iterator[tuple[str, Change]]:
    for order in itertools.permutations(range(len(gates))):
        names = ", ".join(gates[k] for k in order)
        words = f"matches if the gates come in the order {names}"
        yield words, partial(_reordered, order=list(order))


def _of_gate(gate: str, k: int) -> Iterator[tuple[str, Change]]:
    def changed(change: Callable[[Array], Array], *names: str) -> Change:
        return partial(of_row, gate=k, names=names, change=change)

    exchanged = f"matches if {gate} and 1 - {gate} are exchanged"
    yield exchanged, changed(lambda row: -row, *EVERY)
    bias = f"the bias of gate {gate}"
    yield f"matches if {bias} is forgotten", changed(lambda row: 0 * row, "b")
    yield f"matches if {bias} is added twice", changed(lambda row: 2 * row, "b")
    # TensorFlow's first LSTM cells did this with `forget_bias`; Keras does it to the
    # biases that it draws itself with `unit_forget_bias`.
    yield f"matches if 1 is added to {bias}", changed(lambda row: row + 1, "b")
    always = f"matches if {bias} is 1 whatever is loaded"
    yield always, changed(lambda row: 0 * row + 1, "b")


def _of_tensor(name: str) -> Iterator[tuple[str, Change]]:
    def scaled(weights: Weights, scale: float) -> Weights:
        return {n: w * scale if n == name else w for n, w in weights.items()}

    yield f"matches if {name} is forgotten", partial(scaled, scale=0)
    yield f"matches if {name} is added twice", partial(scaled, scale=2)


def _transposed(weights: Weights) -> Weights:
    return {n: w.swapaxes(1, 2) if n == "w_hh" else w for n, w in weights.items()}


def _reordered(weights: Weights, order: list[int]) -> Weights:
    return {
        n: w[order] if n in EVERY and len(w) == len(order) else w
        for n, w in weights.items()
    }
