"""Training loops written by hand: a GRU that reads two reals at each time step.

They use Adam, clipping by global norm and the mean squared error of one answer at the
end. Each is called with a batch of a task of the harness, and does only the update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.contract import Batch

LEARNING_RATE, CLIP = 1e-3, 1.0

Loop = tuple[Callable[[Batch], Any], Callable[[Any], Any], Callable[[Any], None]]
"""Brings a batch to the framework; takes an update and returns the loss; waits."""


def torch_loop(hidden_size: int) -> Loop:
    import torch
    from torch import nn

    layer = nn.GRU(2, hidden_size)
    readout = nn.Linear(hidden_size, 1)
    parameters = [*layer.parameters(), *readout.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)

    def place(batch: Batch) -> Any:
        inputs = np.ascontiguousarray(batch.inputs.swapaxes(0, 1))
        return torch.tensor(inputs), torch.tensor(batch.targets[:, 0])

    def update(placed: Any) -> Any:
        x, targets = placed
        optimizer.zero_grad()
        outputs, _ = layer(x)
        loss = nn.functional.mse_loss(readout(outputs[-1]), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return loss.detach()

    return place, update, lambda loss: loss.item()


def tensorflow_loop(hidden_size: int) -> Loop:
    import keras
    import tensorflow as tf

    network = keras.Sequential(
        [keras.Input((None, 2)), keras.layers.GRU(hidden_size), keras.layers.Dense(1)]
    )
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    optimizer.build(network.trainable_variables)

    @tf.function
    def step(x: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((network(x, training=True) - targets) ** 2)
        variables = network.trainable_variables
        gradients = tape.gradient(loss, variables)
        gradients, _ = tf.clip_by_global_norm(gradients, CLIP)
        optimizer.apply(gradients, variables)
        return loss

    def place(batch: Batch) -> Any:
        return tf.constant(batch.inputs), tf.constant(batch.targets[:, 0])

    return place, lambda placed: step(*placed), lambda loss: loss.numpy()


def jax_loop(hidden_size: int) -> Loop:
    import jax
    from jax import numpy as jnp

    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Any:
        return jnp.asarray(rng.uniform(-0.1, 0.1, shape), jnp.float32)

    h = hidden_size
    parameters = {
        "w_x": drawn(2, 3 * h), "b_x": drawn(3 * h), "w_h": drawn(h, 3 * h),
        "b_h": drawn(3 * h), "w": drawn(h, 1), "b": drawn(1),
    }  # fmt: skip
    moments = jax.tree.map(jnp.zeros_like, (parameters, parameters))

    def loss_of(p: Any, x: Any, targets: Any) -> Any:
        def advance(state: Any, a: Any) -> Any:
            r_a, z_a, n_a = jnp.split(a, 3, axis=1)
            r_h, z_h, n_h = jnp.split(state @ p["w_h"] + p["b_h"], 3, axis=1)
            r, z = jax.nn.sigmoid(r_a + r_h), jax.nn.sigmoid(z_a + z_h)
            state = (1 - z) * jnp.tanh(n_a + r * n_h) + z * state
            return state, None

        start = jnp.zeros((x.shape[1], h), jnp.float32)
        final, _ = jax.lax.scan(advance, start, x @ p["w_x"] + p["b_x"])
        return jnp.mean((final @ p["w"] + p["b"] - targets) ** 2)

    @jax.jit
    def step(p: Any, moments: Any, count: Any, x: Any, targets: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(p, x, targets)
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradients)))
        scale = jnp.minimum(1.0, CLIP / (norm + 1e-6))
        gradients = jax.tree.map(lambda g: g * scale, gradients)
        first, second = moments
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, gradients)

        def move(w: Any, m: Any, v: Any) -> Any:
            m, v = m / (1 - 0.9**count), v / (1 - 0.999**count)
            return w - LEARNING_RATE * m / (jnp.sqrt(v) + 1e-8)

        return jax.tree.map(move, p, first, second), (first, second), loss

    state = [parameters, moments, 0]

    def place(batch: Batch) -> Any:
        x, targets = batch.inputs.swapaxes(0, 1), batch.targets[:, 0]
        return jax.device_put(x), jax.device_put(targets)

    def update(placed: Any) -> Any:
        state[2] += 1
        state[0], state[1], loss = step(state[0], state[1], float(state[2]), *placed)
        return loss

    return place, update, jax.block_until_ready


LOOPS = {
    "torch-native": torch_loop,
    "tensorflow-keras": tensorflow_loop,
    "jax-scan": jax_loop,
}
