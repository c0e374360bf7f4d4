"""Check the state gradients of the reference by a zero added to every state in JAX.

The gradient with respect to a zero tensor that is added to the states inside the scan
is the derivative for each of them, computed by JAX. A layer passes its output on to the
layer above before the zero is added: that path lies before the state.
"""

from __future__ import annotations

from typing import Any, cast

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from harness.contract import (
    Array,
    Batch,
    Equations,
    Inputs,
    NetworkSpec,
    Oracle,
    Readout,
    Target,
    Weights,
    layer_weights,
)
from harness.loading import build_network, load_cell
from harness.measure.problem import initial_weights
from implementations.cells import equations
from implementations.jax_backend.scan import Operations
from tests.backend_cases import REGISTRY

EQUATIONS: dict[str, Equations] = {
    "rnn": equations.rnn,
    "rnn-relu": equations.rnn_relu,
    "gru": equations.gru,
    "gru-reset-before": equations.gru_reset_before,
    "lstm": equations.lstm,
}
BATCH, TIME_STEPS, INPUT, HIDDEN, OUTPUT = 3, 12, 2, 5, 2


def spec_of(cell: str, num_layers: int, readout: Readout) -> NetworkSpec:
    return NetworkSpec(
        cell=cell,
        inputs=Inputs("reals", INPUT),
        hidden_size=HIDDEN,
        output_size=OUTPUT,
        readout=readout,
        target=Target.REAL,
        num_layers=num_layers,
        dtype="float64",
    )


def shifted_layer(
    step: Equations, weights: Weights, x: Any, shifts: Any
) -> tuple[Any, Any, Any]:
    """Run a layer with shifts [time + 1, batch, hidden] added to its states.

    Returns:
        The outputs for the layer above, those for the readout, the last of these.
    """
    w = {name: jnp.asarray(tensor) for name, tensor in weights.items()}
    a = jnp.einsum("tbi,ghi->tgbh", x, w["w_ih"]) + w["b"][:, None]

    def advance(state: Any, at: Any) -> tuple[Any, Any]:
        a_t, shifts_t = at
        after = step(Operations(), w, list(a_t), state)
        shifted = tuple(p + s for p, s in zip(after, shifts_t, strict=True))
        return shifted, (after[0], shifted[0])

    initial = tuple(shift[0] for shift in shifts)
    shifts_after = tuple(s[1:] for s in shifts)
    final, (passed_on, read) = lax.scan(advance, initial, (a, shifts_after))
    return passed_on, read, final[0]


def state_gradients(
    spec: NetworkSpec, weights: Weights, x: Array, d_outputs: Array
) -> tuple[Array, ...]:
    """Return the gradient for zeros [time + 1, layers, batch, hidden], by part."""
    parts = len(load_cell(REGISTRY, spec.cell).info.state_parts)

    def pulled(shifts: Any) -> Any:
        x_up, every, last = jnp.asarray(x), None, None
        for i in range(spec.num_layers):
            layer = layer_weights(weights, i)
            added = tuple(shift[:, i] for shift in shifts)
            step = EQUATIONS[spec.cell]
            x_up, every, last = shifted_layer(step, layer, x_up, added)
        seen = last[None] if spec.readout is Readout.LAST else every
        outputs = seen @ weights["readout.w"].T + weights["readout.b"]
        return (jnp.swapaxes(outputs, 0, 1) * d_outputs).sum()

    with jax.enable_x64(True):
        size = (TIME_STEPS + 1, spec.num_layers, BATCH, HIDDEN)
        found = jax.jit(jax.grad(pulled))((jnp.zeros(size),) * parts)
        return cast(tuple[Array, ...], jax.device_get(found))


@pytest.mark.long
@pytest.mark.parametrize("cell", EQUATIONS)
@pytest.mark.parametrize(
    ("num_layers", "readout"),
    [(1, Readout.LAST), (2, Readout.EVERY), (3, Readout.LAST)],
)
def test_the_gradient_of_a_zero_added_to_the_states_is_the_references(
    cell: str, num_layers: int, readout: Readout
) -> None:
    spec = spec_of(cell, num_layers, readout)
    declared = load_cell(REGISTRY, cell)
    oracle = cast(
        Oracle, build_network(REGISTRY, "numpy-reference", spec, declared, "cpu")
    )
    rng = np.random.default_rng(0)
    weights = {
        name: w + rng.uniform(-0.2, 0.2, w.shape)
        for name, w in initial_weights(spec, declared, "canonical", 0, 10).items()
    }
    oracle.load_weights(weights)
    readouts = spec.readouts(TIME_STEPS)
    batch = Batch(
        rng.standard_normal((BATCH, TIME_STEPS, INPUT)),
        np.full(BATCH, TIME_STEPS),
        np.zeros((BATCH, readouts, OUTPUT)),
        np.ones((BATCH, readouts), bool),
    )
    d_outputs = rng.standard_normal((BATCH, readouts, OUTPUT))
    x = np.swapaxes(batch.inputs, 0, 1)
    found = state_gradients(spec, weights, x, d_outputs)
    expected = oracle.state_gradients(oracle.place(batch), d_outputs)
    assert len(found) == len(expected) == len(declared.info.state_parts)
    for part, reference in zip(found, expected, strict=True):
        assert part.dtype == np.float64
        # State by state, as a sum over all would hide the small ones at large lags.
        errors = np.linalg.norm(part - reference, axis=(2, 3))
        norms = np.linalg.norm(reference, axis=(2, 3))
        # The part of the last state that no output depends on has a gradient of zero.
        assert (errors <= 1e-12 * norms).all(), (errors - 1e-12 * norms).max()
