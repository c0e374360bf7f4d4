"""Certify planted mistakes at the shapes and optimisers that can show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.contract import Readout
from harness.measure.certificate.certify import PairComparison
from harness.measure.certificate.diagnosis import diagnose
from harness.measure.certificate.network_pair import NetworkPair
from harness.measure.certificate.record import TOLERANCES, Certificate
from harness.measure.certificate.shapes import PAIRWISE, Shape
from harness.measure.certificate.trajectories import STEADY, Name, compare_optimizers
from harness.measure.subject import Subject
from harness.registry import Registry
from harness.trial import Trial


def subject_of(registry: Registry, implementation: str, cell: str) -> Subject:
    return Subject.of(registry, Trial("parity", implementation, cell))


def certificate_of(
    subject: Subject, shapes: Sequence[Shape] = (), optimizers: Sequence[Name] = ()
) -> Certificate:
    """Compare some shapes and steps of some optimisers; diagnose broken checks."""
    certificate = Certificate(TOLERANCES["float32", "highest"], len(shapes))
    for seed, shape in enumerate(shapes):
        PairComparison(
            certificate, NetworkPair(subject, shape, STEADY), trains=True
        ).run(seed)
    if optimizers:
        compare_optimizers(certificate, subject, optimizers)
    diagnose(certificate, subject, trains=True)
    return certificate


SCORED = next(s for s in PAIRWISE if s.readout is Readout.EVERY and s.num_layers == 1)

PLANTED: list[tuple[str, Sequence[Shape], Sequence[Name], set[str], set[str], str]] = [
    (
        "rmsprop-epsilon-inside",
        (),
        ["rmsprop"],
        {"rmsprop updates"},
        {"optimiser state comes back"},
        "epsilon is added inside the root",
    ),
    (
        "clipped-per-tensor",
        (),
        ["sgd"],
        {"sgd updates", "sgd moments"},
        {"optimiser state comes back"},
        "gradients are clipped per tensor",
    ),
    (
        "always-rescaled",
        (),
        ["adam"],
        {"adam updates", "adam moments"},
        {"optimiser state comes back"},
        "matches if the gradient is always rescaled to the clip norm, "
        "a smaller one too",
    ),
    (
        "loss-over-sequences",
        [SCORED],
        (),
        {"loss", "grad of loss"},
        {"outputs", "final state", "grad w_hh", "grad b"},
        "the loss is averaged over sequences alone",
    ),
]
"""Mistake, where it shows, what breaks, what holds and the likely cause.

They are planted in each backend that has an optimiser and a loss of its own.
"""


def assert_refused(
    file: Path,
    implementation: str,
    shapes: Sequence[Shape],
    optimizers: Sequence[Name],
    broken: set[str],
    sound: set[str],
    cause: str,
) -> None:
    registry = Registry.discover([file])
    assert registry.problems == []
    subject = subject_of(registry, implementation, "rnn")
    found = certificate_of(subject, shapes, optimizers)
    assert broken <= set(found.broken)
    assert sound <= set(found.findings) - set(found.broken)
    assert found.causes == dict.fromkeys(found.broken, cause)
