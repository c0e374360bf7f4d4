"""The gradient for the state after t time steps is that of what continues from it.

The state is that of all layers. It is checked by splitting: the time steps after t run
from the state, which finite differences, the reference itself and torch differentiate
as an initial state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from harness.contract import Array, Batch, Inputs, Readout, State, Target
from harness.loading import build_network, load_cell
from implementations.numpy_reference.losses import loss_and_gradient
from implementations.numpy_reference.network import NumpyNetwork
from implementations.shared.network import PlacedBatch
from tests.helpers import REGISTRY, needs_torch
from tests.unit.backends.test_numpy_reference import CELLS, TOLERANCE, network, slope

TIME_STEPS, SHORTEST = 7, 3


@dataclass
class Split:
    """A network and a batch, which can be continued from any state."""

    net: NumpyNetwork
    batch: Batch
    every: bool

    @classmethod
    def of(cls, cell: str, layers: int, readout: Readout, *, padded: bool) -> Split:
        net, _, batch = network(
            cell,
            inputs=Inputs("reals", 2),
            target=Target.REAL,
            readout=readout,
            num_layers=layers,
        )
        lengths = [TIME_STEPS, 5, SHORTEST] if padded else [TIME_STEPS] * 3
        every = readout is Readout.EVERY
        scored = np.ones(batch.scored.shape, bool)
        if every:
            scored = np.arange(TIME_STEPS) < np.array(lengths)[:, None]
        return cls(net, replace(batch, lengths=np.array(lengths), scored=scored), every)

    def part(self, begin: int, end: int) -> Batch:
        batch, cut = self.batch, slice(begin, end) if self.every else slice(None)
        return Batch(
            batch.inputs[:, begin:end],
            np.clip(batch.lengths - begin, 1, end - begin),
            batch.targets[:, cut],
            batch.scored[:, cut],
        )

    def placed(self, begin: int, end: int) -> PlacedBatch:
        """Place a part; of a sequence that has ended before it, every step is padded.

        Users may give no sequence of length zero.
        """
        placed = self.net.place(self.part(begin, end))
        if not self.batch.padded:
            return placed
        steps = np.arange(begin, end)[:, None, None]
        return placed._replace(padding=steps < self.batch.lengths[:, None])

    def state_at(self, t: int) -> State:
        start = tuple(np.zeros((self.net._spec.num_layers, 3, 5)) for _ in self.parts)
        if t == 0:
            return start
        return self.net.forward(self.placed(0, t), start).read().state

    @property
    def parts(self) -> tuple[str, ...]:
        return load_cell(REGISTRY, self.net._spec.cell).info.state_parts

    def outputs_from(self, t: int, state: State) -> Array:
        """Return all outputs, those before t as zeros: they do not depend on it."""
        read = state[0][-1] @ self.net._weights["readout.w"].T
        answer = (read + self.net._weights["readout.b"])[:, None]
        if t == TIME_STEPS and not self.every:
            return answer
        outputs = np.zeros((3, 0, 3))
        if t < TIME_STEPS:
            rest = self.placed(t, TIME_STEPS)
            outputs = self.net.forward(rest, state).read().outputs
        if not self.every or t == 0:
            return outputs
        # A padded answer is not read from the state.
        answer = answer * (t <= self.batch.lengths)[:, None, None]
        return np.concatenate([np.zeros((3, t - 1, 3)), answer, outputs], axis=1)

    def cotangent(self) -> Array:
        shape = (3, TIME_STEPS if self.every else 1, 3)
        return np.random.default_rng(4).standard_normal(shape)


ALL = [
    (layers, readout, padded)
    for layers in (1, 2, 3)
    for readout in Readout
    for padded in (False, True)
]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("layers", "readout", "padded"), ALL)
@pytest.mark.parametrize("of_loss", [True, False], ids=["loss", "cotangent"])
def test_state_gradients_are_the_slopes_of_what_continues_from_the_state(
    cell: str, layers: int, readout: Readout, padded: bool, of_loss: bool
) -> None:
    split = Split.of(cell, layers, readout, padded=padded)
    batch, cotangent = split.batch, split.cotangent()
    given = None if of_loss else cotangent
    found = split.net.state_gradients(split.net.place(batch), given)
    whole = split.net.forward(split.net.place(batch)).read().outputs
    rng = np.random.default_rng(5)

    for t in (0, 2, SHORTEST, TIME_STEPS - 1, TIME_STEPS):
        state = split.state_at(t)
        for layer in range(layers):
            directions = [rng.standard_normal((3, 5)) for _ in state]

            def value(step: float, t: int = t, layer: int = layer) -> float:
                moved = tuple(part.copy() for part in state)  # noqa: B023
                for part, d in zip(moved, directions, strict=True):  # noqa: B023
                    part[layer] += step * d
                outputs = split.outputs_from(t, moved)
                if of_loss:
                    before = max(t - 1, 0) if split.every else 0
                    outputs[:, :before] = whole[:, :before]
                    return loss_and_gradient(
                        Target.REAL, outputs, batch.targets, batch.scored
                    )[0]
                return float(np.sum(outputs * cotangent))

            pairs = zip(found, directions, strict=True)
            gradient = sum(float(np.sum(part[t, layer] * d)) for part, d in pairs)
            assert gradient == pytest.approx(slope(value), abs=TOLERANCE), (t, layer)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("readout", list(Readout))
def test_state_gradients_are_those_of_the_initial_state_of_the_rest(
    cell: str, layers: int, readout: Readout
) -> None:
    """What the certificate compares as `grad state at split` stands for all of them."""
    split = Split.of(cell, layers, readout, padded=False)
    rest_alone = split.cotangent()
    middle = TIME_STEPS // 2
    if split.every:
        rest_alone[:, :middle] = 0
    found = split.net.state_gradients(split.net.place(split.batch), rest_alone)
    rest = split.net.place(split.part(middle, TIME_STEPS))
    zero = tuple(np.zeros((layers, 3, 5)) for _ in split.parts)
    d_rest = rest_alone[:, middle:] if split.every else rest_alone
    expected = split.net.vjp(rest, split.state_at(middle), d_rest, zero).state
    for part, tensor in zip(found, expected, strict=True):
        np.testing.assert_allclose(part[middle], tensor, rtol=1e-12, atol=1e-15)


@needs_torch
@pytest.mark.parametrize("cell", ["rnn", "rnn-relu", "gru", "lstm"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_state_gradients_agree_with_torch_by_splitting(
    cell: str, layers: int, padded: bool
) -> None:
    split = Split.of(cell, layers, Readout.LAST, padded=padded)
    spec = split.net._spec
    declared = load_cell(REGISTRY, cell)
    torch_network = build_network(REGISTRY, "torch-native", spec, declared, "cpu")
    torch_network.load_weights(split.net.weights())
    cotangent = split.cotangent()
    found = split.net.state_gradients(split.net.place(split.batch), cotangent)
    zero = tuple(np.zeros((layers, 3, 5)) for _ in split.parts)
    # torch packs no sequence of length zero.
    for t in range(min(split.batch.lengths)):
        rest = torch_network.place(split.part(t, TIME_STEPS))
        expected = torch_network.vjp(rest, split.state_at(t), cotangent, zero).state
        for part, tensor in zip(found, expected, strict=True):
            np.testing.assert_allclose(part[t], tensor, rtol=1e-10, atol=1e-14)
