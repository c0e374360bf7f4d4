"""A network that is wrong only sometimes is not certified."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np
import pytest

from harness.contract import Readout
from harness.measure.certificate.network_pair import random_batch
from harness.measure.certificate.shapes import PADDED_TRAINING, PAIRWISE, Shape
from harness.measure.certificate.trajectories import Name
from harness.registry import Registry
from tests import helpers
from tests.planted import certificate_of, subject_of

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

# Unpadded, padded with several sequences, and unpadded with three layers, all short;
# several sequences with one answer each, and with one real number as the answer.
PLAIN = (PAIRWISE[7],)
PADDED = (PAIRWISE[2],)
STACKED = (PAIRWISE[6],)
LAST = (PAIRWISE[4],)
ONE = (PAIRWISE[0],)


@pytest.fixture(scope="module")
def registry() -> Registry:
    import torch

    torch.set_num_threads(1)
    files = ("nearly_right.py", "trains_nearly_right.py")
    found = Registry.discover([helpers.PLUGINS / file for file in files])
    assert found.problems == []
    return found


# mistake, where it shows, what breaks, what holds, where the worst error is
NEARLY: list[tuple[str, Sequence[Shape], Sequence[Name], set[str], set[str], str]] = [
    ("state-from-none", PLAIN, (), {"final state"}, {"outputs"}, "c from no state"),
    (
        "gradient-from-none",
        PLAIN,
        (),
        {"grad inputs"},
        {"outputs", "grad w_hh", "grad of loss"},
        "from no state",
    ),
    ("continues-from-before", PLAIN, (), {"outputs"}, {"loss"}, "from no state"),
    ("loss-continues-from-before", PLAIN, (), {"loss"}, {"grad w_hh"}, ""),
    ("full-length-padded", PADDED, (), {"outputs", "loss"}, {"one time step"}, ""),
    ("shortest-padded", PADDED, (), {"final state"}, {"one time step"}, ""),
    ("last-step", STACKED, (), {"outputs"}, {"final state"}, ""),
    ("second-layer", STACKED, (), {"outputs", "final state"}, {"loss"}, ""),
    ("beyond-sixteen", PLAIN, ["sgd"], {"sgd updates"}, {"outputs", "loss"}, ""),
    ("updates-run-on", PADDED, ["sgd"], {"sgd updates"}, {"outputs", "loss"}, ""),
    ("caches-by-shape", PLAIN, (), {"outputs"}, {"loss"}, "second batch"),
    ("caches-by-batch", PLAIN, (), {"outputs"}, {"loss"}, "from no state"),
    ("caches-loss-by-batch", PLAIN, (), {"loss", "grad of loss"}, {"outputs"}, ""),
    ("wears-out", PLAIN, (), {"outputs"}, {"one time step"}, "called again"),
    (
        "stale-after-training",
        PLAIN,
        (),
        {"outputs"},
        {"weights come back"},
        "after an update",
    ),
    ("shares-weights", PLAIN, (), {"outputs"}, {"weights come back"}, ""),
    ("scores-all", LAST, (), {"loss", "grad of loss"}, {"outputs"}, ""),
    ("caches-updates-by-batch", (), ["sgd"], {"sgd updates"}, set(), ""),
    ("adds-up-gradients", PLAIN, (), {"grad of loss"}, {"loss"}, "called again"),
    (
        "updates-with-earlier-gradients",
        PLAIN,
        ["sgd"],
        {"sgd updates"},
        {"grad of loss"},
        "norm of update 1",
    ),
    (
        "keeps-the-state-of-a-step",
        PLAIN,
        (),
        {"one time step"},
        {"outputs"},
        "of step 3 in a row",
    ),
    (
        "carries-the-state-before",
        PLAIN,
        (),
        {"one time step"},
        {"outputs"},
        "of step 3 in a row",
    ),
    ("leaves-out-the-last-unit", PLAIN, (), {"final state"}, {"outputs"}, ""),
    ("one-output-broadcasts", ONE, (), {"loss", "grad of loss"}, {"outputs"}, ""),
    ("third-layer-is-the-second", STACKED, (), {"outputs"}, {"weights come back"}, ""),
    ("upper-layers-untrained", PLAIN, ["sgd"], {"sgd updates"}, {"one update"}, ""),
    ("upper-layers-share-a-gradient", (), ["sgd"], {"sgd updates"}, set(), ""),
    ("clips-each-layer", PLAIN, ["sgd"], {"sgd updates"}, {"one update"}, ""),
    ("clips-no-classes", (), ["sgd"], {"sgd updates"}, set(), "half of the updates"),
    ("trains-rows-that-occur", (), ["adam"], {"adam updates"}, set(), "embedding"),
    ("never-trains-token-zero", (), ["sgd"], {"sgd updates"}, set(), "embedding"),
    ("twice-the-step-alone", PLAIN, ["sgd"], {"one update"}, {"sgd updates"}, ""),
    ("averages-each-sequence", PLAIN, ["sgd"], {"sgd updates"}, {"loss"}, ""),
    ("stops-after-an-evaluation", (), ["adam"], {"adam updates"}, set(), "no update"),
    ("forgets-moments-with-a-gradient", (), ["adam"], {"adam updates"}, set(), ""),
    ("forgets-moments-with-weights", (), ["adam"], {"adam updates"}, set(), ""),
    ("adds-a-pull-to-an-update", (), ["adam"], {"adam updates"}, set(), "no update"),
    ("streams-loaded-weights", PLAIN, (), {"one time step"}, {"outputs"}, "after an"),
    ("pulls-twice-after-training", ONE, (), {"grad inputs"}, {"loss"}, "after an"),
    ("pulls-twice-when-asked-again", ONE, (), {"grad inputs"}, {"loss"}, "again"),
    ("advances-what-it-is-given", PLAIN, (), {"one time step"}, {"outputs"}, "row"),
]


@pytest.mark.parametrize(
    ("mistake", "given", "optimizers", "broken", "sound", "where"),
    NEARLY,
    ids=[row[0] for row in NEARLY],
)
def test_a_network_that_is_wrong_only_sometimes_is_refused(
    registry: Registry,
    mistake: str,
    given: Sequence[Shape],
    optimizers: Sequence[Name],
    broken: set[str],
    sound: set[str],
    where: str,
) -> None:
    subject = subject_of(registry, f"nearly-{mistake}", "lstm")
    found = certificate_of(subject, given, optimizers)
    assert broken <= set(found.broken)
    assert sound <= set(found.findings) - set(found.broken)
    assert any(where in found.findings[check].where for check in broken)


@pytest.mark.parametrize(
    ("mistake", "written"),
    [
        ("trains-what-it-was-given", "`train_steps` wrote into weights['layer0.w_ih']"),
        (
            "trains-moments-it-was-given",
            "`train_steps` wrote into arrays['momentum/layer0.w_ih']",
        ),
    ],
)
def test_what_a_network_was_given_long_before_may_not_change(
    registry: Registry, mistake: str, written: str
) -> None:
    subject = subject_of(registry, f"nearly-{mistake}", "lstm")
    found = certificate_of(subject, (), ["sgd"])
    assert found.broken == []
    assert written in subject.runner.written


@pytest.mark.parametrize(
    "shape", [s for s in (*PAIRWISE, PADDED_TRAINING) if s.padded and s.batch > 1]
)
@pytest.mark.parametrize("seed", range(4))
def test_a_padded_batch_is_as_a_users(shape: Shape, seed: int) -> None:
    batch = random_batch(shape, np.random.default_rng(seed))
    lengths = list(batch.lengths)
    assert batch.padded
    assert (max(lengths), min(lengths)) == (shape.time_steps, 1)
    assert len(set(lengths)) < len(lengths)
    if shape.readout is Readout.EVERY:
        assert not batch.scored[
            np.arange(shape.time_steps) >= batch.lengths[:, None]
        ].any()


def test_a_single_padded_sequence_ends_before_the_batch_does() -> None:
    (shape,) = (s for s in PAIRWISE if s.padded and s.batch == 1 and s.time_steps < 20)
    batch = random_batch(shape, np.random.default_rng(0))
    assert list(batch.lengths) == [shape.time_steps - 1]
