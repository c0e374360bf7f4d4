"""Likely causes are reported for planted mistakes, and for nothing else."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from harness.contract import LayerSizes, Weights
from harness.measure.certificate.diagnosis import diagnose
from harness.measure.certificate.diagnosis.evidence import Suspects
from harness.measure.certificate.record import TOLERANCES, Certificate
from harness.measure.certificate.shapes import PAIRWISE, Shape
from harness.measure.certificate.trajectories import NAMES, Name
from harness.measure.subject import Subject
from harness.registry import Registry
from harness.trial import Trial
from implementations.cells.gru import Gru
from tests import helpers
from tests.planted import certificate_of, subject_of

LONG, _, SHORT, *_ = PAIRWISE
FORWARD = {"outputs", "final state"}

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def registry() -> Registry:
    import torch

    torch.set_num_threads(1)
    files = (
        "sabotage_time_steps.py",
        "sabotage_optimizers.py",
        "sabotage_states.py",
        "seems_known.py",
    )
    found = Registry.discover([helpers.PLUGINS / name for name in files])
    assert found.problems == []
    return found


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Let dropout drop the same, whichever tests ran before."""
    import torch

    torch.manual_seed(0)


# mistake, cell, checks that must break, checks that must hold, likely cause
TIME_STEPS: list[tuple[str, str, set[str], set[str], str]] = [
    (
        "one-added-to-forget-bias",
        "lstm",
        FORWARD,
        {"weights come back"},
        "matches if 1 is added to the bias of gate f",
    ),
    (
        "forget-bias-is-one",
        "lstm",
        FORWARD,
        {"weights come back"},
        "matches if the bias of gate f is 1 whatever is loaded",
    ),
    (
        "hard-sigmoid",
        "gru",
        FORWARD,
        {"weights come back"},
        "matches if sigmoid is a hard sigmoid, a/6 + 1/2 between 0 and 1, "
        "torch's, JAX's and Keras 3's",
    ),
    (
        "hard-sigmoid-of-keras-2",
        "lstm",
        FORWARD,
        {"weights come back"},
        "matches if sigmoid is a hard sigmoid, 0.2 a + 1/2 between 0 and 1, "
        "Keras 2's and ONNX's",
    ),
    (
        "relu-candidate",
        "lstm",
        FORWARD,
        {"weights come back"},
        "matches if relu stands in place of the candidate's tanh",
    ),
    (
        "relu-for-every-tanh",
        "lstm",
        FORWARD,
        {"weights come back"},
        "matches if relu stands in place of every tanh",
    ),
    (
        "inputs-late",
        "gru",
        FORWARD,
        {"weights come back"},
        "matches if every input comes one time step late, zeros first",
    ),
    (
        "inputs-late-first-repeated",
        "gru",
        FORWARD,
        {"weights come back"},
        "matches if every input comes one time step late, the first input repeated",
    ),
    ("inputs-late-ones-first", "gru", FORWARD, {"weights come back"}, ""),
    (
        "inputs-early",
        "lstm",
        FORWARD,
        {"weights come back"},
        "matches if every input comes one time step early, zeros last",
    ),
    (
        "backwards",
        "gru",
        FORWARD,
        {"one time step"},
        "matches if sequences are run from their end to their start",
    ),
    (
        "dropout",
        "gru",
        FORWARD | {"one time step", "grad w_hh"},
        {"weights come back"},
        "two equal calls differ in the outputs and the final state h: dropout or other "
        "chance, or a state kept from call to call",
    ),
    (
        "nan-outputs",
        "gru",
        {"outputs"},
        {"weights come back", "final state"},
        "3 of 3 values of the outputs are NaN",
    ),
    ("state-shrinks", "gru", FORWARD, {"weights come back"}, ""),
    (
        "dropout-in-training",
        "gru",
        {"grad w_hh", "loss"},
        FORWARD | {"one time step"},
        "two equal calls differ in the gradient of layer0.w_ih, layer0.w_hh, layer0.b "
        "and 4 more: dropout or other chance, or a state kept from call to call",
    ),
    (
        "dropout-in-loss",
        "gru",
        {"loss", "grad of loss"},
        FORWARD | {"one time step", "grad w_hh", "grad initial state"},
        "two equal calls differ in the loss, the gradient of layer0.w_ih, the gradient "
        "of layer0.w_hh and 4 more: dropout or other chance, or a state kept from call "
        "to call",
    ),
    (
        "blind-to-r",
        "gru",
        {"grad w_ih", "grad w_hh", "grad b", "grad of loss"},
        FORWARD | {"loss", "grad readout.w"},
        "matches if no gradient flows through r",
    ),
    (
        "blind-to-z",
        "gru",
        {"grad w_ih", "grad w_hh", "grad b", "grad of loss"},
        FORWARD | {"loss", "grad readout.w"},
        "matches if no gradient flows through z",
    ),
    (
        "blind-to-f",
        "lstm",
        {"grad w_ih", "grad w_hh", "grad b", "grad of loss"},
        FORWARD | {"loss", "grad readout.w"},
        "matches if no gradient flows through f",
    ),
    (
        "state-detached",
        "gru",
        {"grad w_hh", "grad initial state", "grad of loss"},
        FORWARD | {"loss", "grad readout.w"},
        "no gradient flows through time: the state is detached in each step",
    ),
    (
        "state-detached-on-entry",
        "lstm",
        {"grad w_hh", "grad initial state", "grad of loss"},
        FORWARD | {"loss", "grad readout.w"},
        "no gradient flows through time: the state is detached in each step",
    ),
    (
        "cell-state-detached",
        "lstm",
        {"grad w_hh", "grad initial state", "grad of loss"},
        FORWARD | {"loss", "grad readout.w"},
        "no gradient flows through time in c",
    ),
    (
        "initial-state-detached",
        "lstm",
        {"grad initial state", "grad state at split"},
        FORWARD | {"loss", "grad of loss", "grad w_hh", "grad inputs"},
        "no gradient reaches the initial state h and the initial state c",
    ),
    (
        "gradient-clamped",
        "gru",
        {"grad w_hh", "grad inputs"},
        FORWARD | {"loss", "grad readout.w"},
        "matches if the gradient to the state is clamped to ±10 in each time step",
    ),
    (
        "gradient-clipped",
        "gru",
        {"grad w_hh", "grad inputs"},
        FORWARD | {"loss", "grad readout.w"},
        "matches if the gradient to the state is clipped to norm 0.5 in each time step",
    ),
    (
        "nan-gradient",
        "gru",
        {"grad w_hh", "grad of loss"},
        FORWARD | {"loss", "grad readout.w"},
        "192 of 192 values of the gradient of layer0.w_ih are NaN",
    ),
    (
        "gradient-patterned",
        "gru",
        {"grad w_hh", "grad of loss"},
        FORWARD | {"loss", "grad readout.w"},
        "",
    ),
]


