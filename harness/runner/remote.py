"""Networks of implementations in a runner, as the judging process sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from harness.contract import (
    Array,
    Batch,
    Forward,
    Gradients,
    Handle,
    LossAndGradients,
    NetworkSpec,
    State,
    TrainableNetwork,
    Updates,
    Weights,
)
from harness.errors import MOST_REASON, shortened
from harness.machine.peak import Peak
from harness.runner.codec import ObjectId
from harness.runner.process import RunnerProcess
from harness.runner.stopwatch import Taken


class RemoteRunner:
    """A `Runner` in a process of its own.

    Attributes:
        written: A sentence for each array that a network was given and wrote into.
    """

    def __init__(self, process: RunnerProcess) -> None:
        self._process = process
        self.written = process.written

    def network(
        self, implementation: str, spec: NetworkSpec, device: str
    ) -> TrainableNetwork:
        """Build a network there."""
        made = self._process.make(None, "network", implementation, spec, device)
        return RemoteNetwork(self._process, made)

    def stopwatch(
        self, implementation: str, network: TrainableNetwork, start: State, device: str
    ) -> RemoteStopwatch:
        """Return a stopwatch for a network there."""
        of = cast(RemoteNetwork, network).id
        made = self._process.make(None, "stopwatch", implementation, of, start, device)
        return RemoteStopwatch(self._process, made, network)

    def gauges(self, implementation: str, device: str) -> RemoteGauges:
        """Return gauges of the runner's memory."""
        made = self._process.make(None, "gauges", implementation, device)
        return RemoteGauges(self._process, made)

    def peak(
        self, implementation: str, device: str, dtype: str, precision: str
    ) -> Peak:
        """Measure the highest rates of a framework there."""
        given = (implementation, device, dtype, precision)
        return cast(Peak, self._process.ask(None, "peak", *given))

    def begin(self) -> None:
        """Forget what is left of earlier trials."""
        self._process.forget()

    def changes(self, asked: str) -> dict[str, list[str]]:
        """Return what code of implementations has changed of the runner, and whose."""
        if not self._process.started:
            return {}
        found = dict(self._process.ask(None, "changes", asked))
        return {who: [*changes] for who, changes in found.items()}


class _Remote:
    """An object in a runner; it is freed there when this one is."""

    def __init__(self, process: RunnerProcess, id: ObjectId) -> None:
        self._process = process
        self.id = id

    def __del__(self) -> None:
        self._process.free(self.id)

    def _ask(self, method: str, *given: Any) -> Any:
        return self._process.ask(self.id, method, *given)


class RemotePlaced(_Remote):
    """A batch that is placed in a runner."""


class RemoteNetwork(_Remote):
    """A `TrainableNetwork` in a runner."""

    def load_weights(self, weights: Weights) -> None:
        """Take canonical weights."""
        self._ask("load_weights", weights)

    def weights(self) -> Weights:
        """Return the canonical weights."""
        return cast(Weights, self._ask("weights"))

    def place(self, batch: Batch) -> RemotePlaced:
        """Send a batch to its device; a mistake is raised by a later call."""
        made = self._process.make(self.id, "place", batch, wait=False)
        return RemotePlaced(self._process, made)

    def forward(
        self, placed: RemotePlaced, state: State | None = None
    ) -> Handle[Forward]:
        """Compute outputs and final state from a state; None means zeros."""
        return _done(self._ask("forward", placed.id, state))

    def step(self, x: Array, state: State) -> Handle[Forward]:
        """Advance one time step."""
        return _done(self._ask("step", x, state))

    def stream(self, xs: Array, state: State) -> Forward:
        """Advance over inputs [batch, time, input]; what is carried stays there."""
        return cast(Forward, self._ask("stream", xs, state))

    def kernel(self) -> str:
        """Return what really ran."""
        return shortened(str(self._ask("kernel")), MOST_REASON)

    def vjp(
        self,
        placed: RemotePlaced,
        state: State | None,
        d_outputs: Array,
        d_final: State,
    ) -> Gradients:
        """Pull cotangents of outputs and final state back to all that entered."""
        given = (placed.id, state, d_outputs, tuple(d_final))
        return cast(Gradients, self._ask("vjp", *given))

    def loss_and_gradients(self, placed: RemotePlaced) -> Handle[LossAndGradients]:
        """Compute the loss and its gradient for every weight."""
        return _done(self._ask("loss_and_gradients", placed.id))

    def train_steps(self, placed: Sequence[RemotePlaced]) -> Handle[Updates]:
        """Take one optimiser update on each batch, in order."""
        return _done(self._ask("train_steps", tuple(p.id for p in placed)))

    def optimizer_state(self) -> dict[str, Array]:
        """Return the number of updates and the moments of every tensor."""
        return cast(dict[str, Array], self._ask("optimizer_state"))

    def load_optimizer_state(self, arrays: Mapping[str, Array]) -> None:
        """Take what `optimizer_state` returned."""
        self._ask("load_optimizer_state", arrays)


def _done(found: Any) -> Handle[Any]:
    return Handle(lambda: None, lambda: found)


class RemoteStopwatch(_Remote):
    """A `Stopwatch` in a runner, and the network that it times."""

    def __init__(
        self, process: RunnerProcess, id: ObjectId, network: TrainableNetwork
    ) -> None:
        super().__init__(process, id)
        self._network = network

    def place(self, batch: Batch) -> float:
        """Place a batch; return how many seconds that took."""
        return float(self._ask("place", batch))

    def add_steps(self, inputs: Array) -> None:
        """Add time steps of a sequence for `stream`."""
        self._ask("add_steps", inputs)

    def begin(self, phase: str, weights: Weights) -> None:
        """Load weights and discard the results of the phase's earlier calls."""
        self._ask("begin", phase, weights)

    def warm_up(self, phase: str, inputs: int) -> tuple[float, bool]:
        """Call with the first inputs in turn until calls get no faster."""
        first_s, stationary = self._ask("warm_up", phase, inputs)
        return float(first_s), bool(stationary)

    def fresh_call_s(self, phase: str, inputs: int) -> float:
        """Return the shortest time of a call with each of the first inputs, once."""
        return float(self._ask("fresh_call_s", phase, inputs))

    def turn(
        self, phase: str, inputs: tuple[int, ...], loops: int, readings: int
    ) -> Taken:
        """Take a reading that is dropped, then those that are kept."""
        return cast(Taken, self._ask("turn", phase, inputs, loops, readings))

    def found(self) -> Weights:
        """Return what the calls of the last turn computed."""
        return cast(Weights, self._ask("found"))

    def flushes_subnormals(self) -> bool | None:
        """Return whether the framework sets subnormal numbers to zero, if known."""
        found = self._ask("flushes_subnormals")
        return None if found is None else bool(found)


class RemoteGauges(_Remote):
    """The `Gauges` of a runner."""

    def measure(
        self,
        phase: str,
        network: TrainableNetwork,
        batch: Batch,
        start: State,
        calls: int,
    ) -> tuple[dict[str, int], float]:
        """Return the peaks during some calls, and the seconds of the first."""
        of = cast(RemoteNetwork, network).id
        values, first_s = self._ask("measure", phase, of, batch, start, calls)
        return values, float(first_s)
