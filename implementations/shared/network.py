"""What the networks of all frameworks share: checks, conversion and results.

A backend computes with its own tensors and nothing else: it says how an array becomes
a tensor and back, runs its layers, and takes an update.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Cell,
    Forward,
    Gradients,
    Handle,
    LossAndGradients,
    NetworkSpec,
    State,
    Target,
    Tensor,
    Updates,
    Weights,
)
from implementations.shared import batches, optimizers
from implementations.shared.layout import Layout, NetworkLayout

Tensors = Mapping[str, Tensor]
Parts = tuple[Tensor, ...]
"""A state: one tensor [layers, batch, hidden] for each part."""
Start = Any
"""The state before the first time step: `Parts`, or None if that is a framework's zero.
"""


class PlacedBatch(NamedTuple):
    """A batch on its device.

    Attributes:
        x: [time, batch, input] reals or one-hot vectors, or tokens [time, batch]; the
            batch comes first where a network says so.
        padding: What tells a framework where sequences end; None where all are of the
            same length.
        targets: int [batch, readouts] or [batch, readouts, output].
        weights: [batch, readouts]: 1 / (number of scored positions) where scored, else
            0, so that the mean loss is a weighted sum.
    """

    x: Tensor
    padding: Tensor | None
    targets: Tensor
    weights: Tensor


class InferenceNetwork(ABC):
    """Stacked layers with a linear readout, in the tensors of a framework.

    This class has the methods of `harness.contract.Network`. They check what is given,
    convert it, and ask the methods that begin with an underscore to compute.

    Args:
        spec: Sizes and readout.
        cell: Names the canonical tensors and the state parts.
        layouts: How each layer keeps its weights.
    """

    _batch_axis: ClassVar[int] = 1
    """Axis of the sequences in `PlacedBatch.x`; time is the other one of the first two.
    """
    _weights: dict[str, Any]
    """Every tensor of the network: `layer0.kernel`, `readout.w`."""

    def __init__(
        self, spec: NetworkSpec, cell: Cell, layouts: Sequence[Layout]
    ) -> None:
        self._spec = spec
        self._parts = len(cell.info.state_parts)
        self._shapes = spec.weight_shapes(cell)
        self._layout = NetworkLayout(self._shapes, layouts)

    # --- what a framework computes ---------------------------------------------------

    # By default tensors are arrays of numpy, and every call returns when it is done.

    def _put(self, array: Array) -> Tensor:
        """Return an array as a tensor on the device."""
        return array

    def _real(self, array: Array | float) -> Tensor:
        """Return an array as a tensor on the device, in the network's dtype."""
        return self._put(np.asarray(array, self._spec.dtype))

    def _on_host(self, tensors: Any) -> Any:
        """Return a tensor, or nested tuples and dicts of tensors, as arrays."""
        return tensors

    def _wait(self, tensors: Any) -> None:
        """Wait until these tensors are computed."""
        del tensors

    def _assign(self, held: dict[str, Any], arrays: Weights) -> None:
        """Replace the tensors that are held under these names."""
        for name, array in arrays.items():
            held[name] = self._real(array.copy())

    def _padding(self, batch: Batch) -> Tensor:
        """Return what tells the framework where the sequences of a padded batch end.

        By default it is bool [time, batch, 1], False from a sequence's end on.
        """
        return self._put(batches.running(batch)[..., None])

    @abstractmethod
    def _forward(
        self, x: Tensor, padding: Tensor | None, state: Start
    ) -> tuple[Tensor, Parts]:
        """Return outputs [batch, readouts, output] and the final state."""

    def _zero_state(self, batch: int) -> Start:
        """Return the state before the first time step."""
        shape = (self._spec.num_layers, batch, self._spec.hidden_size)
        return (self._real(np.zeros(shape, self._spec.dtype)),) * self._parts

    def _zeros(self) -> Weights:
        """Return zeros on the host for every tensor of the network."""
        shapes, dtype = self._layout.shapes, self._spec.dtype
        return {name: np.zeros(shape, dtype) for name, shape in shapes.items()}

    def _zero_tensors(self) -> dict[str, Tensor]:
        """Return a zero tensor for every tensor of the network."""
        return {name: self._real(array) for name, array in self._zeros().items()}

    def _settings(self) -> AbstractContextManager[object]:
        """Return the context of everything that the framework computes."""
        return nullcontext()

    # --- the contract ----------------------------------------------------------------

    def load_weights(self, weights: Weights) -> None:
        """Take canonical weights.

        Raises:
            InputError: If a tensor is missing, misshapen or not finite.
        """
        batches.check_weights(self._shapes, weights, self._spec.dtype)
        with self._settings():
            self._assign(self._weights, self._layout.from_canonical(weights))

    def weights(self) -> Weights:
        """Return the canonical weights."""
        return self._layout.values(self._on_host(self._weights))

    def place(self, batch: Batch) -> PlacedBatch:
        """Bring a batch to the device; tokens of few kinds become one-hot vectors.

        Raises:
            InputError: If the batch does not fit the network.
        """
        batches.check_batch(self._spec, batch)
        x, targets = batch.inputs, batch.targets
        if self._batch_axis == 1:
            x = np.swapaxes(x, 0, 1)
        if self._spec.target is Target.REAL:
            targets = targets.astype(self._spec.dtype)
        with self._settings():
            return PlacedBatch(
                self._put(batches.encode(self._spec, x)),
                self._padding(batch) if batch.padded else None,
                self._put(targets),
                self._real(batch.scored / batch.scored.sum()),
            )

    def forward(
        self, placed: PlacedBatch, state: State | None = None
    ) -> Handle[Forward]:
        """Compute outputs [batch, readouts, output] and the final state."""
        return self._answer(placed.x, placed.padding, state)

    def step(self, x: Array, state: State | Any) -> Handle[Forward]:
        """Advance one time step and answer, whatever the readout."""
        batches.check_inputs(self._spec, x, dimensions=1)
        one = np.expand_dims(batches.encode(self._spec, x), 1 - self._batch_axis)
        with self._settings():
            entering = self._put(one)
        return self._answer(entering, None, state)

    def _answer(
        self, x: Tensor, padding: Tensor | None, state: State | Any
    ) -> Handle[Forward]:
        with self._settings():
            before = self._state(state, x.shape[self._batch_axis])
            found = self._forward(x, padding, before)

        def read() -> Forward:
            return Forward(*self._on_host(found))

        # An array is checked when it comes back as a state; a tensor is the network's.
        carried = not isinstance(found[0], np.ndarray)
        return Handle(lambda: self._wait(found), read, found[1] if carried else None)

    def _state(self, state: State | Any, batch: int) -> Start:
        """Return a state as tensors; it may be what an earlier handle carries."""
        if state is None:
            return self._zero_state(batch)
        if not isinstance(state[0], np.ndarray):
            return tuple(state)
        batches.check_state(self._spec, self._parts, state, batch)
        return tuple(self._real(part) for part in state)

    def _zero_input(self, *sizes: int) -> Tensor:
        """Return zeros that may enter, of these first two sizes."""
        inputs = self._spec.inputs
        tokens = inputs.kind == "tokens"
        zeros = np.zeros(sizes, int) if tokens else np.zeros((*sizes, inputs.size))
        return self._put(batches.encode(self._spec, zeros))

    @abstractmethod
    def kernel(self) -> str:
        """Say what really ran, from evidence."""


