"""Mistakes in the derivatives of a time step whose values are right.

A backward step computes the cell's equations once more, with the values of the forward
step. Each mistake puts another value or another slope into the derivatives alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations
from typing import NamedTuple

import numpy as np

from harness.contract import Array, CellInfo, Equations, Saved, State, Weights
from harness.measure.equations import EquationSteps, Operations, Traced

Slope = Callable[[Array], Array]
"""The derivative of an activation, from its value."""

SLOPES: Mapping[str, Slope] = {
    "sigmoid": lambda s: s * (1 - s),
    "tanh": lambda t: 1 - t * t,
}
# The derivative once more, or the derivative at the value in place of the argument.
AGAIN: Mapping[str, Sequence[Slope]] = {
    "sigmoid": (
        lambda s: (s * (1 - s)) ** 2,
        lambda s: 0.25 / np.cosh(s / 2) ** 2,
    ),
    "tanh": (lambda t: (1 - t * t) ** 2, lambda t: 1 - np.tanh(t) ** 2),
}


@dataclass
class Recording(Operations):
    """Operations that keep every activation in order: its kind, argument and value."""

    kinds: list[str] = field(default_factory=list)
    arguments: list[Traced] = field(default_factory=list)
    found: list[Traced] = field(default_factory=list)

    def sigmoid(self, a: Traced) -> Traced:
        """Compute the logistic function, and keep it."""
        return self._kept("sigmoid", a, super().sigmoid(a))

    def tanh(self, a: Traced) -> Traced:
        """Compute the hyperbolic tangent, and keep it."""
        return self._kept("tanh", a, super().tanh(a))

    def _kept(self, kind: str, a: Traced, found: Traced) -> Traced:
        self.kinds.append(kind)
        self.arguments.append(a)
        self.found.append(found)
        return found

    @property
    def values(self) -> list[Array]:
        """The value of every activation."""
        return [traced.value for traced in self.found]


@dataclass
class Replaying(Operations):
    """Operations of a backward step, with the values of the forward step.

    Attributes:
        values: What each activation gave in the forward step.
        inside: What other derivatives take for the value of an activation, by number.
        slopes: The slope of an activation, by number, if it is not the right one.
        new: By the identity of a part of the state before: what the gradient of a
            matrix takes in its place.
    """

    values: Sequence[Array]
    inside: Mapping[int, Array] = field(default_factory=dict)
    slopes: Mapping[int, Array] = field(default_factory=dict)
    new: Mapping[int, Array] = field(default_factory=dict)
    _taken: int = 0

    def sigmoid(self, a: Traced) -> Traced:
        """Return the value of the forward step, or another."""
        return self._replayed(a, "sigmoid")

    def tanh(self, a: Traced) -> Traced:
        """Return the value of the forward step, or another."""
        return self._replayed(a, "tanh")

    def _replayed(self, a: Traced, kind: str) -> Traced:
        k, self._taken = self._taken, self._taken + 1
        slope = self.slopes.get(k)
        right = SLOPES[kind](self.values[k]) if slope is None else slope
        return Traced(self.inside.get(k, self.values[k]), (a, lambda d: d * right))

    def products(self, w: Traced, v: Traced) -> Sequence[Traced]:
        """Multiply v by w; the gradient of w may take another vector for v."""
        taken = Traced(self.new.get(id(v.value), v.value))
        # One product pulls back to v alone, the other to w alone.
        of_v = super().products(Traced(w.value), v)
        of_w = super().products(w, taken)
        return [
            Traced(a.value, *a.ways, *b.ways) for a, b in zip(of_v, of_w, strict=True)
        ]


@dataclass(frozen=True)
class Forward:
    """What a forward step leaves for a backward step with a mistake."""

    kinds: Sequence[str]
    values: Sequence[Array]
    before: State
    after: State


Change = Callable[[Forward], Replaying]
"""Returns the operations of a backward step that makes a mistake."""


@dataclass(frozen=True)
class ChangedDerivatives:
    """A cell's equations with a mistake in the backward step."""

    equations: Equations
    info: CellInfo
    change: Change

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """Compute the equations."""
        recording = Recording()
        after, _ = _steps(self, recording).step(weights, x, state)
        found = Forward(recording.kinds, recording.values, state, after)
        return after, (x, found)

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """Pull the gradient back through the equations, with the mistake."""
        x, found = saved
        steps = _steps(self, self.change(found))
        _, kept = steps.step(weights, x, found.before)
        return steps.step_backward(weights, kept, d_state)


