"""Whether two implementations compute the same, where nothing says what that is.

Of a cell that has neither a reference nor equations each implementation is held
against its own single time steps, and so may two that compute different functions be.
Those of one plugin file and one framework can stand in one process, and are held
against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from harness.contract import Array, TrainableNetwork
from harness.measure.certificate.record import Certificate
from harness.measure.certificate.shapes import PAIRWISE, Shape
from harness.measure.certificate.subject import Subject, random_batch, weight_points


def compare_peers(certificate: Certificate, subject: Subject) -> list[str]:
    """Hold outputs, states and gradients against those of every peer.

    Returns:
        The names of the peers that could be run.
    """
    return [name for name in _peers(subject) if _compare(certificate, subject, name)]


def _peers(subject: Subject) -> list[str]:
    """Return who else of the same file and framework offers what the trial asks."""
    trial = subject.trial
    own = subject.registry.implementation(trial.implementation)
    return [
        name
        for name, other in subject.registry.implementations.items()
        if name != own.name
        and (other.file, other.framework) == (own.file, own.framework)
        and other.trains
        and other.declines(
            cell=trial.cell,
            device=trial.device,
            dtype=trial.dtype,
            precision=trial.precision,
            biases=trial.biases,
        )
        is None
    ]


def _compare(certificate: Certificate, subject: Subject, name: str) -> bool:
    """Compare with one peer at every shape; say whether it could be run."""
    peer = replace(subject, trial=replace(subject.trial, implementation=name))
    try:
        expected = [_answers(peer, shape, seed) for seed, shape in enumerate(PAIRWISE)]
    except Exception:  # what is wrong with the peer is told by its own certificate
        return False
    if not all(np.isfinite(a).all() for answers in expected for a in answers.values()):
        return False
    for seed, (shape, answers) in enumerate(zip(PAIRWISE, expected, strict=True)):
        found = _answers(subject, shape, seed)
        for what, reference in answers.items():
            certificate.compare(
                f"as {name}",
                found[what],
                reference,
                f"{what} at {shape.words}",
                certificate.tolerance.doubled,  # each may be off by what is allowed
            )
    return True


def _answers(subject: Subject, shape: Shape, seed: int) -> Mapping[str, Array]:
    """Return outputs, final state and gradients, by what they are called."""
    rng = np.random.default_rng(seed)
    spec, parts = subject.spec(shape), subject.cell.info.state_parts
    network = cast(TrainableNetwork, subject.network(spec))
    weights = next(weight_points(spec, subject.cell, seed))
    network.load_weights({n: w.astype(spec.dtype) for n, w in weights.items()})
    batch = random_batch(shape, rng)
    size = (shape.num_layers, shape.batch, shape.hidden_size)
    state, d_final = (
        tuple(rng.uniform(-0.5, 0.5, size).astype(np.float32) for _ in parts)
        for _ in range(2)
    )
    d_outputs = rng.standard_normal((*batch.scored.shape, spec.output_size))
    placed = network.place(batch)
    done = network.forward(placed, state).read()
    pulled = network.vjp(placed, state, d_outputs.astype(np.float32), d_final)
    answers = {"outputs": done.outputs, "grad inputs": pulled.inputs}
    for name, after, d_before in zip(parts, done.state, pulled.state, strict=True):
        answers |= {f"final {name}": after, f"grad initial {name}": d_before}
    return answers | {f"grad {name}": d for name, d in pulled.weights.items()}
