"""What every recurrence must satisfy, whatever its equations are.

An input changes no output before it. A sequence gives the same results if it is split
and the state is passed on. The order of sequences in a batch does not matter. This is
checked for a cell that has no reference.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.contract import Array, Batch, State
from harness.measure.certificate.network_pair import NetworkPair, split_at
from harness.measure.certificate.record import Certificate
from harness.measure.certificate.rounding import Responses, nudged
from harness.measure.problem import rows


def compare_invariants(certificate: Certificate, pair: NetworkPair, seed: int) -> None:
    """Check batch order, split sequences and causality at one shape."""
    case = pair.case(seed).load()
    batch, state, words = case.batch, case.state, f"at {pair.shape.words}"
    outputs, final = _forward(pair, batch, state)
    parts = pair.cell.info.state_parts

    def named(found: tuple[Array, State]) -> dict[str, Array]:
        return {"outputs": found[0], **dict(zip(parts, found[1], strict=True))}

    def changed(nudge: int) -> dict[str, Array]:
        pair.load(nudged(case.weights, pair.unit, nudge))
        found = named(_forward(pair, batch, state))
        case.load()
        return found

    changes = Responses(changed, named((outputs, final)))

    order = case.rng.permutation(batch.size)
    reordered = tuple(part[:, order] for part in state)
    mixed, _ = _forward(pair, rows(batch, order), reordered)
    certificate.compare(
        "batch order", mixed, outputs[order], words, changes=changes.of("outputs")
    )
    if batch.padded:
        return

    middle = batch.time_steps // 2
    first, second = split_at(batch, middle)
    before, between = _forward(pair, first, state)
    after, end = _forward(pair, second, between)
    for name, a, b in zip(parts, end, final, strict=True):
        certificate.compare(
            "state passed on", a, b, f"final {name} {words}", changes=changes.of(name)
        )
    every = outputs.shape[1] > 1
    whole = np.concatenate([before, after], axis=1) if every else after
    certificate.compare(
        "state passed on",
        whole,
        outputs,
        f"outputs {words}",
        changes=changes.of("outputs"),
    )
    if every:
        inputs = batch.inputs.copy()
        inputs[:, middle:] = inputs[:, middle:][:, ::-1]
        later, _ = _forward(pair, replace(batch, inputs=inputs), state)
        certificate.compare("causality", later[:, :middle], outputs[:, :middle], words)


def _forward(pair: NetworkPair, batch: Batch, state: State) -> tuple[Array, State]:
    found = pair.network.forward(pair.network.place(batch), state).read()
    return found.outputs, found.state
