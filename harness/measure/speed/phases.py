"""The phases of a speed trial: the call under the clock, and what it must compute."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np

from harness.contract import Array, Batch, Network, Placed, TrainableNetwork, Weights
from harness.measure.arithmetic import FEWEST_BATCHES
from harness.measure.problem import Problem
from harness.measure.readback import Reference

PHASES = ("forward", "loss_and_gradients", "train_step", "stream")

MOST_BYTES = 64 * 2**20
"""Inputs of all batches that are placed at once."""


class Ring(Protocol):
    """Inputs of calls, made before the clock starts and used one after the other."""

    def __len__(self) -> int:
        """Count the inputs at hand."""

    def __getitem__(self, index: int) -> Any:
        """Return what a call takes."""

    def grow(self, count: int) -> None:
        """Have `count` inputs at hand, or as many as may be held at once."""


class Batches:
    """Placed batches of the trial's training data.

    Attributes:
        place_s: Seconds that placing each batch took, in order.
    """

    def __init__(self, problem: Problem, network: Network) -> None:
        self._problem, self._network = problem, network
        self._placed: list[Placed] = []
        self.place_s: list[float] = []
        self.grow(FEWEST_BATCHES)

    def __len__(self) -> int:
        return len(self._placed)

    def __getitem__(self, index: int) -> Placed:
        return self._placed[index]

    def batch(self, index: int) -> Batch:
        """Return a batch as it was before it was placed."""
        size = self._problem.trial.batch
        assert size is not None
        return self._problem.batch("train", index, size)

    def grow(self, count: int) -> None:
        """Place batches until there are `count`, or as many as may be held at once."""
        while len(self._placed) < count:
            batch = self.batch(len(self._placed))
            most = max(FEWEST_BATCHES, MOST_BYTES // batch.inputs.nbytes)
            if len(self._placed) >= most:
                return
            start = time.perf_counter()
            self._placed.append(self._network.place(batch))
            self.place_s.append(time.perf_counter() - start)


class TimeSteps:
    """Single time steps of sequences, one sequence at a time, on the host."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._steps: list[Array] = []
        self.grow(1)

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> Array:
        return self._steps[index]

    def grow(self, count: int) -> None:
        """Draw sequences until they have `count` time steps."""
        while len(self._steps) < count:
            drawn = len(self._steps) // self._problem.time_steps
            sequence = self._problem.batch("train", drawn, 1).inputs[0]
            self._steps += [step[None] for step in sequence]

    def sequence(self, steps: Sequence[int]) -> Batch:
        """Return time steps as one sequence."""
        like = self._problem.batch("train", 0, 1)
        inputs = np.stack([self._steps[step] for step in steps], axis=1)
        readouts = self._problem.spec.readouts(len(steps))
        targets = np.zeros((1, readouts, *like.targets.shape[2:]), like.targets.dtype)
        scored = np.ones((1, readouts), bool)
        return Batch(inputs, np.array([len(steps)]), targets, scored)


@dataclass
class Phase:
    """One phase.

    Attributes:
        inputs: What calls take, one after the other.
        call: Queues the work on an input and waits for it; keeps its answer.
        found: Reads back what the calls since `begin` computed.
        expected: Makes the same with the reference, given the input of every call.
        begin: Forgets what was before a turn.
        latencies_s: Of single calls since `begin`, where each is timed by itself.
    """

    inputs: Ring
    call: Callable[[Any], None]
    found: Callable[[], Weights]
    expected: Callable[[Sequence[int]], Weights]
    begin: Callable[[], None] = lambda: None
    latencies_s: list[float] = field(default_factory=list)


def phases_of(
    problem: Problem, network: Network, reference: Reference
) -> dict[str, Phase]:
    """Return the phases that a trial asks for and its implementation has."""
    asked = [name for name in PHASES if name in problem.trial.settings["phases"]]
    make = {
        "forward": _forward,
        "loss_and_gradients": _loss_and_gradients,
        "train_step": _train_step,
    }
    found: dict[str, Phase] = {}
    batches = None
    for name in asked:
        if name == "stream":
            found[name] = _stream(TimeSteps(problem), problem, network, reference)
        elif problem.trains or name == "forward":
            batches = batches or Batches(problem, network)
            found[name] = make[name](batches, network, reference)
    return found


def _forward(batches: Batches, network: Network, reference: Reference) -> Phase:
    done: Any = None

    def call(placed: Placed) -> None:
        nonlocal done
        done = network.forward(placed)
        done.wait()

    return Phase(
        batches,
        call,
        lambda: {"outputs": done.read().outputs},
        lambda calls: {"outputs": reference.outputs(batches.batch(calls[-1]))},
    )


def _loss_and_gradients(
    batches: Batches, network: Network, reference: Reference
) -> Phase:
    trained, done = cast(TrainableNetwork, network), cast(Any, None)

    def call(placed: Placed) -> None:
        nonlocal done
        done = trained.loss_and_gradients(placed)
        done.wait()

    def found() -> Weights:
        read = done.read()
        return {"loss": np.array(read.loss), **read.gradients}

    def expected(calls: Sequence[int]) -> Weights:
        return reference.loss_and_gradients(batches.batch(calls[-1]))

    return Phase(batches, call, found, expected)


def _train_step(batches: Batches, network: Network, reference: Reference) -> Phase:
    trained, done = cast(TrainableNetwork, network), cast(Any, None)

    def call(placed: Placed) -> None:
        nonlocal done
        done = trained.train_steps([placed])
        done.wait()

    def found() -> Weights:
        return {"losses": done.read().losses, **trained.weights()}

    def expected(calls: Sequence[int]) -> Weights:
        return reference.train(batches.batch(index) for index in calls)

    return Phase(batches, call, found, expected)


def _stream(
    steps: TimeSteps, problem: Problem, network: Network, reference: Reference
) -> Phase:
    """Return the phase of a real-time user: an input comes, its answer is awaited.

    Each call is one time step of one sequence, from an input on the host to the answer
    on the host. The state is carried where the network keeps it.
    """
    spec = problem.spec
    zero = np.zeros((spec.num_layers, 1, spec.hidden_size), spec.dtype)
    start = (zero,) * len(problem.cell.info.state_parts)
    state: Any = start
    outputs: Any = None
    latencies_s: list[float] = []

    def begin() -> None:
        nonlocal state
        state = start
        latencies_s.clear()

    def call(x: Array) -> None:
        nonlocal state, outputs
        begun = time.perf_counter()
        done = network.step(x, state)
        read = done.read()
        latencies_s.append(time.perf_counter() - begun)
        outputs = read.outputs
        state = read.state if done.carry is None else done.carry

    def expected(calls: Sequence[int]) -> Weights:
        every = reference.outputs(steps.sequence(calls))
        return {"outputs": every[:, -1:]}

    return Phase(
        steps, call, lambda: {"outputs": outputs}, expected, begin, latencies_s
    )
