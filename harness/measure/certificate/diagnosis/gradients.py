"""What was done to a gradient whose outputs are right."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np

from harness.contract import Array, Batch, State, TrainableNetwork, Weights
from harness.measure.certificate.diagnosis.changed_steps import (
    ChangedWayBack,
    NoWayThroughGates,
    unchanged,
)
from harness.measure.certificate.diagnosis.evidence import (
    Found,
    common_factor,
    disagreeing,
    listed,
    most_telling,
    without_hypothesis,
)
from harness.measure.certificate.shapes import PAIRWISE, Shape
from harness.measure.certificate.subject import (
    LARGE_COTANGENT,
    Pair,
    Steps,
    Subject,
    random_batch,
    weight_points,
)
from harness.measure.problem import Basis

TRUNCATIONS = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 35, 40, 50, 64)
BOUNDS = tuple(m * 10.0**e for e in range(-3, 3) for m in (1, 2, 5))
"""Numbers a person might bound a gradient by."""

MATCHES = 10
"""Tolerances within which a hypothesis agrees: without a part of it a gradient may be
smaller, and its rounding is then a larger share."""


@dataclass(frozen=True)
class _Case:
    """One pull of cotangents back, through the network on trial or a changed cell."""

    subject: Subject
    pair: Pair
    weights: Weights
    batch: Batch
    state: State
    d_outputs: Array

    def of(self, network: TrainableNetwork) -> Found:
        """Return the gradients of weights, inputs and initial state."""
        d_final = tuple(np.zeros(part.shape, np.float32) for part in self.state)
        placed = network.place(self.batch)
        found = network.vjp(placed, self.state, self.d_outputs, d_final)
        names = self.pair.cell.info.state_parts
        parts = zip(names, found.state, strict=True)
        states = {f"the initial state {name}": part for name, part in parts}
        return {**found.weights, "the inputs": found.inputs, **states}

    def around(self, steps: Steps) -> Found:
        """Return the gradients of the reference with changed time steps."""
        changed = self.subject.oracle_around(self.pair.spec, steps)
        changed.load_weights(self.weights)
        return self.of(changed)


@dataclass(frozen=True)
class GradientCause:
    """A likely cause, and the tensors whose gradients it explains.

    Attributes:
        words: For people.
        tensors: Names as in `_Case.of`: "layer0.w_hh", "the initial state h".
    """

    words: str
    tensors: tuple[str, ...]

    @property
    def checks(self) -> set[str]:
        """The checks of these gradients."""
        return {_check(name) for name in self.tensors}

    @property
    def of_weights(self) -> bool:
        """Whether a weight is among them: a wrong loss gradient and update follow."""
        return _any_weight(self.tensors)


def gradient_cause(subject: Subject, tolerance: float) -> GradientCause | None:
    """Return the likely cause of wrong gradients, None where it cannot be told."""
    worst = _worst(subject, tolerance)
    if worst is None:
        return None
    case, found, expected, wrong = worst
    again = case.of(cast(TrainableNetwork, case.pair.network))
    explained = tuple(found if _any_weight(wrong) else wrong)
    words = without_hypothesis(found, again, tolerance, "the gradient of ")
    if words is not None:
        return GradientCause(words, explained)
    missing = [name for name in wrong if not np.any(found[name])]
    if missing != wrong:
        words = _matching(case, found, tolerance)
        if words is not None:
            return GradientCause(words, explained)
    if missing:
        words = f"no gradient reaches {listed(missing)}"
        return GradientCause(words, tuple(missing))
    factor = common_factor([(found[n], expected[n]) for n in wrong], tolerance)
    if factor is not None:
        words = f"the gradient of {listed(wrong)} is {factor:.4g} times the reference"
        return GradientCause(words, tuple(wrong))
    return None


def _worst(
    subject: Subject, tolerance: float
) -> tuple[_Case, Found, Found, list[str]] | None:
    """Return the call where most checks disagree, of equal ones the most telling.

    Where a gradient fades, a cut shows in the initial state alone, as if that were
    detached; at another shape it shows in the weights as well. Padded sequences come
    last: a layer may be called once for each length, and what is wrong at the start of
    a call then shows within them.
    """
    worst, most, padded = None, 0, False
    for shape in most_telling(PAIRWISE, long=True):
        if worst is not None and shape.padded != padded:
            break
        padded = shape.padded
        case = _case(subject, shape)
        found = case.of(cast(TrainableNetwork, case.pair.network))
        expected = case.of(case.pair.oracle)
        wrong = disagreeing(found, expected, tolerance)
        count = len({_check(name) for name in wrong})
        if count > most:
            worst, most = (case, found, expected, wrong), count
        if all(n in wrong or n.startswith("readout.") for n in found):
            break
    return worst


def _check(tensor: str) -> str:
    """Return the check that a tensor's gradient belongs to."""
    if tensor.startswith("the initial state"):
        return "grad initial state"
    if tensor.startswith("layer"):
        return f"grad {tensor.partition('.')[2]}"
    return f"grad {tensor.removeprefix('the ')}"