@pytest.mark.parametrize(
    ("mistake", "cell", "expected", "sound", "cause"),
    TIME_STEPS,
    ids=[row[0] for row in TIME_STEPS],
)
def test_a_mistake_in_the_time_steps_gets_its_likely_cause_alone(
    registry: Registry,
    mistake: str,
    cell: str,
    expected: set[str],
    sound: set[str],
    cause: str,
) -> None:
    found = certificate_of(subject_of(registry, f"torch-{mistake}", cell), [LONG])
    assert expected <= set(found.broken)
    assert sound <= set(found.findings) - set(found.broken)
    # An unknown mistake gets no cause rather than the nearest one.
    causes = dict.fromkeys(found.broken, cause) if cause else {}
    assert found.causes == causes


TWICE = "matches if the derivative of tanh is taken twice"
ANEW = "the state is not carried on: every time step starts anew"
# mistake, framework, likely cause
STATES = [
    ("starts-at-ones", "torch", "it starts at ones where no state is given"),
    ("c-starts-at-ones", "torch", "c starts at ones where no state is given"),
    ("c-ignored", "torch", "the given state c is ignored"),
    ("c-counted-twice", "torch", "matches if the given state c is counted twice"),
    ("c-through-tanh", "torch", "matches if the given state c goes through tanh first"),
    ("c-for-h", "torch", "the given state c is used for h too"),
    ("exchanged", "torch", "the given states h and c are exchanged"),
    ("one-step-old", "torch", "the final state is that of the time step before"),
    ("c-one-step-old", "torch", "the final c is that of the time step before"),
    (
        "last-position",
        "torch",
        "the final state is that of the last position, padding included",
    ),
    ("not-carried-on", "torch", ANEW),
    ("from-the-first-state", "torch", ANEW),
    (
        "gates-of-the-first-step",
        "torch",
        "matches if the gates of the first time step are used in all",
    ),
    ("cut-every-30", "torch", "the gradient is truncated every 30 time steps"),
    ("cut-every-7", "torch", "the gradient is truncated every 7 time steps"),
    ("i-for-g", "numpy", "matches if i stands for g in the gradient"),
    ("i-for-g-everywhere", "numpy", "matches if i stands for g in the gradient"),
    ("tanh-twice", "numpy", TWICE),
    ("tanh-of-tanh", "numpy", TWICE),
    (
        "tanh-of-c-twice",
        "numpy",
        "matches if the derivative of tanh of c is taken twice",
    ),
    (
        "sigmoid-left-out",
        "numpy",
        "matches if the derivative of sigmoid is left out",
    ),
    (
        "late-h",
        "numpy",
        "matches if h_t stands for h_t-1 in the gradient of the matrices",
    ),
    ("unknown", "numpy", ""),
]


