"""A plugin file of a few lines agrees with the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from harness.contract import TrainableNetwork
from harness.loading import build_network, load_cell
from harness.registry import Registry
from tests.backend_cases import draw_weights, errors_against_reference
from tests.frameworks.backends import SMALL, Backend

FILES = {
    "jax": """\
from jax import lax, numpy as jnp
from harness import declare_implementation

declare_implementation("mine", framework="jax", cells=["rnn"], layer="mine:layer")

def layer(cell, input_size, hidden_size):
    return run

def run(weights, x, state, active):
    def advance(h, at):
        x_t, on = at
        new = jnp.tanh(x_t @ w.T + h @ u.T + b)
        return jnp.where(on, new, h), jnp.where(on, new, 0)
    w, u, b = weights["w_ih"][0], weights["w_hh"][0], weights["b"][0]
    active = jnp.ones((*x.shape[:2], 1), bool) if active is None else active
    h, outputs = lax.scan(advance, state[0], (x, active))
    return outputs, (h,)
""",
    "tensorflow": """\
from harness import declare_implementation

declare_implementation(
    "mine",
    framework="tensorflow",
    cells=["lstm"],
    dtypes=["float32", "float64"],
    layer="mine:layer",
)

def layer(cell, input_size, hidden_size):
    from keras.layers import RNN, LSTMCell

    return RNN(LSTMCell(hidden_size), return_sequences=True, return_state=True)
""",
}


def test_a_plugin_file_of_a_few_lines_agrees_with_the_reference(
    backend: Backend, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILES[backend.framework], encoding="utf-8")
    registry = Registry.discover([file])
    assert registry.problems == []
    (name,) = registry.implementation("mine").cells
    spec, cell = replace(SMALL, cell=name, dtype="float64"), load_cell(registry, name)
    network = cast(TrainableNetwork, build_network(registry, "mine", spec, cell, "cpu"))
    network.load_weights(draw_weights(spec))
    errors = errors_against_reference(network, spec)
    assert max(errors.values()) < backend.rounding["float64"], errors