def _any_weight(tensors: Iterable[str]) -> bool:
    return not all(name.startswith("the ") for name in tensors)


def _case(subject: Subject, shape: Shape) -> _Case:
    pair = subject.pair(shape)
    rng = np.random.default_rng(0)
    batch = random_batch(shape, rng)
    # The longer memory shows better where a gradient was cut.
    *_, weights = weight_points(pair.spec, pair.cell, 0)
    weights = pair.load(weights)
    state = pair.state(rng)
    d_outputs = rng.standard_normal((*batch.scored.shape, pair.spec.output_size))
    d_outputs = (LARGE_COTANGENT * d_outputs).astype(np.float32)
    return _Case(subject, pair, weights, batch, state, d_outputs)


def _matching(case: _Case, found: Found, tolerance: float) -> str | None:
    for cause, steps in _hypotheses(case, found):
        if not disagreeing(found, case.around(steps), MATCHES * tolerance):
            return cause
    return None


def _hypotheses(case: _Case, found: Found) -> Iterator[tuple[str, Steps]]:
    """Yield mistakes with the time steps they make, the simple ones first."""
    steps = case.subject.steps()
    back = partial(ChangedWayBack, steps, case.batch.time_steps)
    for every in TRUNCATIONS:
        words = f"the gradient is truncated every {every} time steps"
        if every == 1:
            words = "no gradient flows through time: the state is detached in each step"
        for start in (False, True):  # whether the initial state is detached as well
            yield words, back(unchanged, partial(_cut, every=every, start=start))
    names = case.pair.cell.info.state_parts
    for k, name in enumerate(names):
        if len(names) > 1:
            words = f"no gradient flows through time in {name}"
            yield words, back(unchanged, partial(_without_part, part=k))
    yield from _blind_gates(case, steps)
    for words, bounded in _bounds(case, found):
        # Of all that reaches a state, or of what a time step hands to the one before.
        yield words, back(bounded, unchanged)
        yield words, back(unchanged, bounded)


def _cut(t: int, before: State, every: int, start: bool) -> State:
    if t % every == 0 and (start or t > 0):
        return tuple(np.zeros_like(part) for part in before)
    return before


def _without_part(_: int, before: State, part: int) -> State:
    return tuple(np.zeros_like(d) if i == part else d for i, d in enumerate(before))


def _blind_gates(case: _Case, steps: Steps) -> Iterator[tuple[str, Steps]]:
    info = case.pair.cell.info
    gates = range(len(info.gates))
    if len(gates) == 1 or case.subject.basis is not Basis.REFERENCE:
        return
    for count in gates[1:]:
        for chosen in itertools.combinations(gates, count):
            names = listed([info.gates[k] for k in chosen])
            words = f"matches if no gradient flows through {names}"
            yield words, NoWayThroughGates(steps, info, chosen)


# --- bounds --------------------------------------------------------------------------

_BOUNDED = "matches if the gradient to the state is {} in each time step"


def _bounds(case: _Case, found: Found) -> Iterator[tuple[str, partial[State]]]:
    """Yield bounds on the gradient to the state, inside time.

    A bound is a round number, or what the gradient to the initial state shows of it.
    """
    names = case.pair.cell.info.state_parts
    states = [found[f"the initial state {name}"] for name in names]
    largest = max(float(np.abs(part).max()) for part in states)
    norm = float(np.linalg.norm(states[0]))
    for bound in (largest, *BOUNDS):
        words = f"clamped to ±{bound:.4g}"
        yield _BOUNDED.format(words), partial(_clamped, bound=bound)
    for bound in (norm, *BOUNDS):
        words = f"clipped to norm {bound:.4g}"
        yield _BOUNDED.format(words), partial(_clipped, bound=bound)


def _clamped(_: int, d_state: State, bound: float) -> State:
    return tuple(np.clip(d, -bound, bound) for d in d_state)


def _clipped(_: int, d_state: State, bound: float) -> State:
    norms = [float(np.linalg.norm(d)) for d in d_state]
    return tuple(
        d * (bound / norm) if norm > bound else d
        for d, norm in zip(d_state, norms, strict=True)
    )