def _steps(cell: ChangedDerivatives, operations: Operations) -> EquationSteps:
    return EquationSteps(lambda _, *rest: cell.equations(operations, *rest), cell.info)


# --- mistakes ------------------------------------------------------------------------


def changed_derivatives(
    equations: Equations, info: CellInfo, weights: Weights, x: Array, state: State
) -> Iterator[tuple[str, ChangedDerivatives]]:
    """Yield mistakes in the derivatives; a mistake may come in several forms.

    Args:
        equations: The right equations.
        info: Names the gates.
        weights: Of one layer, with which the equations are tried once.
        x: An input of that layer [batch, input].
        state: A state of that layer.
    """
    kinds, names = _activations(equations, info, weights, x, state)
    numbers = range(len(kinds))
    changes: list[tuple[str, Change]] = [
        ("matches if h_t stands for h_t-1 in the gradient of the matrices", _late)
    ]
    for kind in dict.fromkeys(kinds):
        every = [k for k in numbers if kinds[k] == kind]
        for ks in [every, *([k] for k in every if len(every) > 1)]:
            of = kind if ks == every else names[ks[0]].derivative
            for again in AGAIN[kind]:
                words = f"matches if the derivative of {of} is taken twice"
                changes.append((words, partial(_sloped, ks, again)))
            words = f"matches if the derivative of {of} is left out"
            changes.append((words, partial(_sloped, ks, np.ones_like)))
    for i, j in permutations(numbers, 2):
        words = (
            f"matches if {names[i].value} stands for {names[j].value} in the gradient"
        )
        for inside, slope in ((True, False), (False, True), (True, True)):
            changes.append((words, partial(_replaced, i, j, inside, slope)))
    for words, change in changes:
        yield words, ChangedDerivatives(equations, info, change)


def _late(found: Forward) -> Replaying:
    new = {id(a): b for a, b in zip(found.before, found.after, strict=True)}
    return Replaying(found.values, new=new)


def _sloped(ks: Sequence[int], slope: Slope, found: Forward) -> Replaying:
    return Replaying(found.values, slopes={k: slope(found.values[k]) for k in ks})


def _replaced(i: int, j: int, inside: bool, slope: bool, found: Forward) -> Replaying:
    """Take the value of activation i for that of j, inside products or in its slope."""
    other = found.values[i]
    return Replaying(
        found.values,
        inside={j: other} if inside else {},
        slopes={j: SLOPES[found.kinds[j]](other)} if slope else {},
    )


class _Name(NamedTuple):
    """What an activation is called: "g", "g's tanh"; "tanh of c", "tanh of c"."""

    value: str
    derivative: str


def _activations(
    equations: Equations, info: CellInfo, weights: Weights, x: Array, state: State
) -> tuple[list[str], list[_Name]]:
    """Return the kind of every activation, and what it is called."""
    recording, entered, ended = Recording(), list[Traced](), dict[str, object]()

    def noting(ops: object, w: object, a: Sequence[Traced], before: object) -> object:
        entered.extend(a)
        after = equations(recording, w, a, before)  # type: ignore[arg-type]
        ended.update(zip(info.state_parts, after, strict=True))
        return after

    EquationSteps(noting, info).step(weights, x, state)  # type: ignore[arg-type]
    names = []
    for number, argument in enumerate(recording.arguments, 1):
        reached = _reached(argument, stop=recording.found)
        gates = [info.gates[k] for k, a in enumerate(entered) if a in reached]
        parts = [part for part, a in ended.items() if a is argument]
        kind = recording.kinds[number - 1]
        if len(gates) == 1:
            names.append(_Name(gates[0], f"{gates[0]}'s {kind}"))
        else:
            of = parts[0] if parts else f"activation {number}"
            names.append(_Name(f"{kind} of {of}", f"{kind} of {of}"))
    return recording.kinds, names


def _reached(traced: Traced, stop: Sequence[Traced]) -> set[Traced]:
    """Return what an array is computed from, not looking behind activations."""
    found, waiting = set[Traced](), [traced]
    while waiting:
        one = waiting.pop()
        if one not in found and not any(one is other for other in stop):
            found.add(one)
            waiting += [source for source, _ in one.ways]
    return found
