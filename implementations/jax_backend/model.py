"""The network as pure functions of its weights: what is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
import numpy.typing as npt
from jax import Array
from jax import numpy as jnp

from harness.contract import NetworkSpec, Readout, Target
from implementations.jax_backend.layer import Layer, Parts, Tensors, check_answer
from implementations.shared import optimizers
from implementations.shared.network import PlacedBatch

Moments = dict[str, Tensors]
"""The optimiser's moments by name, each of every tensor."""


@dataclass(frozen=True)
class Model:
    """Stacked layers with a linear readout, its loss and its training.

    Weights are named as the network keeps them: `layer0.kernel`, `readout.w`. A state
    has one array [layers, batch, hidden] a part.

    Attributes:
        trained: For tensors with entries that are not trained, bool, False there.
    """

    spec: NetworkSpec
    layers: tuple[Layer, ...]
    parts: int
    trained: Mapping[str, npt.NDArray[np.bool_]]

    def enter(self, weights: Tensors, x: Array) -> Array:
        """Return what enters the first layer, [time, batch, input]."""
        return weights["embedding"][x] if self.spec.inputs.embedded else x

    def forward(
        self, weights: Tensors, x: Array, active: Array | None, state: Parts
    ) -> tuple[Array, Parts]:
        """Return outputs [batch, readouts, output] and the final state."""
        return self._run(weights, self.enter(weights, x), active, state)

    def _run(
        self, weights: Tensors, x: Array, active: Array | None, state: Parts
    ) -> tuple[Array, Parts]:
        finals = []
        for i, layer in enumerate(self.layers):
            before = tuple(part[i] for part in state)
            tensors = {name: weights[f"layer{i}.{name}"] for name in layer.shapes}
            found = layer.run(tensors, x, before, active)
            check_answer(layer, found, x, before)
            x, final = found
            finals.append(final)
        last = self.spec.readout is Readout.LAST or len(x) == 1
        top = finals[-1][0][:, None] if last else jnp.swapaxes(x, 0, 1)
        outputs = top @ weights["readout.w"].T + weights["readout.b"]
        return outputs, tuple(jnp.stack(part) for part in zip(*finals, strict=True))

    def pull(
        self,
        weights: Tensors,
        x: Array,
        active: Array | None,
        state: Parts,
        cotangents: tuple[Array, Parts],
    ) -> tuple[Tensors, Array, Parts]:
        """Return gradients of weights, of what entered and of the initial state."""

        def shifted(
            weights: Tensors, shift: Array, state: Parts
        ) -> tuple[Array, Parts]:
            entered = self.enter(weights, x) + shift
            return self._run(weights, entered, active, state)

        # The gradient of a zero that is added is that of what it is added to: of the
        # embedded tokens, which are no argument themselves.
        shift = jnp.zeros((*x.shape[:2], self.spec.input_size), self.spec.dtype)
        _, pull = jax.vjp(shifted, weights, shift, state)
        found: tuple[Tensors, Array, Parts] = pull(cotangents)
        return found

    def loss(self, weights: Tensors, batch: PlacedBatch) -> Array:
        """Return the mean loss over scored positions."""
        shape = (self.spec.num_layers, batch.x.shape[1], self.spec.hidden_size)
        state = (jnp.zeros(shape, self.spec.dtype),) * self.parts
        outputs, _ = self.forward(weights, batch.x, batch.padding, state)
        if self.spec.target is Target.CLASS:
            logs = jax.nn.log_softmax(outputs)
            targets = batch.targets[..., None]
            losses = -jnp.take_along_axis(logs, targets, axis=-1)[..., 0]
        else:
            losses = ((outputs - batch.targets) ** 2).mean(axis=-1)
        loss: Array = (losses * batch.weights).sum()
        return loss

    def loss_and_gradients(
        self, weights: Tensors, batch: PlacedBatch
    ) -> tuple[Array, Tensors]:
        """Return the loss and its gradient, zero for entries that are not trained."""
        loss, gradients = jax.value_and_grad(self.loss)(weights, batch)
        held = {
            name: jnp.where(trained, gradients[name], 0)
            for name, trained in self.trained.items()
        }
        return loss, gradients | held

    def update(
        self,
        weights: Tensors,
        moments: Moments,
        corrections: tuple[Array, Array],
        batch: PlacedBatch,
    ) -> tuple[Tensors, Moments, Array, Array]:
        """Take one step: weights and moments after, loss and norm before."""
        loss, gradients = self.loss_and_gradients(weights, batch)
        optimizer = self.spec.optimizer
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradients.values()))
        scale = jnp.ones_like(norm)
        if optimizer.clip_norm is not None:
            clipped = optimizer.clip_norm / (norm + optimizers.CLIP_EPSILON)
            scale = jnp.minimum(1, clipped)
        after: Tensors = {}
        moved: Moments = {name: {} for name in moments}
        for name, tensor in weights.items():
            before = {moment: tensors[name] for moment, tensors in moments.items()}
            change, kept = optimizers.step(
                optimizer, scale * gradients[name], before, corrections
            )
            after[name] = tensor - change
            for moment, array in kept.items():
                moved[moment][name] = array
        return after, moved, loss, norm
