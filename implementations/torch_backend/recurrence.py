"""A recurrence and its gradient, each as one scan over time.

If torch differentiates `scan`, it keeps a copy of every matrix for each time step and
adds up the matrices' gradients inside its loop. Here the backward loop carries only the
gradient of the state; all other gradients are computed from it, for all time steps at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops import scan

from harness.contract import Cell, Equations
from implementations.torch_backend.loop import Operations, State

Weights = Mapping[str, Tensor]
Tensors = tuple[Tensor, ...]

_vjp: Any = torch.func.vjp  # what it returns depends on its arguments' values


class _Collecting(Operations):
    """Keeps the matrices of the products, and returns zeros for the products."""

    def __init__(self) -> None:
        self.matrices: list[Tensor] = []

    def products(self, w: Tensor, v: Tensor) -> Sequence[Tensor]:
        # Cloned, because a scan refuses two inputs in the same memory: a matrix and
        # its weight.
        self.matrices.append(w.flatten(0, 1).clone())
        return v.new_zeros(len(v), len(self.matrices[-1])).chunk(len(w), dim=1)


class _Recorded(Operations):
    """Takes each product from a function, and keeps what was multiplied and found.

    Args:
        product: Called with the number of the product in the equations and a vector.
    """

    def __init__(self, product: Callable[[int, Tensor], Tensor]) -> None:
        self._product = product
        self.multiplied: list[Tensor] = []
        self.found: list[Tensor] = []

    def products(self, w: Tensor, v: Tensor) -> Sequence[Tensor]:
        self.found.append(self._product(len(self.multiplied), v))
        self.multiplied.append(v)
        return self.found[-1].chunk(len(w), dim=1)


def _computed(matrices: Sequence[Tensor]) -> _Recorded:
    """Return operations that multiply with matrices collected before."""
    return _Recorded(lambda i, v: nn.functional.linear(v, matrices[i]))


class _Names(dict[str, Tensor]):
    """Weights that record which of them are used."""

    def __init__(self, w: Weights) -> None:
        super().__init__(w)
        self.asked: dict[str, None] = {}

    def __getitem__(self, name: str) -> Tensor:
        self.asked[name] = None
        return super().__getitem__(name)


@dataclass(frozen=True)
class Recurrence:
    """Equations over time; methods are pure functions of tensors, which get compiled.

    Every method takes the weights that the equations use, a = W x + b of all gates
    [time, batch, gates * hidden] and the state before, parts [batch, hidden].
    """

    equations: Equations
    gates: tuple[str, ...]

    def used(self, cell: Cell, input_size: int, hidden_size: int) -> tuple[str, ...]:
        """Return the names of the weights that the equations use."""
        shapes = cell.weight_shapes(input_size, hidden_size)
        names = _Names({name: torch.zeros(shape) for name, shape in shapes.items()})
        a = torch.zeros(1, len(self.gates) * hidden_size)
        state = tuple(torch.zeros(1, hidden_size) for _ in cell.info.state_parts)
        self._advance(_Collecting(), names, a, state)
        return tuple(names.asked)

    def run(self, w: Weights, a: Tensor, state: State) -> tuple[Tensor, State]:
        """Return outputs [time, batch, hidden] and the state after."""
        matrices = self._matrices(w, a[0], state)

        def combine(state: State, at_t: Tensors) -> tuple[State, Tensors]:
            (a_t,) = at_t
            after = self._advance(_computed(matrices), w, a_t, state)
            return after, _clones(after[:1])

        after, (outputs,) = _scan(combine, _clones(state), (a,))
        return outputs, after

    def trace(
        self, w: Weights, a: Tensor, state: State
    ) -> tuple[State, State, Tensors]:
        """Return the state after, and what the backward pass needs.

        It needs the state after every time step, parts [time, batch, hidden], and the
        results of the equations' products, [time, batch, size] each.
        """
        matrices = self._matrices(w, a[0], state)

        def combine(state: State, at_t: Tensors) -> tuple[State, Tensors]:
            (a_t,) = at_t
            operations = _computed(matrices)
            after = self._advance(operations, w, a_t, state)
            return after, (*_clones(after), *operations.found)

        after, kept = _scan(combine, _clones(state), (a,))
        return after, kept[: len(after)], kept[len(after) :]

    def backward(
        self,
        w: Weights,
        a: Tensor,
        state: State,
        states: State,
        products: Tensors,
        d_outputs: tuple[Tensor],
        d_after: State,
    ) -> tuple[Tensor, State, dict[str, Tensor], dict[str, Tensor]]:
        """Return gradients for a, the state before and the weights.

        The gradients of the weights are in two dictionaries, whose entries are added:
        the first is of weights in matrices and of those with several axes, the second
        of vectors, in rows [time * batch, hidden] that are still to be summed.

        Args:
            w: The weights.
            a: W x + b.
            state: The state before.
            states: As `trace` returned them.
            products: As `trace` returned them.
            d_outputs: Gradient of the outputs.
            d_after: Gradient of the state after.
        """
        matrices = self._matrices(w, a[0], state)
        before = tuple(
            torch.cat([first[None], after[:-1]])
            for first, after in zip(state, states, strict=True)
        )

        def combine(d_state: State, at_t: Tensors) -> tuple[State, Tensors]:
            d_output, a_t, *rest = at_t
            before_t, products_t = tuple(rest[:parts]), tuple(rest[parts:])
            d_state = (d_state[0] + d_output, *d_state[1:])
            _, d_before_t, *_ = self._pull(
                w, matrices, a_t, before_t, products_t, d_state
            )
            return d_before_t, _clones(d_state)

        parts = len(state)
        d_before, d_states = _scan(
            combine, d_after, (*d_outputs, a, *before, *products), reverse=True
        )
        # All time steps become the rows of one batch. A vector is repeated in each row,
        # so that its gradient is summed outside: precisely, for any number of rows.
        rows = a.shape[0] * a.shape[1]
        vectors = {n: v.expand(rows, -1) for n, v in w.items() if v.ndim == 1}
        d_a, _, d_products, d_weights, multiplied = self._pull(
            {**w, **vectors},
            matrices,
            a.flatten(0, 1),
            _rows(before),
            _rows(products),
            _rows(d_states),
        )
        d_matrices = tuple(
            d.t() @ v for d, v in zip(d_products, multiplied, strict=True)
        )
        in_rows = {n: d_weights[n] for n in vectors}
        d_w = {n: d for n, d in d_weights.items() if n not in vectors}
        if matrices:
            _, pull = _vjp(lambda w: self._matrices(w, a[0], state), w)
            (d_of_matrices,) = pull(d_matrices)
            d_w = {n: d_w[n] + d if n in d_w else d for n, d in d_of_matrices.items()}
        return d_a.view_as(a), d_before, d_w, in_rows

    # --- one time step ---------------------------------------------------------------

    def _advance(
        self, operations: Operations, w: Weights, a: Tensor, state: State
    ) -> State:
        return self.equations(operations, w, a.chunk(len(self.gates), dim=1), state)

    def _matrices(self, w: Weights, a: Tensor, state: State) -> Tensors:
        operations = _Collecting()
        self._advance(operations, w, a, state)
        return tuple(operations.matrices)

    def _pull(
        self,
        w: Weights,
        matrices: Sequence[Tensor],
        a: Tensor,
        state: State,
        products: Tensors,
        d_after: State,
    ) -> tuple[Tensor, State, Tensors, Weights, Tensors]:
        """Pull the gradient of the state after one time step back through it.

        Returns:
            Gradients for a, the state before, the products and the weights, and the
            vectors that the products multiplied.
        """

        def step(
            a: Tensor, state: State, products: Tensors, w: Weights
        ) -> tuple[State, Tensors]:
            operations = _Recorded(lambda i, _: products[i])
            after = self._advance(operations, w, a, state)
            return after, tuple(operations.multiplied)

        (_, multiplied), pull = _vjp(step, a, state, products, w)
        d_multiplied = [torch.zeros_like(v) for v in multiplied]
        # A product may enter later products, so the last one's gradient comes first.
        for i in reversed(range(len(matrices))):
            d_products = pull((d_after, tuple(d_multiplied)))[2]
            d_multiplied[i] = d_products[i] @ matrices[i]
        d_a, d_state, d_products, d_w = pull((d_after, tuple(d_multiplied)))
        return d_a, d_state, d_products, d_w, multiplied


def _scan(
    combine: Callable[[State, Tensors], tuple[State, Tensors]],
    state: State,
    in_time: Tensors,
    *,
    reverse: bool = False,
) -> tuple[State, Tensors]:
    """Return the last state, and the second result of `combine` in every time step."""
    if torch.compiler.is_compiling():
        last, found = scan(combine, state, in_time, reverse=reverse)
        return last, found
    # torch's scan does not run in code that is not compiled.
    steps = []
    times = range(len(in_time[0]))
    for t in reversed(times) if reverse else times:
        state, at_t = combine(state, tuple(tensor[t] for tensor in in_time))
        steps.append(at_t)
    if reverse:
        steps.reverse()
    return state, tuple(torch.stack(found) for found in zip(*steps, strict=True))


def _clones(parts: State) -> State:
    """Copy tensors: what a scan carries and what it stacks must not share memory."""
    return tuple(part.clone() for part in parts)


def _rows(parts: Tensors) -> Tensors:
    return tuple(part.flatten(0, 1) for part in parts)
