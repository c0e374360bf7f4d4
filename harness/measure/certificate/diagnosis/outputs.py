"""Which change of the reference gives the outputs and final states that were found?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from harness.contract import (
    Array,
    Batch,
    CellInfo,
    Network,
    NetworkSpec,
    Readout,
    State,
    Steps,
    Weights,
)
from harness.errors import PluginError
from harness.loading import load_equations
from harness.measure.certificate.diagnosis import evidence
from harness.measure.certificate.diagnosis.changed_steps import (
    other_activations,
    other_states,
)
from harness.measure.certificate.diagnosis.changed_weights import (
    changed_weights,
    of_layers,
)
from harness.measure.certificate.diagnosis.evidence import Found, Hypothesis, Suspects
from harness.measure.certificate.diagnosis.given_states import given_states
from harness.measure.certificate.network_pair import Case, NetworkPair
from harness.measure.certificate.shapes import PAIRWISE
from harness.measure.subject import Subject

NONE = " from no state"

UNFORGOTTEN = replace(PAIRWISE[0], time_steps=13, readout=Readout.EVERY)
"""A shape that shows what happens in the first time steps.

Of the unpadded shapes of one layer in `PAIRWISE` one alone has reals, and its only
answer comes when the first time steps are forgotten.
"""


def output_cause(subject: Subject, tolerance: float) -> str | None:
    """Return the likely cause of wrong outputs, or None if none is found.

    It explains all shapes with as many layers, padded or not as the first that shows
    the mistake: in stacked or padded sequences one mistake may have several effects. If
    it would show at simpler shapes too, where all is right, the cause says so.
    """
    suspects, first = Suspects(tolerance), None
    for shape in (*evidence.shortest_first(PAIRWISE), UNFORGOTTEN):
        kind = shape.padded, shape.num_layers
        if first is not None and kind != first:
            continue
        if shape is UNFORGOTTEN and not suspects.remain:
            break
        case = NetworkPair(subject, shape).case(0).load()
        found, right = (_of(case, n) for n in (case.pair.network, case.pair.oracle))
        if first is None and evidence.disagreeing(found, right, tolerance):
            first = kind
            again = _of(case, case.pair.network)
            given = {n: a for n, a in found.items() if not n.endswith(NONE)}
            for asked in (given, found):
                cause = evidence.without_hypothesis(asked, again, tolerance)
                if cause is not None:
                    return cause
        if first is not None:
            suspects.weigh(_hypotheses(case), found, right)
    cause = suspects.cause()
    if cause is None or first is None:
        return None
    return cause + _only(subject, cause, first, tolerance)


def _only(
    subject: Subject, cause: str, wrong: tuple[bool, int], tolerance: float
) -> str:
    """Return in which networks alone a mistake is made; empty for all of them.

    Args:
        subject: The implementation.
        cause: The mistake.
        wrong: Whether sequences are padded and how many layers there are where the
            mistake was found.
        tolerance: The largest relative error of what is right.
    """
    without = set[str]()
    for shape in PAIRWISE:
        kind = padded, layers = shape.padded, shape.num_layers
        if kind == wrong or padded > wrong[0] or layers > wrong[1]:
            continue
        case = NetworkPair(subject, shape).case(0).load()
        found, right = (_of(case, n) for n in (case.pair.network, case.pair.oracle))
        if not evidence.disagreeing(found, right, tolerance) and evidence.contradicted(
            cause, _hypotheses(case), found, tolerance
        ):
            # A shape that differs in both says nothing of either.
            without |= {"where layers are stacked"} if padded == wrong[0] else set()
            without |= {evidence.PADDED} if layers == wrong[1] else set()
    return f", but only {' and '.join(sorted(without))}" if without else ""


def _of(
    case: Case,
    network: Network,
    batch: Batch | None = None,
    states: tuple[State, State | None] | None = None,
) -> Found:
    """Return a network's results by name, from the case's batch or another.

    Args:
        case: The case.
        network: The network.
        batch: The batch, if it is not the case's.
        states: What is given for the case's state, and for no state.
    """
    placed = network.place(batch or case.batch)
    found: dict[str, Array] = {}
    given, none = states or (case.state, None)
    for words, state in (("", given), (NONE, none)):
        done = network.forward(placed, state).read()
        parts = zip(case.pair.cell.info.state_parts, done.state, strict=True)
        found[f"the outputs{words}"] = done.outputs
        found |= {f"the final state {name}{words}": part for name, part in parts}
    return found


def _hypotheses(case: Case) -> Iterator[Hypothesis]:
    """Yield mistakes and the results that each would give."""
    for cause, weights in changed_weights(case.pair.cell.info, case.weights):
        yield cause, partial(_with_weights, case, weights)
    for cause, states in given_states(case.pair.cell.info, case.state):
        yield cause, partial(_with_states, case, states)
    for cause, batch in _other_batches(case):
        yield cause, partial(_with_batch, case, batch)
    yield from _other_ends(case)
    yield from _other_cells(case)
    for cause, steps in other_states(case.pair.subject.steps(), case.batch.time_steps):
        yield cause, partial(_around, case, steps)
    registry, name = case.pair.subject.registry, case.pair.spec.cell
    if registry.cell(name).equations is not None:
        equations, info = load_equations(registry, name), case.pair.cell.info
        for cause, steps in other_activations(equations, info, case.batch.time_steps):
            yield cause, partial(_around, case, steps)


def _with_weights(case: Case, weights: Weights) -> Found:
    return _of(case, case.oracle(weights))


def _with_states(case: Case, states: tuple[State, State | None]) -> Found:
    return _of(case, case.oracle(), states=states)


def _with_batch(case: Case, batch: Batch) -> Found:
    return _of(case, case.oracle(), batch)


def _around(case: Case, steps: Steps) -> Found:
    return _of(case, case.around(steps))


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
        again = np.concatenate([inputs[:, :1], inputs[:, :-1]], axis=1)
        others["every input comes one time step late, zeros first"] = late
        others["every input comes one time step late, the first input repeated"] = again
        others["every input comes one time step early, zeros last"] = early
    for words, changed in others.items():
        yield f"matches if {words}", replace(batch, inputs=changed)


# --- final states --------------------------------------------------------------------


def _other_ends(case: Case) -> Iterator[Hypothesis]:
    """Yield mistakes that take the final state from another time step.

    Of a network that answers at the last step alone the answer may come from there too.
    """
    batch, last = case.batch, case.pair.spec.readout is Readout.LAST
    parts = case.pair.cell.info.state_parts
    for answers in (False, True) if last else (False,):
        words = "the final state is that of the time step before"
        yield words, partial(_one_step_old, case, parts, answers)
    for name in parts if len(parts) > 1 else ():
        words = f"the final {name} is that of the time step before"
        yield words, partial(_one_step_old, case, (name,), answers=False)
    if not batch.padded:
        return
    words = "the final state is that of the last position, padding included"
    for answers in (False, True) if last else (False,):
        for zero in (False, True):
            yield words, partial(_of_last_position, case, answers, zero)


def _one_step_old(case: Case, parts: Sequence[str], answers: bool) -> Found:
    lengths = case.batch.lengths
    before = replace(case.batch, lengths=np.maximum(lengths - 1, 1))
    old = dict(_of(case, case.oracle(), before))
    right = _of(case, case.oracle())
    none = tuple(np.zeros_like(part) for part in case.state)
    starts = {"": case.state, NONE: none}
    for words, start in starts.items():
        for name, part in zip(case.pair.cell.info.state_parts, start, strict=True):
            state = np.array(old[f"the final state {name}{words}"])
            state[:, lengths == 1] = part[:, lengths == 1]
            key = f"the final state {name}{words}"
            old[key] = state if name in parts else right[key]
        if answers:  # the readout of the old state of the last layer
            readout = case.weights["readout.w"].astype(np.float64)
            output = case.pair.cell.info.state_parts[0]
            top = old[f"the final state {output}{words}"][-1]
            answer = top @ readout.T + case.weights["readout.b"]
            old[f"the outputs{words}"] = answer[:, None]
        else:
            old[f"the outputs{words}"] = right[f"the outputs{words}"]
    return old


def _of_last_position(case: Case, answers: bool, zero: bool) -> Found:
    """Run on beyond the ends, or take the output there for the state, which is zero."""
    whole = np.full(case.batch.size, case.batch.time_steps)
    right = _of(case, case.oracle())
    found = dict(_of(case, case.oracle(), replace(case.batch, lengths=whole)))
    short = case.batch.lengths < case.batch.time_steps
    for words in ("", NONE):
        if zero:
            for name in case.pair.cell.info.state_parts:
                key = f"the final state {name}{words}"
                found[key] = np.array(right[key])
            key = f"the final state {case.pair.cell.info.state_parts[0]}{words}"
            found[key][:, short] = 0
            if answers:
                outputs = np.array(right[f"the outputs{words}"])
                outputs[short] = case.weights["readout.b"]
                found[f"the outputs{words}"] = outputs
        if not answers:
            found[f"the outputs{words}"] = right[f"the outputs{words}"]
    return found


# --- other cells ---------------------------------------------------------------------


def _other_cells(case: Case) -> Iterator[Hypothesis]:
    """Yield other cells with the same state parts, with the weights that they share."""
    subject, info = case.pair.subject, case.pair.cell.info
    for name, declared in subject.registry.cells.items():
        if name == case.pair.spec.cell or not declared.reference:
            continue
        try:
            other = Subject.of(subject.registry, replace(subject.trial, cell=name))
        except PluginError:  # it is reported where that cell is measured
            continue
        if other.cell.info.state_parts != info.state_parts:
            continue
        spec = replace(case.pair.spec, cell=name)
        shapes = spec.weight_shapes(other.cell)
        for given in (case.weights, _with_one_bias(info, case.weights)):
            shared = {n: given.get(n, np.zeros(s)) for n, s in shapes.items()}
            if all(shared[n].shape == s for n, s in shapes.items()):
                yield (
                    f"this is the cell {name}",
                    partial(_of_cell, case, other, spec, shared),
                )


def _of_cell(case: Case, other: Subject, spec: NetworkSpec, weights: Weights) -> Found:
    oracle = other.oracle(spec)
    oracle.load_weights(weights)
    return _of(case, oracle)


def _with_one_bias(info: CellInfo, weights: Weights) -> Weights:
    """Add a gate's second bias, `b_hn` of gate n, to its first."""

    def joined(layer: Weights) -> Weights:
        layer = {n: w.copy() for n, w in layer.items()}
        for k, gate in enumerate(info.gates):
            layer["b"][k] += layer.get(f"b_h{gate}", 0)
        return layer

    return of_layers(weights, joined)
