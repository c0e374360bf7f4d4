"""Which change of the reference gives the outputs and final states that were found."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from harness.contract import (
    Batch,
    CellInfo,
    Network,
    ReferenceCell,
    State,
    Weights,
)
from harness.loading import load_cell, load_equations
from harness.measure.certificate.diagnosis.changed_steps import (
    with_hard_sigmoid,
    with_relu,
)
from harness.measure.certificate.diagnosis.changed_weights import (
    changed_weights,
    of_layers,
)
from harness.measure.certificate.diagnosis.evidence import (
    Found,
    disagreeing,
    most_telling,
    without_hypothesis,
)
from harness.measure.certificate.shapes import PAIRWISE
from harness.measure.certificate.subject import (
    Pair,
    Subject,
    random_batch,
    weight_points,
)
from harness.measure.problem import build_oracle


@dataclass(frozen=True)
class _Case:
    """One call, of the network on trial and of what the reference is changed into."""

    subject: Subject
    pair: Pair
    weights: Weights
    batch: Batch
    state: State

    def of(
        self,
        network: Network,
        batch: Batch | None = None,
        state: State | None = None,
    ) -> Found:
        """Run a network on the batch and from the state, or on others."""
        placed = network.place(batch or self.batch)
        done = network.forward(placed, state or self.state).read()
        parts = zip(self.pair.cell.info.state_parts, done.state, strict=True)
        states = {f"the final state {name}": part for name, part in parts}
        return {"the outputs": done.outputs, **states}

    def oracle(self, weights: Weights | None = None) -> Network:
        """Return the reference with the weights, or with others."""
        self.pair.oracle.load_weights(weights or self.weights)
        return self.pair.oracle


def output_cause(subject: Subject, tolerance: float) -> str | None:
    """Return the likely cause of wrong outputs, None where it cannot be told."""
    for shape in most_telling(PAIRWISE):
        pair = subject.pair(shape)
        rng = np.random.default_rng(0)
        batch = random_batch(shape, rng)
        weights = pair.load(next(weight_points(pair.spec, pair.cell, 0)))
        case = _Case(subject, pair, weights, batch, pair.state(rng))
        found = case.of(pair.network)
        if not disagreeing(found, case.of(pair.oracle), tolerance):
            continue  # what is wrong shows at other shapes alone
        cause = without_hypothesis(found, case.of(pair.network), tolerance)
        return cause or _first_match(case, found, tolerance)
    return None


def _first_match(case: _Case, found: Found, tolerance: float) -> str | None:
    for cause, expected in _hypotheses(case):
        if not disagreeing(found, expected, tolerance):
            return cause
    return None


def _hypotheses(case: _Case) -> Iterator[tuple[str, Found]]:
    """Yield mistakes with what they would give."""
    for cause, weights in changed_weights(case.pair.cell.info, case.weights):
        yield cause, case.of(case.oracle(weights))
    zero = tuple(np.zeros_like(part) for part in case.state)
    yield "the initial state is ignored", case.of(case.oracle(), state=zero)
    if case.batch.padded:
        lengths = np.full(case.batch.size, case.batch.time_steps)
        whole = replace(case.batch, lengths=lengths)
        yield (
            "padding leaks: sequences are run on beyond their end",
            case.of(case.oracle(), batch=whole),
        )
    else:
        inputs = case.batch.inputs[:, ::-1].copy()
        backwards = replace(case.batch, inputs=inputs)
        yield (
            "matches if sequences are run from their end to their start",
            case.of(case.oracle(), batch=backwards),
        )
        if case.pair.spec.inputs.kind == "reals":
            yield from _shifted_inputs(case)
    yield from _other_cells(case)
    yield from _other_activations(case)


def _shifted_inputs(case: _Case) -> Iterator[tuple[str, Found]]:
    """Yield sequences of reals with zeros for what lies outside."""
    inputs = case.batch.inputs
    zero = np.zeros_like(inputs[:, :1])
    for words, shifted in (
        ("late, zeros first", np.concatenate([zero, inputs[:, :-1]], axis=1)),
        ("early, zeros last", np.concatenate([inputs[:, 1:], zero], axis=1)),
    ):
        yield (
            f"matches if every input comes one time step {words}",
            case.of(case.oracle(), batch=replace(case.batch, inputs=shifted)),
        )


def _other_activations(case: _Case) -> Iterator[tuple[str, Found]]:
    subject, pair = case.subject, case.pair
    if subject.registry.cell(pair.spec.cell).equations is None:
        return
    equations = load_equations(subject.registry, pair.spec.cell)
    info = pair.cell.info
    for cause, steps in itertools.chain(
        with_hard_sigmoid(equations, info), with_relu(equations, info)
    ):
        changed = subject.oracle_around(pair.spec, steps)
        changed.load_weights(case.weights)
        yield cause, case.of(changed)


def _other_cells(case: _Case) -> Iterator[tuple[str, Found]]:
    """Yield cells with the same state, given the tensors they share."""
    registry, pair = case.subject.registry, case.pair
    for name, declared in registry.cells.items():
        if name == pair.spec.cell or not declared.reference:
            continue
        cell = cast(ReferenceCell, load_cell(registry, name))
        if cell.info.state_parts != pair.cell.info.state_parts:
            continue
        spec = replace(pair.spec, cell=name)
        shapes = spec.weight_shapes(cell)
        trial = replace(case.subject.trial, cell=name)
        other = build_oracle(registry, trial, spec, cell)
        for given in (case.weights, _with_one_bias(pair.cell.info, case.weights)):
            shared = {n: given.get(n, np.zeros(s)) for n, s in shapes.items()}
            if all(shared[n].shape == s for n, s in shapes.items()):
                other.load_weights(shared)
                yield f"this is the cell {name}", case.of(other)


def _with_one_bias(info: CellInfo, weights: Weights) -> Weights:
    """Add a gate's second bias, `b_hn` of gate n, to its first."""

    def joined(layer: Weights) -> Weights:
        layer = {n: w.copy() for n, w in layer.items()}
        for k, gate in enumerate(info.gates):
            layer["b"][k] += layer.get(f"b_h{gate}", 0)
        return layer

    return of_layers(weights, joined)
