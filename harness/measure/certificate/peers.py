"""Whether implementations of a cell agree that has neither a reference nor equations.

Each implementation of such a cell is compared with its own single time steps. Two of
them could pass and compute different functions. Implementations of one plugin file and
one framework can run in one process, so they are compared with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from harness.contract import Array
from harness.measure.certificate.network_pair import NetworkPair
from harness.measure.certificate.record import Certificate
from harness.measure.certificate.rounding import Responses, nudged
from harness.measure.certificate.shapes import PAIRWISE, Shape
from harness.measure.subject import Subject, declines


def compare_peers(certificate: Certificate, subject: Subject) -> list[str]:
    """Compare outputs, states and gradients with those of every peer.

    Returns:
        The names of the peers that could be run.
    """
    return [name for name in _peers(subject) if _compare(certificate, subject, name)]


def _peers(subject: Subject) -> list[str]:
    """Return the other implementations of the file and framework for this trial."""
    trial = subject.trial
    own = subject.registry.implementation(trial.implementation)
    return [
        name
        for name, other in subject.registry.implementations.items()
        if name != own.name
        and (other.file, other.framework) == (own.file, own.framework)
        and other.trains
        and declines(other, trial) is None
    ]


def _compare(certificate: Certificate, subject: Subject, name: str) -> bool:
    """Compare with one peer at every shape; return whether the peer could be run."""
    peer = replace(subject, trial=replace(subject.trial, implementation=name))
    try:
        expected = [_answers(peer, shape, seed) for seed, shape in enumerate(PAIRWISE)]
    except Exception:  # the peer's own certificate reports what is wrong with it
        return False
    if not all(np.isfinite(a).all() for answers in expected for a in answers.values()):
        return False
    for seed, (shape, answers) in enumerate(zip(PAIRWISE, expected, strict=True)):
        found = _answers(subject, shape, seed)
        changes = Responses(partial(_answers, subject, shape, seed), found)
        for what, reference in answers.items():
            certificate.compare(
                f"as {name}",
                found[what],
                reference,
                f"{what} at {shape.words}",
                certificate.tolerance.doubled,  # each may be off by the tolerance
                changes.of(what),
            )
    return True


def _answers(
    subject: Subject, shape: Shape, seed: int, nudge: int | None = None
) -> Mapping[str, Array]:
    """Return outputs, final state and gradients, each by its name.

    Args:
        subject: The implementation.
        shape: The shape of the batch.
        seed: Decides everything that is drawn.
        nudge: If given, the weights are `nudged` first, with this seed.
    """
    pair = NetworkPair(subject, shape)
    case, network = pair.case(seed), pair.network
    d_final = pair.cotangent_of_state(case.rng)
    d_outputs = case.cotangent.astype(np.float32)
    weights = case.weights
    if nudge is not None:
        weights = pair.rounded(nudged(weights, pair.unit, nudge))
    network.load_weights(weights)
    placed = network.place(case.batch)
    done = network.forward(placed, case.state).read()
    pulled = network.vjp(placed, case.state, d_outputs, d_final)
    parts = subject.cell.info.state_parts
    answers = {"outputs": done.outputs, "grad inputs": pulled.inputs}
    for name, after, d_before in zip(parts, done.state, pulled.state, strict=True):
        answers |= {f"final {name}": after, f"grad initial {name}": d_before}
    return answers | {f"grad {name}": d for name, d in pulled.weights.items()}
