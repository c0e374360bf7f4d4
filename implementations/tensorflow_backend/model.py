"""The network as functions of tensors, which TensorFlow traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from harness.contract import NetworkSpec, Readout, Target
from implementations.shared import optimizers
from implementations.tensorflow_backend.layer import RecurrentLayer

Tensor = Any
Parts = tuple[Tensor, ...]
"""One tensor [layers, batch, hidden] for each state part."""
Gradients = dict[str, Tensor]


@dataclass(frozen=True)
class Model:
    """Stacked layers with a linear readout, its loss and its training.

    Attributes:
        parts: Number of state parts.
        variables: Weights as the network keeps them: `layer0.kernel`, `readout.w`.
        moments: The optimiser's moments by name, each of every weight.
        trained: For weights with entries that are not trained, 0 there and 1 elsewhere.
    """

    spec: NetworkSpec
    layers: tuple[RecurrentLayer, ...]
    parts: int
    variables: Mapping[str, tf.Variable]
    moments: Mapping[str, Mapping[str, tf.Variable]]
    trained: Mapping[str, Tensor]

    def _enter(self, x: Tensor) -> Tensor:
        """Return what enters the first layer, [batch, time, input]."""
        if self.spec.inputs.embedded:
            return tf.gather(self.variables["embedding"], x)
        return x

    def _run(
        self, x: Tensor, mask: Tensor | None, state: Parts, *, training: bool
    ) -> tuple[Tensor, Parts]:
        finals = []
        for i, layer in enumerate(self.layers):
            before = tuple(part[i] for part in state)
            x, final = layer(x, before, mask, training=training)
            finals.append(final)
        last = self.spec.readout is Readout.LAST
        top = finals[-1][0][:, None] if last else x
        w, b = self.variables["readout.w"], self.variables["readout.b"]
        outputs = tf.tensordot(top, tf.transpose(w), 1) + b
        return outputs, tuple(tf.stack(part) for part in zip(*finals, strict=True))

    def forward(
        self, x: Tensor, mask: Tensor | None, state: Parts
    ) -> tuple[Tensor, Parts]:
        """Return outputs [batch, readouts, output] and the final state."""
        return self._run(self._enter(x), mask, state, training=False)

    def pull(
        self,
        x: Tensor,
        mask: Tensor | None,
        d_outputs: Tensor,
        state: Parts,
        d_final: Parts,
    ) -> tuple[Gradients, Tensor, Parts]:
        """Return gradients of the weights, the first layer's input and the state."""
        with tf.GradientTape() as tape:
            entered = self._enter(x)
            tape.watch((entered, state))
            outputs, final = self._run(entered, mask, state, training=True)
        sources = (dict(self.variables), entered, state)
        d_weights, d_x, d_state = tape.gradient(
            (outputs, final),
            sources,
            output_gradients=(d_outputs, d_final),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return self._dense(d_weights), d_x, d_state

    def _dense(self, gradients: Mapping[str, Tensor]) -> Gradients:
        """Return gradients that are zero for entries that are not trained."""
        # The gradient of an embedding has only the rows of tokens that occurred.
        dense = {name: tf.convert_to_tensor(d) for name, d in gradients.items()}
        return dense | {name: dense[name] * mask for name, mask in self.trained.items()}

    def loss_and_gradients(
        self, x: Tensor, mask: Tensor | None, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Gradients]:
        """Return the mean loss over scored positions and every weight's gradient."""
        size = (self.spec.num_layers, tf.shape(x)[0], self.spec.hidden_size)
        state = (tf.zeros(size, self.spec.dtype),) * self.parts
        with tf.GradientTape() as tape:
            outputs, _ = self._run(self._enter(x), mask, state, training=True)
            loss = self._loss(outputs, targets, weights)
        gradients = tape.gradient(
            loss,
            dict(self.variables),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return loss, self._dense(gradients)

    def _loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        if self.spec.target is Target.CLASS:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, outputs)
        else:
            losses = tf.reduce_mean((outputs - targets) ** 2, axis=-1)
        return tf.reduce_sum(losses * weights)

    def update(
        self,
        x: Tensor,
        mask: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        corrections: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Take one step; return the loss before it, and the norm before clipping."""
        optimizer = self.spec.optimizer
        loss, gradients = self.loss_and_gradients(x, mask, targets, weights)
        norm = tf.linalg.global_norm(list(gradients.values()))
        scale = tf.ones_like(norm)
        if optimizer.clip_norm is not None:
            clipped = optimizer.clip_norm / (norm + optimizers.CLIP_EPSILON)
            scale = tf.minimum(scale, clipped)
        for name, variable in self.variables.items():
            before = {m: variables[name] for m, variables in self.moments.items()}
            change, after = optimizers.step(
                optimizer, scale * gradients[name], before, corrections
            )
            for moment, tensor in after.items():
                before[moment].assign(tensor)
            variable.assign_sub(change)
        return loss, norm