class SharedNetwork(InferenceNetwork):
    """A network that also trains: it has `harness.contract.TrainableNetwork`'s methods.

    Args:
        spec: Sizes and readout, loss and optimiser.
        cell: Names the canonical tensors and the state parts.
        layouts: How each layer keeps its weights.
    """

    _moments: Mapping[str, dict[str, Any]]
    """The optimiser's moments by name, each of every tensor."""
    _updates = 0

    @property
    def _needed(self) -> Weights:
        """For tensors with entries that are not trained, 0 there and 1 elsewhere."""
        return self._layout.needed if self._spec.biases == "canonical" else {}

    # --- what a framework computes ---------------------------------------------------

    @abstractmethod
    def _pull(
        self,
        placed: PlacedBatch,
        state: Start,
        d_outputs: Tensor,
        d_final: Parts,
    ) -> tuple[Tensors, Tensor, Parts]:
        """Return gradients of the weights, of what entered and of the state."""

    @abstractmethod
    def _loss_and_gradients(self, placed: PlacedBatch) -> tuple[Tensor, Tensors]:
        """Return the loss and the gradient of every weight."""

    @abstractmethod
    def _update(self, placed: PlacedBatch) -> tuple[Tensor, Tensor]:
        """Take update number `_updates`.

        Returns the loss before it and the gradients' norm before clipping.
        """

    def _wait_for_updates(self, done: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Wait until these updates are taken."""
        self._wait(done)

    def _scalars(self, values: Sequence[Tensor]) -> Array:
        """Return scalars as one array on the host."""
        return np.array(self._on_host(values))

    def _assign_moments(self, moments: Mapping[str, Weights]) -> None:
        """Replace the moments, laid out as the weights, by these or else by zeros."""
        for name, held in self._moments.items():
            self._assign(held, moments.get(name) or self._zeros())

    # --- the contract ----------------------------------------------------------------

    def load_weights(self, weights: Weights) -> None:
        """Take canonical weights and forget the optimiser's moments.

        Raises:
            InputError: If a tensor is missing, misshapen or not finite.
        """
        super().load_weights(weights)
        self.load_optimizer_state({})

    def vjp(
        self,
        placed: PlacedBatch,
        state: State | None,
        d_outputs: Array,
        d_final: State,
    ) -> Gradients:
        """Pull cotangents of outputs and final state back to all that entered."""
        batch = placed.x.shape[self._batch_axis]
        time_steps = placed.x.shape[1 - self._batch_axis]
        batches.check_cotangents(
            self._spec, self._parts, d_outputs, d_final, time_steps
        )
        with self._settings():
            before = self._state(state, batch)
            cotangents = self._real(d_outputs), tuple(map(self._real, d_final))
            found = self._pull(placed, before, *cotangents)
            d_weights, d_x, d_state = map(self._on_host, found)
        if self._batch_axis == 1:
            d_x = np.swapaxes(d_x, 0, 1)
        return Gradients(self._layout.gradients(d_weights), d_x, d_state)

    def loss_and_gradients(self, placed: PlacedBatch) -> Handle[LossAndGradients]:
        """Compute the mean loss over scored positions and every weight's gradient."""
        with self._settings():
            found = self._loss_and_gradients(placed)

        def read() -> LossAndGradients:
            loss, gradients = map(self._on_host, found)
            return LossAndGradients(float(loss), self._layout.gradients(gradients))

        return Handle(lambda: self._wait(found), read)

    def train_steps(self, placed: Sequence[PlacedBatch]) -> Handle[Updates]:
        """Take one optimiser update on each batch."""
        done = []
        with self._settings():
            for batch in placed:
                self._updates += 1
                done.append(self._update(batch))

        def read() -> Updates:
            return Updates(*map(self._scalars, zip(*done, strict=True)))

        return Handle(lambda: self._wait_for_updates(done), read)

    def optimizer_state(self) -> dict[str, Array]:
        """Return `updates` and the moments of every tensor, in canonical layout."""
        if self._updates == 0:
            return {}
        arrays: dict[str, Array] = {"updates": np.asarray(self._updates, np.int64)}
        for name, moments in self._moments.items():
            for tensor, array in self._layout.gradients(self._on_host(moments)).items():
                arrays[f"{name}/{tensor}"] = array
        return arrays

    def load_optimizer_state(self, arrays: Mapping[str, Array]) -> None:
        """Take what `optimizer_state` returned."""
        self._updates = int(arrays.get("updates", 0))
        names = optimizers.moments(self._spec.optimizer) if self._updates else ()
        moments = {
            name: self._layout.from_canonical(
                {tensor: arrays[f"{name}/{tensor}"] for tensor in self._shapes}
            )
            for name in names
        }
        with self._settings():
            self._assign_moments(moments)
