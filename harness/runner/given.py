"""A network that gets copies, is caught writing into them, and answers in due form.

What a network is given belongs to the caller, who still needs it: the reference is
computed from the same batch. A network that writes into its own copy changes nothing
else, but it would change a user's batch, so that the mistake is reported by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Forward,
    Gradients,
    Handle,
    LossAndGradients,
    Network,
    Placed,
    State,
    TrainableNetwork,
    Updates,
    Weights,
)
from harness.runner.returned import Form, handle, next_state

R = TypeVar("R")


class Given:
    """Arrays that a network is given, beside what they must still hold afterwards.

    Args:
        arrays: By name.
        form: How a report names one, with its name in place of the braces.

    Attributes:
        copies: The arrays that the network gets, by name.
    """

    def __init__(self, arrays: Mapping[str, Array], form: str = "{}") -> None:
        self._form = form
        self._kept = {n: np.array(a, order="C") for n, a in arrays.items()}
        self.copies = {n: a.copy() for n, a in self._kept.items()}

    def written(self) -> list[str]:
        """Return the arrays that have been written into since this was last asked."""
        found = [n for n, kept in self._kept.items() if not _same(kept, self.copies[n])]
        self._kept |= {name: np.array(self.copies[name], order="C") for name in found}
        return [self._form.format(name) for name in found]


def _same(kept: Array, found: Array) -> bool:
    """Say whether two arrays are equal to the bit."""
    if (kept.shape, kept.dtype) != (found.shape, found.dtype):
        return False
    return kept.tobytes() == found.tobytes()


@dataclass(frozen=True)
class GivenBatch:
    """A placed batch, and the arrays that it was placed from."""

    placed: Placed
    given: Given

    @property
    def sizes(self) -> tuple[int, int]:
        """Sequences and time steps."""
        batch, time_steps = self.given.copies["inputs"].shape[:2]
        return batch, time_steps

    @property
    def answers(self) -> tuple[int, int]:
        """Sequences and readouts."""
        batch, readouts = self.given.copies["scored"].shape[:2]
        return batch, readouts


class GuardedNetwork:
    """A `TrainableNetwork` around another one, which gets copies only.

    Args:
        network: The network of an implementation.
        report: Called with a sentence for each array that the network wrote into.
        form: What the network must return.

    Attributes:
        network: The network of the implementation itself.
        form: What it must return.
    """

    def __init__(
        self, network: TrainableNetwork, report: Callable[[str], None], form: Form
    ) -> None:
        self.network, self.form = network, form
        self._report = report
        self._loaded: dict[str, Given] = {}

    def _check(self, call: str, *given: Given) -> None:
        # A network may have kept what it loaded, and may write into it much later.
        for each in (*given, *self._loaded.values()):
            for name in each.written():
                self._report(f"`{call}` wrote into {name}")

    def _checked(
        self,
        call: str,
        found: object,
        in_form: Callable[[object], R],
        *given: Given,
    ) -> Handle[R]:
        queued = handle(call, found)

        def read() -> R:
            result = in_form(queued.read())
            self._check(call, *given)
            return result

        return Handle(queued.wait, read, queued.carry)

    def load_weights(self, weights: Weights) -> None:
        """Load copies of the weights."""
        given = Given(weights, "weights['{}']")
        self.network.load_weights(dict(given.copies))
        self._loaded["load_weights"] = given
        self._check("load_weights")

    def weights(self) -> Weights:
        """Return the canonical weights."""
        return self.form.weights("weights", self.network.weights())

    def place(self, batch: Batch) -> GivenBatch:
        """Place a copy of a batch."""
        given = Given(vars(batch), "batch.{}")
        placed = self.network.place(Batch(**given.copies))
        self._check("place", given)
        return GivenBatch(placed, given)

    def forward(
        self, placed: GivenBatch, state: State | None = None
    ) -> Handle[Forward]:
        """Compute outputs and final state from a copy of the state."""
        given, mine = _of_state(state)
        found = self.network.forward(placed.placed, mine)

        def in_form(read: object) -> Forward:
            return self.form.forward("forward", read, *placed.answers)

        return self._checked("forward", found, in_form, placed.given, given)

    def step(self, x: Array, state: State | Any) -> Handle[Forward]:
        """Advance one time step from copies of the input and of the state."""
        entering = Given({"x": x})
        # A carry is the network's own.
        arrays = isinstance(state[0], np.ndarray)
        given, mine = _of_state(state if arrays else None)
        found = self.network.step(entering.copies["x"], mine if arrays else state)

        def in_form(read: object) -> Forward:
            return self.form.forward("step", read, x.shape[0], 1)

        return self._checked("step", found, in_form, entering, given)

    def stream(self, xs: Array, state: State) -> Forward:
        """Advance over inputs [batch, time, input] as a stream does: see `streamed`."""
        return _streamed(self, xs, state)

    def kernel(self) -> str:
        """Return what really ran, from evidence."""
        return self.form.kernel("kernel", self.network.kernel())

    def vjp(
        self,
        placed: GivenBatch,
        state: State | None,
        d_outputs: Array,
        d_final: State,
    ) -> Gradients:
        """Pull copies of cotangents back to all that entered."""
        given, mine = _of_state(state)
        outputs = Given({"d_outputs": d_outputs})
        final = Given({str(i): part for i, part in enumerate(d_final)}, "d_final[{}]")
        mine_outputs, mine_final = outputs.copies["d_outputs"], final.copies.values()
        found = self.network.vjp(placed.placed, mine, mine_outputs, tuple(mine_final))
        self._check("vjp", placed.given, given, outputs, final)
        return self.form.gradients("vjp", found, *placed.sizes)

    def loss_and_gradients(self, placed: GivenBatch) -> Handle[LossAndGradients]:
        """Compute the loss and its gradient for every weight."""
        found = self.network.loss_and_gradients(placed.placed)

        def in_form(read: object) -> LossAndGradients:
            return self.form.loss_and_gradients("loss_and_gradients", read)

        return self._checked("loss_and_gradients", found, in_form, placed.given)

    def train_steps(self, placed: Sequence[GivenBatch]) -> Handle[Updates]:
        """Take one optimiser update on each batch."""
        found = self.network.train_steps([each.placed for each in placed])

        def in_form(read: object) -> Updates:
            return self.form.updates("train_steps", read, len(placed))

        given = (each.given for each in placed)
        return self._checked("train_steps", found, in_form, *given)

    def optimizer_state(self) -> dict[str, Array]:
        """Return `updates` and the moments of every tensor."""
        return self.form.moments("optimizer_state", self.network.optimizer_state())

    def load_optimizer_state(self, arrays: Mapping[str, Array]) -> None:
        """Load copies of what `optimizer_state` returned."""
        given = Given(arrays, "arrays['{}']")
        self.network.load_optimizer_state(dict(given.copies))
        self._loaded["load_optimizer_state"] = given
        self._check("load_optimizer_state")


def _of_state(state: State | None) -> tuple[Given, State | None]:
    """Return a state as given arrays and as the copies that a network gets."""
    given = Given({str(i): part for i, part in enumerate(state or ())}, "state[{}]")
    return given, None if state is None else tuple(given.copies.values())


def streamed(network: Network, xs: Array, state: State) -> Forward:
    """Advance one time step after another; return the last answer.

    Each step takes what the one before carries in the network's own form, if it carries
    anything. That stays in the process of the network. Each is taken twice, and the
    second one counts: a step may not change the state that it is given.

    Args:
        network: The network.
        xs: Inputs [batch, time, input] or tokens [batch, time].
        state: The state before them.
    """
    there = getattr(network, "stream", None)
    return _streamed(network, xs, state) if there is None else there(xs, state)


def _streamed(network: Network, xs: Array, state: State) -> Forward:
    for time_step in range(xs.shape[1]):
        network.step(xs[:, time_step], state).wait()
        done = network.step(xs[:, time_step], state)
        read = done.read()
        state = next_state(done, read)
    return read


def own(network: TrainableNetwork) -> TrainableNetwork:
    """Return the implementation's own network, since copying must not be timed."""
    return network.network if isinstance(network, GuardedNetwork) else network