@pytest.mark.parametrize(
    ("mistake", "framework", "cause"), STATES, ids=[row[0] for row in STATES]
)
def test_a_mistake_in_states_or_derivatives_gets_its_likely_cause_alone(
    registry: Registry, mistake: str, framework: str, cause: str
) -> None:
    subject = subject_of(registry, f"{framework}-{mistake}", "lstm")
    shape = PAIRWISE[2] if mistake == "last-position" else PAIRWISE[7]
    found = certificate_of(subject, [LONG if mistake == "cut-every-30" else shape])
    assert found.broken
    assert set(found.causes.values()) == ({cause} if cause else set())


# mistake, a shape where it shows, likely cause
PADDED, STACKED = PAIRWISE[2], PAIRWISE[6]
SEEM_KNOWN = [
    (
        "bias-over-batch",
        LONG,
        "the gradient of layer0.b is averaged over the batch, not summed",
    ),
    (
        "bias-over-time",
        LONG,
        "the gradient of layer0.b is averaged over time, not summed",
    ),
    ("bias-scaled-when-long", LONG, ""),
    (
        "loss-gradient-over-batch",
        LONG,
        "the gradient of the loss is averaged over the batch, not summed",
    ),
    (
        "loss-summed-of-classes",
        STACKED,
        "the loss is summed over scored positions, not averaged, but only the "
        "cross-entropy",
    ),
    (
        "cut-40-before-the-end",
        LONG,
        "the gradient is cut once, 40 time steps before the end",
    ),
    (
        "cut-60-before-the-end",
        LONG,
        "the gradient is cut once, 60 time steps before the end",
    ),
    ("cut-at-60", LONG, ""),
    (
        "state-ignored-when-padded",
        PADDED,
        "the initial state is ignored, but only where sequences are padded",
    ),
    (
        "state-ignored-in-stacks",
        STACKED,
        "the initial state is ignored, but only where layers are stacked",
    ),
    (
        "gradient-missing-when-padded",
        PADDED,
        "no gradient reaches the initial state h and the initial state c, but only "
        "where sequences are padded",
    ),
]


