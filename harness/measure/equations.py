"""A reference for a cell that declares its equations: the equations in NumPy.

Equations are written in operations that every framework has. Here these are NumPy's,
and each records how a gradient passes back through it, so that nobody writes the
gradient of the equations by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.contract import Array, CellInfo, Equations, Saved, State, Weights
from harness.errors import PluginError


class Traced:
    """An array that knows what it was computed from.

    Attributes:
        value: The array.
        ways: Each traced array that it was computed from, with a function that pulls a
            cotangent back to that array. Other operands are constants.
    """

    __array_ufunc__ = None  # a NumPy number times this calls __rmul__ here

    def __init__(
        self, value: Array, *ways: tuple[Any, Callable[[Array], Array]]
    ) -> None:
        self.value = value
        self.ways = [(a, pull) for a, pull in ways if isinstance(a, Traced)]

    def __getitem__(self, place: Any) -> Traced:
        def pull(d: Array) -> Array:
            d_whole = np.zeros_like(self.value)
            d_whole[place] = d
            return d_whole

        return Traced(self.value[place], (self, pull))

    def __neg__(self) -> Traced:
        return Traced(-self.value, (self, np.negative))

    def __add__(self, other: Any) -> Traced:
        return Traced(self.value + _value(other), (self, _same), (other, _same))

    def __sub__(self, other: Any) -> Traced:
        return Traced(self.value - _value(other), (self, _same), (other, np.negative))

    def __mul__(self, other: Any) -> Traced:
        a, b = self.value, _value(other)
        return Traced(a * b, (self, lambda d: d * b), (other, lambda d: d * a))

    def __truediv__(self, other: Any) -> Traced:
        a, b = self.value, _value(other)
        return Traced(a / b, (self, lambda d: d / b), (other, lambda d: -d * a / b**2))

    def __rsub__(self, other: Any) -> Traced:
        return Traced(other - self.value, (self, np.negative))

    def __rtruediv__(self, other: Any) -> Traced:
        return Traced(other / self.value, (self, lambda d: -d * other / self.value**2))

    __radd__ = __add__
    __rmul__ = __mul__


def _same(d: Array) -> Array:
    return d


def _value(operand: Any) -> Any:
    return operand.value if isinstance(operand, Traced) else operand


class Operations:
    """The operations of equations, in NumPy."""

    def sigmoid(self, a: Traced) -> Traced:
        """Compute σ(a), which has the derivative σ (1 - σ)."""
        s = (1 + np.tanh(a.value / 2)) / 2
        return Traced(s, (a, lambda d: d * s * (1 - s)))

    def tanh(self, a: Traced) -> Traced:
        """Compute the hyperbolic tangent, which has the derivative 1 - tanh²."""
        t = np.tanh(a.value)
        return Traced(t, (a, lambda d: d * (1 - t * t)))

    def relu(self, a: Traced) -> Traced:
        """Compute max(a, 0), with the derivative 0 at 0."""
        return Traced(np.maximum(a.value, 0), (a, lambda d: d * (a.value > 0)))

    def products(self, w: Traced, v: Traced) -> Sequence[Traced]:
        """Multiply v [batch, size] by w [gates, hidden, size]: one W v a gate."""
        gates, hidden, size = w.value.shape
        flat = w.value.reshape(-1, size)
        done = Traced(
            v.value @ flat.T,
            (v, lambda d: d @ flat),
            (w, lambda d: (d.T @ v.value).reshape(w.value.shape)),
        )
        return [done[:, k * hidden : (k + 1) * hidden] for k in range(gates)]


@dataclass(frozen=True)
class EquationSteps:
    """One layer's step and backward step, from its cell's equations.

    Args:
        equations: One time step in the operations of any framework.
        info: Names the cell and the parts of its state.
    """

    equations: Equations
    info: CellInfo

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """Advance one time step: x [batch, input], state parts [batch, hidden].

        Raises:
            PluginError: If the equations do not return one array for each state part.
        """
        operations = Operations()
        w = {name: Traced(tensor) for name, tensor in weights.items()}
        entered, before = Traced(x), tuple(map(Traced, state))
        products = operations.products(w["w_ih"], entered)
        a = [product + w["b"][k] for k, product in enumerate(products)]
        try:
            after = self.equations(operations, w, a, before)
        except (AttributeError, TypeError) as error:
            raise PluginError(
                self.info.name,
                f"its equations use what not every framework has ({error}); allowed: "
                "ops.sigmoid, ops.tanh, ops.relu, ops.products, +, -, *, / and slices",
            ) from error
        for wrong in self._wrong(after, state):
            raise PluginError(self.info.name, f"its equations return {wrong}")
        return tuple(part.value for part in after), (w, entered, before, after)

    def _wrong(self, after: object, state: State) -> Iterator[str]:
        """Yield what the equations return instead of one array for each part."""
        names = self.info.state_parts
        if not isinstance(after, tuple) or len(after) != len(state):
            found = len(after) if isinstance(after, tuple) else "no tuple"
            yield f"{found}; expected a tuple of {len(state)} ({', '.join(names)})"
            return
        for name, part, old in zip(names, after, state, strict=True):
            if not isinstance(part, Traced) or part.value.shape != old.shape:
                found = getattr(_value(part), "shape", type(_value(part)).__name__)
                yield f"{found} for {name}; expected {old.shape}"

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """Return gradients with respect to the weights, x and the state before."""
        w, entered, before, after = saved
        gradients = _pulled_back(after, d_state)

        def of(leaf: Traced) -> Array:
            return gradients.get(leaf, np.zeros_like(leaf.value))

        d_weights = {name: of(w[name]) for name in weights}
        return d_weights, of(entered), tuple(map(of, before))


def _pulled_back(
    results: Sequence[Traced], cotangents: Sequence[Array]
) -> dict[Traced, Array]:
    """Return the gradients of all arrays that the results were computed from."""
    gradients: dict[Traced, Array] = {}
    for result, d in zip(results, cotangents, strict=True):
        gradients[result] = gradients.get(result, 0) + d
    for traced in reversed(_in_order(results)):
        if traced not in gradients:
            continue
        for source, pull in traced.ways:
            d_source = _summed_to(source.value.shape, pull(gradients[traced]))
            gradients[source] = gradients.get(source, 0) + d_source
    return gradients


def _in_order(results: Sequence[Traced]) -> list[Traced]:
    """Return all arrays, each after those that it was computed from."""
    order: dict[Traced, None] = {}

    def visit(traced: Traced) -> None:
        if traced not in order:
            for source, _ in traced.ways:
                visit(source)
            order[traced] = None

    for result in results:
        visit(result)
    return list(order)


def _summed_to(shape: tuple[int, ...], d: Array) -> Array:
    """Undo broadcasting: sum a cotangent over the axes that were added or repeated."""
    if d.shape == shape:
        return d
    d = d.sum(axis=tuple(range(d.ndim - len(shape))))
    spread = tuple(i for i, n in enumerate(shape) if n == 1 and d.shape[i] > 1)
    summed: Array = d.sum(axis=spread, keepdims=True)
    return summed
