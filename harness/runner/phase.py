"""What one call of a phase does with a network, and what it computes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from harness.contract import (
    Array,
    Forward,
    Handle,
    Network,
    Placed,
    State,
    TrainableNetwork,
    Weights,
)
from harness.runner.returned import handle, method_of, next_state

InForm = Callable[[Any], Any]
"""Returns what a call has computed, or raises if it has a wrong form."""


def any_form(read: Any) -> Any:
    """Return what a call has computed, whatever it is."""
    return read


class Phase(ABC):
    """Calls of a network, each with an input of its own."""

    latencies_s: Sequence[float] = ()

    @abstractmethod
    def call(self, ready: Any) -> None:
        """Queue the work on an input, wait for it and keep its result."""

    @abstractmethod
    def found(self) -> Weights:
        """Return what the calls since `begin` have computed."""

    def begin(self) -> None:  # noqa: B027  # most phases keep nothing
        """Discard the results of earlier calls."""


def queued(name: str, network: Network) -> Callable[[Placed], Handle[Any]]:
    """Return the method of a network that queues a phase's work on a placed batch."""
    if name == "forward":
        return network.forward
    trained = cast(TrainableNetwork, network)
    if name == "loss_and_gradients":
        return trained.loss_and_gradients
    return lambda placed: trained.train_steps([placed])


class BatchPhase(Phase):
    """A phase that computes a whole batch in each call.

    Args:
        name: The phase.
        network: The network.
        in_form: Returns the result of a call, or raises if it has a wrong form.
    """

    def __init__(self, name: str, network: Network, in_form: InForm = any_form) -> None:
        self._name, self._network, self._in_form = name, network, in_form
        self._queue = queued(name, network)
        self._done: Handle[Any] | None = None

    def call(self, ready: Placed) -> None:
        """Compute a placed batch."""
        done = self._done = self._queue(ready)
        if not isinstance(done, Handle):  # asked here, since a call would take time
            handle(method_of(self._name), done)
        done.wait()

    def found(self) -> Weights:
        """Return the result of the last call, in training the weights after it."""
        assert self._done is not None
        read = self._in_form(self._done.read())
        if self._name == "forward":
            return {"outputs": read.outputs}
        if self._name == "loss_and_gradients":
            return {"loss": np.array(read.loss), **read.gradients}
        return {"losses": read.losses, **self._network.weights()}


class StreamPhase(Phase):
    """The phase of a real-time user, who waits for the answer to each input.

    Each call is one time step of one sequence, from an input on the host to the answer
    on the host. The state stays where the network keeps it.

    Args:
        network: The network.
        start: The state before a sequence.
        in_form: Returns the result of a call, or raises if it has a wrong form.
    """

    def __init__(
        self, network: Network, start: State, in_form: InForm = any_form
    ) -> None:
        self._network, self._start, self._in_form = network, start, in_form
        self._state: Any = start
        self._outputs: Array = np.empty(0)
        self.latencies_s: list[float] = []

    def begin(self) -> None:
        """Begin again from the state before a sequence."""
        self._state = tuple(part.copy() for part in self._start)
        self.latencies_s.clear()

    def call(self, ready: Array) -> None:
        """Advance one time step."""
        begun = time.perf_counter()
        done = self._network.step(ready, self._state)
        if not isinstance(done, Handle):  # asked here, since a call would take time
            handle("step", done)
        read = done.read()
        # Shapes are looked at in the first call of a turn, which is dropped.
        if not self.latencies_s or not isinstance(read, Forward):
            self._in_form(read)
        self.latencies_s.append(time.perf_counter() - begun)
        self._outputs = read.outputs
        self._state = next_state(done, read)

    def found(self) -> Weights:
        """Return the answer of the last call."""
        return {"outputs": self._outputs}