@pytest.mark.parametrize(
    ("mistake", "shape", "cause"), SEEM_KNOWN, ids=[row[0] for row in SEEM_KNOWN]
)
def test_a_cause_that_holds_at_some_shapes_alone_is_not_told_of_all(
    registry: Registry, mistake: str, shape: Shape, cause: str
) -> None:
    subject = subject_of(registry, f"torch-{mistake}", "lstm")
    found = certificate_of(subject, [shape])
    assert found.broken
    assert set(found.causes.values()) == ({cause} if cause else set())


@pytest.mark.parametrize(
    ("mistake", "optimizer", "cause"),
    [
        ("beta2-is-099", "adam", ""),
        ("beta2-is-0995", "adam", ""),
        ("rate-is-000101", "adam", ""),
        ("rate-is-000101", "rmsprop", ""),
        ("rate-is-capped", "adam", "matches if the learning rate is at most 0.001"),
        ("rate-is-capped", "sgd", "matches if the learning rate is at most 0.001"),
        (
            "rate-is-floored",
            "rmsprop",
            "matches if the learning rate is at least 0.01",
        ),
        ("hardly-any-epsilon", "adam", ""),
    ],
)
def test_another_constant_than_a_default_is_not_taken_for_the_default(
    registry: Registry, mistake: str, optimizer: Name, cause: str
) -> None:
    subject = subject_of(registry, f"numpy-{mistake}", "rnn")
    found = certificate_of(subject, optimizers=[optimizer])
    assert f"{optimizer} updates" in found.broken
    assert found.causes == (dict.fromkeys(found.broken, cause) if cause else {})


def test_a_truncation_that_two_lengths_explain_at_one_shape_is_told_apart() -> None:
    """With an answer at the end alone, a cut every 10, 30, 45 or 90 is the same."""
    words = [f"every {k}" for k in (10, 30, 45)]
    same, other = {"a": np.ones(3)}, {"a": np.arange(3.0)}
    suspects = Suspects(1e-5)
    suspects.weigh([(w, lambda: same) for w in words], same)
    assert not suspects.decided
    at_every = dict(zip(words, (other, same, other), strict=True))
    suspects.weigh([(w, partial(dict, a)) for w, a in at_every.items()], same)
    assert suspects.decided
    assert suspects.cause() == "every 30"


def test_a_cause_is_not_told_if_another_explains_the_numbers_as_well() -> None:
    found = {"a": np.ones(3)}
    near = {"a": np.ones(3) + 5e-7}
    far = {"a": np.ones(3) + 9e-5}
    for hypotheses, cause in (
        ([("one", found), ("two", near)], None),
        ([("one", found), ("one in other words", found)], "one"),
        ([("far", far), ("one", near)], "one"),  # it is much closer
        ([("all of zeros", {"a": np.zeros(3)})], None),
    ):
        suspects = Suspects(1e-4)
        suspects.weigh([(w, partial(dict, a)) for w, a in hypotheses], found)
        assert suspects.cause() == cause


def test_a_mistake_that_would_show_where_all_is_right_is_not_the_cause() -> None:
    right, wrong = {"a": np.ones(3)}, {"a": np.arange(3.0)}
    suspects = Suspects(1e-5)
    suspects.weigh(
        [("everywhere", lambda: wrong), ("here", lambda: right)], right, right
    )
    both = [("everywhere", lambda: wrong), ("here", lambda: wrong)]
    suspects.weigh(both, wrong, right)
    assert suspects.cause() == "here"


class Fading(Gru):
    """A GRU with a short memory: all its schemes draw the same values."""

    def initial_weights(
        self, scheme: str, rng: np.random.Generator, sizes: LayerSizes
    ) -> Weights:
        drawn = super().initial_weights("zero-bias", rng, sizes)
        return {n: w / 2 if n == "w_hh" else w for n, w in drawn.items()}


