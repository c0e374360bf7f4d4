"""Which change of the reference gives the outputs and final states that were found?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harness.contract import Batch, CellInfo, Network, State, Weights
from harness.loading import load_equations
from harness.measure.certificate.diagnosis import evidence
from harness.measure.certificate.diagnosis.changed_steps import other_activations
from harness.measure.certificate.diagnosis.changed_weights import (
    changed_weights,
    of_layers,
)
from harness.measure.certificate.diagnosis.evidence import Found
from harness.measure.certificate.network_pair import Case, NetworkPair
from harness.measure.certificate.shapes import PAIRWISE
from harness.measure.subject import Subject


def output_cause(subject: Subject, tolerance: float) -> str | None:
    """Return the likely cause of wrong outputs, or None if none is found."""
    for shape in evidence.clearest_first(PAIRWISE):
        case = NetworkPair(subject, shape).case(0).load()
        found = _of(case, case.pair.network)
        if not evidence.disagreeing(found, _of(case, case.pair.oracle), tolerance):
            continue  # the mistake shows at other shapes only
        again = _of(case, case.pair.network)
        cause = evidence.without_hypothesis(found, again, tolerance)
        return cause or evidence.first_match(_hypotheses(case), found, tolerance)
    return None


def _of(
    case: Case, network: Network, batch: Batch | None = None, state: State | None = None
) -> Found:
    """Return a network's results by name, from a case's batch and state or others."""
    placed = network.place(batch or case.batch)
    done = network.forward(placed, state or case.state).read()
    parts = zip(case.pair.cell.info.state_parts, done.state, strict=True)
    states = {f"the final state {name}": part for name, part in parts}
    return {"the outputs": done.outputs, **states}


def _hypotheses(case: Case) -> Iterator[tuple[str, Found]]:
    """Yield mistakes and the results that each would give."""
    for cause, weights in changed_weights(case.pair.cell.info, case.weights):
        yield cause, _of(case, case.oracle(weights))
    zero = tuple(np.zeros_like(part) for part in case.state)
    yield "the initial state is ignored", _of(case, case.oracle(), state=zero)
    for cause, batch in _other_batches(case):
        yield cause, _of(case, case.oracle(), batch)
    yield from _other_cells(case)
    yield from _other_activations(case)


def _other_batches(case: Case) -> Iterator[tuple[str, Batch]]:
    """Yield mistakes that run other sequences, with zeros beyond their ends."""
    batch = case.batch
    if batch.padded:
        whole = np.full(batch.size, batch.time_steps)
        words = "padding leaks: sequences are run on beyond their end"
        yield words, replace(batch, lengths=whole)
        return
    inputs = batch.inputs
    others = {"sequences are run from their end to their start": inputs[:, ::-1].copy()}
    if case.pair.spec.inputs.kind == "reals":
        zero = np.zeros_like(inputs[:, :1])
        late = np.concatenate([zero, inputs[:, :-1]], axis=1)
        early = np.concatenate([inputs[:, 1:], zero], axis=1)
        others["every input comes one time step late, zeros first"] = late
        others["every input comes one time step early, zeros last"] = early
    for words, changed in others.items():
        yield f"matches if {words}", replace(batch, inputs=changed)


def _other_activations(case: Case) -> Iterator[tuple[str, Found]]:
    registry, name = case.pair.subject.registry, case.pair.spec.cell
    if registry.cell(name).equations is None:
        return
    equations = load_equations(registry, name)
    for cause, steps in other_activations(equations, case.pair.cell.info):
        yield cause, _of(case, case.around(steps))


def _other_cells(case: Case) -> Iterator[tuple[str, Found]]:
    """Yield other cells with the same state parts, with the weights that they share."""
    subject, info = case.pair.subject, case.pair.cell.info
    for name, declared in subject.registry.cells.items():
        if name == case.pair.spec.cell or not declared.reference:
            continue
        other = Subject.of(subject.registry, replace(subject.trial, cell=name))
        if other.cell.info.state_parts != info.state_parts:
            continue
        spec = replace(case.pair.spec, cell=name)
        shapes, oracle = spec.weight_shapes(other.cell), other.oracle(spec)
        for given in (case.weights, _with_one_bias(info, case.weights)):
            shared = {n: given.get(n, np.zeros(s)) for n, s in shapes.items()}
            if all(shared[n].shape == s for n, s in shapes.items()):
                oracle.load_weights(shared)
                yield f"this is the cell {name}", _of(case, oracle)


def _with_one_bias(info: CellInfo, weights: Weights) -> Weights:
    """Add a gate's second bias, `b_hn` of gate n, to its first."""

    def joined(layer: Weights) -> Weights:
        layer = {n: w.copy() for n, w in layer.items()}
        for k, gate in enumerate(info.gates):
            layer["b"][k] += layer.get(f"b_h{gate}", 0)
        return layer

    return of_layers(weights, joined)
