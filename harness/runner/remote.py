"""Networks of implementations that live in a runner, for one that judges."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import secrets
import subprocess
import sys
from collections import deque
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
from harness.errors import (
    MOST_REASON,
    InputError,
    PluginError,
    RefusedError,
    UnavailableError,
    shortened,
)
from harness.machine.orphans import end_children
from harness.machine.peak import Peak
from harness.runner.channel import Channel
from harness.runner.codec import Reference, decode, encode
from harness.runner.pipe import EndingPipe, Message, MessageError
from harness.runner.stopwatch import Taken

MOST_WAITING = 64
"""Most requests whose answers are not read yet: the pipe holds these answers."""

_END_S = 5.0
"""How long a runner may take to end by itself."""


class RunnerError(Exception):
    """Code of an implementation raised; the text is what a user reads.

    Attributes:
        out_of_memory: Whether memory was missing.
    """

    def __init__(self, text: str, out_of_memory: bool) -> None:
        super().__init__(text)
        self.out_of_memory = out_of_memory


class RunnerDiedError(Exception):
    """The runner ended, or answered with what is not an answer.

    Attributes:
        returncode: Its exit code; negative for a signal.
        answered: What is wrong with its answer, or None if there was none.
    """

    def __init__(self, returncode: int, answered: str | None = None) -> None:
        super().__init__(answered or f"the runner ended with {returncode}")
        self.returncode = returncode
        self.answered = answered


class RunnerProcess:
    """A `Runner` in a process of its own, which is started when it is first needed.

    Args:
        declared: The declarations of plugins that do not belong to this project.

    Attributes:
        written: A sentence for each array that a network was given and wrote into.
    """

    def __init__(self, declared: str) -> None:
        self._declared = declared
        self.written: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._waiting: deque[str] = deque()
        self._freed: list[int] = []

    # --- a runner --------------------------------------------------------------------

    def network(
        self, implementation: str, spec: NetworkSpec, device: str
    ) -> TrainableNetwork:
        """Build a network there."""
        made = self.make(None, "network", implementation, spec, device)
        return RemoteNetwork(self, made)

    def stopwatch(
        self, implementation: str, network: TrainableNetwork, start: State, device: str
    ) -> RemoteStopwatch:
        """Return a stopwatch for a network there."""
        of = cast(RemoteNetwork, network).reference
        made = self.make(None, "stopwatch", implementation, of, start, device)
        return RemoteStopwatch(self, made, network)

    def gauges(self, implementation: str, device: str) -> RemoteGauges:
        """Return gauges of the runner's memory."""
        return RemoteGauges(self, self.make(None, "gauges", implementation, device))

    def peak(
        self, implementation: str, device: str, dtype: str, precision: str
    ) -> Peak:
        """Measure the highest rates of a framework there."""
        found = self.ask(None, "peak", implementation, device, dtype, precision)
        return Peak.from_json(found)

    def begin(self) -> None:
        """Forget what is left of earlier trials: arrays written into, and mistakes."""
        with contextlib.suppress(RunnerDiedError):  # the next request reports it
            while self._waiting:
                with contextlib.suppress(*_MISTAKES):
                    self._answer()
        self.written.clear()

    def changes(self) -> list[str]:
        """Return what code of implementations has changed of the runner."""
        return [] if self._process is None else list(self.ask(None, "changes"))

    # --- requests --------------------------------------------------------------------

    def ask(self, of: Reference | None, method: str, *given: Any) -> Any:
        """Call a method there and return its result.

        Args:
            of: The object, or None for the runner itself.
            method: The method.
            given: Its arguments.

        Raises:
            RunnerError: If the method raises.
            RunnerDiedError: If the process ends.
        """
        self._request(of, method, given, None)
        while len(self._waiting) > 1:
            self._answer()
        return self._answer()

    def make(
        self, of: Reference | None, method: str, *given: Any, wait: bool = True
    ) -> Reference:
        """Call a method there whose result stays there.

        Args:
            of: The object, or None for the runner itself.
            method: The method.
            given: Its arguments.
            wait: False to return at once; a later call raises if this one has raised.
        """
        made = Reference(next(self._numbers))
        self._request(of, method, given, made)
        while len(self._waiting) > (0 if wait else MOST_WAITING):
            self._answer()
        return made

    def free(self, reference: Reference) -> None:
        """Forget an object there, with the next request."""
        self._freed.append(reference.number)

    def _request(
        self,
        of: Reference | None,
        method: str,
        given: Sequence[Any],
        made: Reference | None,
    ) -> None:
        channel = self.start()
        name = f"{self._name}-{next(self._numbers)}"
        freed, self._freed = self._freed, []
        asked = {
            "request": name,
            "of": of,
            "method": method,
            "given": tuple(given),
            "made": made,
            "freed": freed,
        }
        try:
            channel.send(encode(asked))
        except OSError:
            raise self._death() from None
        self._waiting.append(name)

    def _answer(self) -> Any:
        """Receive the answer to the request that waits longest."""
        assert self._channel is not None
        try:
            message = self._channel.receive()
            while (
                message is not None
                and message.values.get("request") != (self._waiting[0])
            ):
                # A copy of the process has answered an earlier request once more.
                message = self._channel.receive()
            if message is None:
                raise self._death()
            answer = decode(message)
            self.written += map(str, answer["written"])
            error = answer.get("error")
        except (MessageError, ValueError, KeyError, TypeError) as wrong:
            self.kill()
            raise RunnerDiedError(0, f"sent {wrong}") from None
        self._waiting.popleft()
        if error is not None:
            raise _raised(error)
        return answer["found"]

    # --- the process -----------------------------------------------------------------

    def start(self) -> Channel:
        """Start the process unless it runs; return the channel to it."""
        if self._channel is not None:
            return self._channel
        theirs, ours = os.pipe()
        answers, answering = os.pipe()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "harness.runner.serve",
                str(theirs),
                str(answering),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs, answering),
        )
        os.close(theirs)
        os.close(answering)
        process = self._process
        source = EndingPipe(answers, lambda: process.poll() is not None)
        self._channel = Channel(io.BufferedReader(source), os.fdopen(ours, "wb"))
        self._channel.send(Message({"declared": self._declared}))
        return self._channel

    def _death(self) -> RunnerDiedError:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self.kill()
        return RunnerDiedError(self._process.wait())

    def close(self) -> None:
        """Let the process end by itself; kill it if it does not."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        self.kill()

    def kill(self) -> None:
        """Kill the process and everything that it started."""
        if self._process is not None:
            self._process.kill()
        end_children()
        if self._process is not None:
            self._process.wait()


_MISTAKES = (PluginError, RefusedError, InputError, RunnerError)


def _raised(error: Mapping[str, Any]) -> Exception:
    """Return the exception that a runner described."""
    text = str(error["text"])
    match error["type"]:
        case "UnavailableError":
            return UnavailableError(str(error["plugin"]), text)
        case "PluginError":
            return PluginError(str(error["plugin"]), text)
        case "RefusedError":
            return RefusedError(text)
        case "InputError":
            return InputError(text)
    return RunnerError(text, bool(error["out_of_memory"]))


class _Remote:
    """An object in a runner; it is freed there when this one is."""

    def __init__(self, runner: RunnerProcess, reference: Reference) -> None:
        self._runner = runner
        self.reference = reference

    def __del__(self) -> None:
        self._runner.free(self.reference)

    def _ask(self, method: str, *given: Any) -> Any:
        return self._runner.ask(self.reference, method, *given)


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
        made = self._runner.make(self.reference, "place", batch, wait=False)
        return RemotePlaced(self._runner, made)

    def forward(
        self, placed: RemotePlaced, state: State | None = None
    ) -> Handle[Forward]:
        """Compute outputs and final state from a state; None means zeros."""
        return _done(self._ask("forward", placed.reference, state))

    def step(self, x: Array, state: State) -> Handle[Forward]:
        """Advance one time step."""
        return _done(self._ask("step", x, state))

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
        given = (placed.reference, state, d_outputs, tuple(d_final))
        return cast(Gradients, self._ask("vjp", *given))

    def loss_and_gradients(self, placed: RemotePlaced) -> Handle[LossAndGradients]:
        """Compute the loss and its gradient for every weight."""
        return _done(self._ask("loss_and_gradients", placed.reference))

    def train_steps(self, placed: Sequence[RemotePlaced]) -> Handle[Updates]:
        """Take one optimiser update on each batch, in order."""
        return _done(self._ask("train_steps", tuple(p.reference for p in placed)))

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
        self, runner: RunnerProcess, reference: Reference, network: TrainableNetwork
    ) -> None:
        super().__init__(runner, reference)
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
        of = cast(RemoteNetwork, network).reference
        values, first_s = self._ask("measure", phase, of, batch, start, calls)
        return values, float(first_s)
