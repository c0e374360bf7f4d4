"""The phases of a speed trial: the call that is timed, and what it must compute."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Handle,
    Network,
    Placed,
    TrainableNetwork,
    Weights,
)
from harness.measure.capacity import FEWEST_BATCHES
from harness.measure.problem import Problem
from harness.measure.readback import Reference

PHASES = ("forward", "loss_and_gradients", "train_step", "stream")

MOST_BYTES = 64 * 2**20
"""Most bytes of inputs of all batches that are placed at once."""


class Batches(list[Placed]):
    """Placed batches of the trial's training data, which calls take one by one.

    Attributes:
        place_s: Seconds of placing each batch, in order.
    """

    def __init__(self, problem: Problem, network: Network) -> None:
        super().__init__()
        self._problem, self._network = problem, network
        self.place_s: list[float] = []
        self.grow(FEWEST_BATCHES)

    def batch(self, index: int) -> Batch:
        """Return a batch as it was before it was placed."""
        return self._problem.batch("train", index)

    def grow(self, count: int) -> None:
        """Place batches until there are `count`, or as many as `MOST_BYTES` allow."""
        while len(self) < count:
            batch = self.batch(len(self))
            most = max(FEWEST_BATCHES, MOST_BYTES // batch.inputs.nbytes)
            if len(self) >= most:
                return
            start = time.perf_counter()
            self.append(self._network.place(batch))
            self.place_s.append(time.perf_counter() - start)


class TimeSteps(list[Array]):
    """Single time steps of sequences, one sequence at a time, on the host."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self._problem = problem
        self.grow(1)

    def grow(self, count: int) -> None:
        """Draw sequences until they have `count` time steps."""
        while len(self) < count:
            drawn = len(self) // self._problem.time_steps
            sequence = self._problem.batch("train", drawn, 1).inputs[0]
            self += [step[None] for step in sequence]

    def sequence(self, steps: Sequence[int]) -> Batch:
        """Return time steps as one sequence."""
        like = self._problem.batch("train", 0, 1)
        inputs = np.stack([self[step] for step in steps], axis=1)
        readouts = self._problem.spec.readouts(len(steps))
        targets = np.zeros((1, readouts, *like.targets.shape[2:]), like.targets.dtype)
        scored = np.ones((1, readouts), bool)
        return Batch(inputs, np.array([len(steps)]), targets, scored)


@dataclass
class Phase:
    """One phase.

    Attributes:
        inputs: The inputs that calls take one by one.
        call: Queues the work on an input, waits for it and keeps its result.
        found: Returns what the calls since `begin` have computed.
        expected: Computes the same with the reference, from the inputs of all calls.
        begin: Is called before a turn; discards the results of earlier calls.
        latencies_s: Seconds of single calls since `begin`, if each is timed alone.
    """

    inputs: Batches | TimeSteps
    call: Callable[[Any], None]
    found: Callable[[], Weights]
    expected: Callable[[Sequence[int]], Weights]
    begin: Callable[[], None] = lambda: None
    latencies_s: list[float] = field(default_factory=list)


def phases_of(
    problem: Problem, network: Network, reference: Reference
) -> dict[str, Phase]:
    """Return those phases of a trial that its implementation offers."""
    found: dict[str, Phase] = {}
    batches = None
    for name in PHASES:
        if name not in problem.phases:
            continue
        if name == "stream":
            found[name] = _stream(TimeSteps(problem), problem, network, reference)
        elif problem.trains or name == "forward":
            batches = batches or Batches(problem, network)
            found[name] = _of_batches(name, batches, network, reference)
    return found


def queued(name: str, network: Network) -> Callable[[Placed], Handle[Any]]:
    """Return the method of a network that queues a phase's work on a placed batch."""
    if name == "forward":
        return network.forward
    trained = cast(TrainableNetwork, network)
    if name == "loss_and_gradients":
        return trained.loss_and_gradients
    return lambda placed: trained.train_steps([placed])


def _of_batches(
    name: str, batches: Batches, network: Network, reference: Reference
) -> Phase:
    queue, done = queued(name, network), cast(Any, None)

    def call(placed: Placed) -> None:
        nonlocal done
        done = queue(placed)
        done.wait()

    def found() -> Weights:
        read = done.read()
        if name == "forward":
            return {"outputs": read.outputs}
        if name == "loss_and_gradients":
            return {"loss": np.array(read.loss), **read.gradients}
        return {"losses": read.losses, **network.weights()}

    def expected(calls: Sequence[int]) -> Weights:
        if name == "train_step":
            return reference.train(batches.batch(index) for index in calls)
        last = batches.batch(calls[-1])
        if name == "forward":
            return {"outputs": reference.outputs(last)}
        return reference.loss_and_gradients(last)

    return Phase(batches, call, found, expected)


def _stream(
    steps: TimeSteps, problem: Problem, network: Network, reference: Reference
) -> Phase:
    """Return the phase of a real-time user, who waits for the answer to each input.

    Each call is one time step of one sequence, from an input on the host to the answer
    on the host. The state stays where the network keeps it.
    """
    start = problem.zero_state()
    state, outputs = cast(Any, start), cast(Any, None)
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
