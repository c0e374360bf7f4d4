"""Equations as a reference: their gradients agree with those written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.contract import Array, CellInfo, ReferenceCell, State, Weights
from harness.errors import PluginError
from harness.loading import load_cell, load_equations
from harness.measure.equations import EquationSteps
from implementations.cells.rnn import Rnn
from tests.helpers import REGISTRY

BATCH, INPUT, HIDDEN = 3, 4, 5


def relative_error(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def drawn(
    cell: ReferenceCell, rng: np.random.Generator
) -> tuple[Weights, Array, State, State]:
    """Draw weights, an input, a state and a cotangent of the next state."""
    shapes = cell.weight_shapes(INPUT, HIDDEN)
    weights = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    parts = [rng.normal(size=(BATCH, HIDDEN)) for _ in cell.info.state_parts]
    d_state = tuple(rng.normal(size=part.shape) for part in parts)
    return weights, rng.normal(size=(BATCH, INPUT)), tuple(parts), d_state


@pytest.mark.parametrize("name", [n for n, c in REGISTRY.cells.items() if c.reference])
def test_equations_and_their_gradients_agree_with_the_reference(name: str) -> None:
    cell: Any = load_cell(REGISTRY, name)
    steps = EquationSteps(load_equations(REGISTRY, name), cell.info)
    weights, x, state, d_state = drawn(cell, np.random.default_rng(0))
    after, saved = steps.step(weights, x, state)
    expected, kept = cell.step(weights, x, state)
    for a, b in zip(after, expected, strict=True):
        assert relative_error(a, b) < 1e-14
    d_weights, d_x, d_before = steps.step_backward(weights, saved, d_state)
    e_weights, e_x, e_before = cell.step_backward(weights, kept, d_state)
    assert list(d_weights) == list(weights)
    for tensor in weights:
        assert relative_error(d_weights[tensor], e_weights[tensor]) < 1e-13, tensor
    assert relative_error(d_x, e_x) < 1e-13
    for a, b in zip(d_before, e_before, strict=True):
        assert relative_error(a, b) < 1e-13


# Every operation, and each operand of the asymmetric ones.
FORMS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "sums": lambda ops, w, a, h: a + h + 2 + (3 + h),
    "differences": lambda ops, w, a, h: (a - h) * (1 - h) - (h - 2) * a,
    "quotients": lambda ops, w, a, h: a / (2 + h * h) + 2 / (3 + a * a) + h / 5,
    "negation": lambda ops, w, a, h: -a * -h * 0.5,
    "relu": lambda ops, w, a, h: ops.relu(a) - ops.relu(-h),
    "sigmoid and tanh": lambda ops, w, a, h: ops.sigmoid(a * h) + ops.tanh(a - h),
    "slices": lambda ops, w, a, h: ops.products(w["w_hh"][:1], h)[0] * w["b"][0],
    "used twice": lambda ops, w, a, h: ops.tanh(h) * ops.tanh(h) * a,
    "a number of numpy": lambda ops, w, a, h: np.float64(2) * h + np.ones(HIDDEN) * a,
    "untouched": lambda ops, w, a, h: h,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_of_every_operation_agrees_with_finite_differences(
    form: str,
) -> None:
    def equations(ops: Any, w: Any, a: Any, state: Any) -> Any:
        return (FORMS[form](ops, w, a[0], state[0]),)

    cell = Rnn()
    steps = EquationSteps(equations, cell.info)
    weights, x, state, d_state = drawn(cell, np.random.default_rng(1))
    _, saved = steps.step(weights, x, state)
    d_weights, d_x, d_before = steps.step_backward(weights, saved, d_state)

    def value(w: Weights, x: Array, h: Array) -> float:
        return float(np.vdot(d_state[0], steps.step(w, x, (h,))[0][0]))

    h, rng, size = state[0], np.random.default_rng(2), 1e-6
    along_w = {n: size * rng.normal(size=t.shape) for n, t in weights.items()}
    along_x, along_h = size * rng.normal(size=x.shape), size * rng.normal(size=h.shape)

    def moved(sign: int) -> float:
        w = {n: t + sign * along_w[n] for n, t in weights.items()}
        return value(w, x + sign * along_x, h + sign * along_h)

    slope = sum(float(np.vdot(d_weights[n], along_w[n])) for n in weights)
    slope += float(np.vdot(d_x, along_x) + np.vdot(d_before[0], along_h))
    assert (moved(1) - moved(-1)) / 2 == pytest.approx(slope, rel=1e-7)


def test_a_time_step_of_equations_keeps_its_dtype() -> None:
    gru: Any = load_cell(REGISTRY, "gru")
    steps = EquationSteps(load_equations(REGISTRY, "gru"), gru.info)
    weights, x, state, d_state = drawn(gru, np.random.default_rng(0))
    weights = {n: w.astype(np.float32) for n, w in weights.items()}
    single = tuple(part.astype(np.float32) for part in state)
    after, saved = steps.step(weights, x.astype(np.float32), single)
    found = steps.step_backward(
        weights, saved, tuple(d.astype(np.float32) for d in d_state)
    )
    assert after[0].dtype == found[1].dtype == found[2][0].dtype == np.float32
    assert {d.dtype for d in found[0].values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("equations", "message"),
    [
        (lambda ops, w, a, state: a[0], "return no tuple; expected a tuple of 1 (h)"),
        (lambda ops, w, a, state: (a[0], a[0]), "return 2; expected a tuple of 1 (h)"),
        (
            lambda ops, w, a, state: (a[0][:, :1],),
            "return (3, 1) for h; expected (3, 5)",
        ),
        (lambda ops, w, a, state: (1.0,), "return float for h; expected (3, 5)"),
        (lambda ops, w, a, state: (ops.exp(a[0]),), "no attribute 'exp'"),
        (lambda ops, w, a, state: (a[0] ** 2,), "unsupported operand type"),
    ],
)
def test_equations_of_the_wrong_form_are_refused(equations: Any, message: str) -> None:
    cell = Rnn()
    info = CellInfo("odd", ("a",), ("h",), None, "nowhere")
    weights, x, state, _ = drawn(cell, np.random.default_rng(0))
    with pytest.raises(PluginError) as raised:
        EquationSteps(equations, info).step(weights, x, state)
    assert message in str(raised.value)