@pytest.mark.slow
def test_a_truncated_gradient_that_fades_is_not_taken_for_a_detached_initial_state(
    registry: Registry,
) -> None:
    trial = Trial("parity", "torch-cut-every-50", "gru")
    subject = replace(Subject.of(registry, trial), cell=Fading())
    at_long = certificate_of(subject, [LONG])
    assert set(at_long.broken) == {"grad initial state", "grad state at split"}
    found = certificate_of(subject, PAIRWISE)
    assert {"grad w_ih", "grad w_hh"} <= set(found.broken)
    cause = "the gradient is truncated every 50 time steps"
    assert found.causes == dict.fromkeys(found.broken, cause)


def test_a_detached_initial_state_does_not_explain_the_gradient_of_a_weight(
    registry: Registry,
) -> None:
    subject = subject_of(registry, "torch-initial-state-detached", "lstm")
    certificate = Certificate(TOLERANCES["float32", "highest"], 0)
    states = ["grad initial state", "grad state at split"]
    others = ["grad inputs", "grad w_ih", "grad w_hh", "grad of loss", "adam updates"]
    for check in [*states, *others]:
        certificate.record(check, 1.0)
    diagnose(certificate, subject, trains=True)
    cause = "no gradient reaches the initial state h and the initial state c"
    assert certificate.causes == dict.fromkeys(states, cause)


@pytest.mark.slow
@pytest.mark.parametrize(
    "framework", ["numpy", pytest.param("torch", marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    ("mistake", "optimizers", "broken", "cause"),
    [
        (
            "always-rescaled",
            NAMES,
            {"adam updates", "rmsprop updates", "sgd updates"},
            "matches if the gradient is always rescaled to the clip norm, "
            "a smaller one too",
        ),
        (
            "fixed-learning-rate",
            NAMES,
            {"adam updates", "rmsprop updates", "sgd updates"},
            "matches if the learning rate is always 0.001",
        ),
        (
            "fixed-betas",
            ["adam"],
            {"adam updates"},
            "matches if beta1 and beta2 are always 0.9 and 0.999",
        ),
        (
            "fixed-decay",
            ["rmsprop"],
            {"rmsprop updates"},
            "matches if decay is always 0.99",
        ),
        (
            "fixed-momentum",
            ["sgd"],
            {"sgd updates"},
            "matches if momentum is always 0.9",
        ),
    ],
)
def test_an_optimiser_that_ignores_a_constant_gets_that_likely_cause(
    registry: Registry,
    framework: str,
    mistake: str,
    optimizers: list[Name],
    broken: set[str],
    cause: str,
) -> None:
    subject = subject_of(registry, f"{framework}-{mistake}", "rnn")
    found = certificate_of(subject, optimizers=optimizers)
    assert broken <= set(found.broken)
    assert found.causes == dict.fromkeys(found.broken, cause)


@pytest.mark.parametrize(
    "check", ["outputs", "grad w_hh", "loss", "adam updates", "sgd updates"]
)
@pytest.mark.parametrize(
    ("implementation", "cell"), [("torch-loop", "gru"), ("torch-native", "lstm")]
)
def test_an_implementation_without_a_mistake_gets_no_likely_cause(
    registry: Registry, implementation: str, cell: str, check: str
) -> None:
    certificate = Certificate(TOLERANCES["float32", "highest"], 0)
    certificate.record(check, 1.0)
    subject = subject_of(registry, implementation, cell)
    diagnose(certificate, subject, trains=True)
    assert (certificate.broken, certificate.causes) == ([check], {})


def test_no_likely_cause_is_given_in_a_coarse_precision(registry: Registry) -> None:
    subject = subject_of(registry, "torch-one-added-to-forget-bias", "lstm")
    for precision, explained in (("highest", True), ("bf16", False)):
        certificate = Certificate(TOLERANCES["float32", precision], 0)
        certificate.record("outputs", 1.0)
        diagnose(certificate, subject, trains=True)
        assert bool(certificate.causes) == explained
