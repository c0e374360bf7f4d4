"""A network in another process computes what it computes here."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.contract import Batch
from harness.errors import InputError
from harness.measure.problem import Problem
from harness.runner.codec import decode, encode
from harness.runner.process import RunnerDiedError, RunnerProcess
from harness.runner.remote import RemoteRunner
from harness.runner.runner import InProcess, Runner
from tests import helpers
from tests.helpers import REGISTRY

PROBLEM = Problem(REGISTRY, helpers.LEARNING)


@pytest.fixture(scope="module")
def runner() -> Iterator[RemoteRunner]:
    """Return a runner, which ends after the tests."""
    process = RunnerProcess("[]")
    yield RemoteRunner(process)
    process.close()


def network_of(runner: Runner) -> Any:
    """Return a network of a runner with initial values."""
    network = runner.network("numpy-reference", PROBLEM.spec, "cpu")
    network.load_weights(PROBLEM.initial_weights())
    return network


def test_every_method_gives_the_same_bits_there_as_here(runner: RemoteRunner) -> None:
    here, there = network_of(InProcess(REGISTRY)), network_of(runner)
    batch = PROBLEM.batch("train", 0)
    rng = np.random.default_rng(0)
    state = tuple(
        np.repeat(part, batch.size, axis=1) + np.float32(0.1)
        for part in PROBLEM.zero_state()
    )
    outputs = rng.standard_normal((*batch.scored.shape, 1)).astype(np.float32)
    for network in (here, there):
        network.placed = network.place(batch)
    found = [
        [
            network.forward(network.placed, state).read(),
            network.forward(network.placed).read(),
            network.step(batch.inputs[:, 0], state).read(),
            network.vjp(network.placed, state, outputs, state),
            network.loss_and_gradients(network.placed).read(),
            network.train_steps([network.placed, network.placed]).read(),
            network.weights(),
            network.optimizer_state(),
            network.kernel(),
        ]
        for network in (here, there)
    ]
    mine, theirs = (encode({"all": each}) for each in found)
    assert mine.values == theirs.values
    assert len(mine.arrays) > 20
    for name, array in mine.arrays.items():
        assert array.tobytes() == theirs.arrays[name].tobytes()


def test_what_is_wrong_with_a_batch_is_raised_by_a_later_call(
    runner: RemoteRunner,
) -> None:
    network = network_of(runner)
    batch = PROBLEM.batch("train", 0)
    wrong = replace(batch, lengths=np.zeros_like(batch.lengths))
    network.place(wrong)
    with pytest.raises(InputError, match="lengths"):
        network.weights()
    # What one trial leaves behind is not blamed on the next.
    network.place(wrong)
    runner.begin()
    assert network.weights().keys() == PROBLEM.initial_weights().keys()


def test_a_killed_runner_is_reported_with_its_signal() -> None:
    process = RunnerProcess("[]")
    network = network_of(RemoteRunner(process))
    assert process._process is not None
    process._process.kill()
    with pytest.raises(RunnerDiedError) as raised:
        network.weights()
    assert raised.value.returncode == -9


def test_a_closed_runner_leaves_nothing_open_and_ends_nothing_else() -> None:
    descriptors = Path("/proc/self/fd")
    with subprocess.Popen(["sleep", "600"]) as other:
        before = sorted(descriptors.iterdir())
        process = RunnerProcess("[]")
        network_of(RemoteRunner(process))
        assert len(list(descriptors.iterdir())) > len(before)
        process.close()
        assert sorted(descriptors.iterdir()) == before
        assert other.poll() is None
        other.kill()


def test_values_arrive_as_they_were_sent() -> None:
    batch: Batch = PROBLEM.batch("train", 0)
    sent = {
        "spec": PROBLEM.spec,
        "batch": batch,
        "numbers": (1, 2.5, float("inf"), None, True, "text"),
        "weights": {"odd 'name'": np.arange(3)},
    }
    found = decode(encode(sent))
    assert found["spec"] == PROBLEM.spec
    assert found["numbers"] == sent["numbers"]
    np.testing.assert_array_equal(found["weights"]["odd 'name'"], np.arange(3))
    for name, array in vars(batch).items():
        np.testing.assert_array_equal(getattr(found["batch"], name), array)
    with pytest.raises(TypeError, match="a set"):
        encode({"set": {1}})
    with pytest.raises(TypeError, match="an array of dtype object"):
        encode({"array": np.array([None])})
