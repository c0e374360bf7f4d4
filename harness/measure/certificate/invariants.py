"""What every recurrence must satisfy, whatever its equations.

For a cell that has no reference: no output before an input is changed by it, a sequence
may be split with the state passed on, and the order of a batch does not matter.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.contract import Array, Batch, State
from harness.measure.certificate.record import Certificate
from harness.measure.certificate.subject import (
    Pair,
    random_batch,
    split_at,
    weight_points,
)


def compare_invariants(certificate: Certificate, pair: Pair, seed: int) -> None:
    """Check batch order, causality and the passing on of a state at one shape."""
    rng = np.random.default_rng(seed)
    batch = random_batch(pair.shape, rng)
    pair.load(next(weight_points(pair.spec, pair.cell, seed)))
    state = pair.state(rng)
    words = f"at {pair.shape.words}"
    outputs, final = _forward(pair, batch, state)

    order = rng.permutation(batch.size)
    mixed, _ = _forward(pair, _reordered(batch, order), _of_batch(state, order))
    certificate.compare("batch order", mixed, outputs[order], words)
    if batch.padded:
        return

    middle = batch.time_steps // 2
    first, second = split_at(batch, middle)
    before, between = _forward(pair, first, state)
    after, end = _forward(pair, second, between)
    for a, b in zip(end, final, strict=True):
        certificate.compare("state passed on", a, b, f"final state {words}")
    if outputs.shape[1] == 1:
        certificate.compare("state passed on", after, outputs, f"outputs {words}")
        return
    whole = np.concatenate([before, after], axis=1)
    certificate.compare("state passed on", whole, outputs, f"outputs {words}")
    changed = batch.inputs.copy()
    changed[:, middle:] = changed[:, middle:][:, ::-1]
    later, _ = _forward(pair, replace(batch, inputs=changed), state)
    certificate.compare("causality", later[:, :middle], outputs[:, :middle], words)


def _forward(pair: Pair, batch: Batch, state: State) -> tuple[Array, State]:
    found = pair.network.forward(pair.network.place(batch), state).read()
    return found.outputs, found.state


def _reordered(batch: Batch, order: Array) -> Batch:
    return Batch(
        batch.inputs[order],
        batch.lengths[order],
        batch.targets[order],
        batch.scored[order],
    )


def _of_batch(state: State, order: Array) -> State:
    return tuple(part[:, order] for part in state)
