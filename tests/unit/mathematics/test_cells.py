"""Cells against finite differences, torch, their Jacobians and hand-made numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from harness.contract import Array, LayerSizes, ReferenceCell, State, Weights
from implementations import declarations
from implementations.cells import gru as gru_module
from implementations.cells import lstm as lstm_module
from implementations.cells.gates import sigmoid
from implementations.cells.gru import Gru, GruResetBefore
from implementations.cells.lstm import Lstm
from implementations.cells.rnn import Rnn, RnnRelu
from tests.built_in_cells import CELLS

UNGATED = [cell for cell in CELLS.values() if len(cell.info.gates) == 1]
GATED = [cell for cell in CELLS.values() if len(cell.info.gates) > 1]
OWN_SCHEMES = ("canonical", "zero-bias", "chrono")

each_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.info.name)
each_gated_cell = pytest.mark.parametrize("cell", GATED, ids=lambda c: c.info.name)


def random_weights(
    cell: ReferenceCell, rng: np.random.Generator, input_size: int, hidden_size: int
) -> Weights:
    """Draw values of order one in every tensor, so no term of a gradient is hidden."""
    shapes = cell.weight_shapes(input_size, hidden_size)
    return {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}


def random_state(
    cell: ReferenceCell, rng: np.random.Generator, batch: int, hidden_size: int
) -> State:
    return tuple(rng.normal(size=(batch, hidden_size)) for _ in cell.info.state_parts)


def relative_error(actual: Array, expected: Array) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


# --- the info of a cell ---------------------------------------------------------------


@each_cell
def test_a_cell_agrees_with_its_declaration(cell: ReferenceCell) -> None:
    declared = {
        d.name: d.factory
        for d in (
            declarations.rnn,
            declarations.rnn_relu,
            declarations.gru,
            declarations.gru_reset_before,
            declarations.lstm,
        )
    }
    kind = type(cell)
    assert declared[cell.info.name] == f"{kind.__module__}:{kind.__qualname__}"


@each_cell
def test_info_agrees_with_the_shapes(cell: ReferenceCell) -> None:
    shapes = cell.weight_shapes(5, 7)
    blocks = len(cell.info.gates)
    assert shapes["w_ih"] == (blocks, 7, 5)
    assert shapes["w_hh"] == (blocks, 7, 7)
    assert shapes["b"] == (blocks, 7)
    assert ("b_hn" in shapes) == (cell.info.name == "gru")
    if cell.info.keep_bias is not None:
        tensor, row = cell.info.keep_bias
        assert tensor == "b"
        assert cell.info.gates[row] in ("z", "f")


@each_gated_cell
def test_the_keeping_gate_at_one_keeps_the_state_exactly(cell: ReferenceCell) -> None:
    """σ(40) is 1 in float64. The LSTM keeps c, exactly if i is 0."""
    rng = np.random.default_rng(0)
    weights = {n: np.zeros(s) for n, s in cell.weight_shapes(2, 3).items()}
    weights["w_ih"][-1] = rng.normal(size=(3, 2))
    assert cell.info.keep_bias is not None
    tensor, row = cell.info.keep_bias
    weights[tensor][row] = 40.0
    if cell.info.name == "lstm":
        weights["b"][0] = -800.0  # the input gate, i: σ(-800) is 0
    state = random_state(cell, rng, 4, 3)
    after, _ = cell.step(weights, rng.normal(size=(4, 2)), state)
    np.testing.assert_array_equal(after[-1], state[-1])


@pytest.mark.parametrize("cell", [Gru(), GruResetBefore()], ids=lambda c: c.info.name)
def test_the_reset_gate_at_zero_ignores_the_past_in_the_candidate(
    cell: ReferenceCell,
) -> None:
    rng = np.random.default_rng(1)
    weights = random_weights(cell, rng, 2, 3)
    weights["b"][0] = -800.0  # r = 0
    weights["b"][1] = -800.0  # z = 0, so that the new state is the candidate
    x = rng.normal(size=(4, 2))
    (one,), _ = cell.step(weights, x, random_state(cell, rng, 4, 3))
    (other,), _ = cell.step(weights, x, random_state(cell, rng, 4, 3))
    np.testing.assert_array_equal(one, other)
    from_input_alone = np.tanh(x @ weights["w_ih"][2].T + weights["b"][2])
    np.testing.assert_allclose(one, from_input_alone, rtol=1e-14)


@pytest.mark.parametrize("cell", [Gru(), GruResetBefore()], ids=lambda c: c.info.name)
def test_with_reset_one_and_update_zero_a_gru_is_a_tanh_network(
    cell: ReferenceCell,
) -> None:
    rng = np.random.default_rng(2)
    weights = random_weights(cell, rng, 2, 3)
    weights["b"][0], weights["b"][1] = 800.0, -800.0
    x, state = rng.normal(size=(4, 2)), random_state(cell, rng, 4, 3)
    (after,), _ = cell.step(weights, x, state)
    plain = {n: weights[n][2:] for n in ("w_ih", "w_hh", "b")}
    plain["b"] = plain["b"] + weights.get("b_hn", np.zeros(3))
    (expected,), _ = Rnn().step(plain, x, state)
    np.testing.assert_allclose(after, expected, rtol=1e-14)


def test_the_derivative_of_relu_at_exactly_zero_is_that_of_torch(
    torch: ModuleType,
) -> None:
    """Zero weights and inputs put every unit at the kink; a bias moves one off it."""
    weights = {n: np.zeros(s) for n, s in RnnRelu().weight_shapes(2, 3).items()}
    weights["b"][0, 2] = 1e-300
    x, state = np.zeros((1, 2)), (np.zeros((1, 3)),)
    _, saved = RnnRelu().step(weights, x, state)
    found, _, _ = RnnRelu().step_backward(weights, saved, (np.ones((1, 3)),))
    a = torch.tensor(weights["b"][0], requires_grad=True)
    torch.relu(a).sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), [0, 0, 1])
    np.testing.assert_array_equal(found["b"][0], a.grad.numpy())


def test_relu_passes_nan_on() -> None:
    weights = {n: np.zeros(s) for n, s in RnnRelu().weight_shapes(1, 1).items()}
    weights["b"][0, 0] = np.nan
    (h,), _ = RnnRelu().step(weights, np.zeros((1, 1)), (np.zeros((1, 1)),))
    assert np.isnan(h).all()


def test_the_output_gate_of_the_lstm_at_zero_hides_the_cell() -> None:
    rng = np.random.default_rng(3)
    weights = random_weights(Lstm(), rng, 2, 3)
    weights["b"][3] = -800.0
    (h, c), _ = Lstm().step(
        weights, rng.normal(size=(4, 2)), random_state(Lstm(), rng, 4, 3)
    )
    assert not h.any()
    assert c.all()


# --- backward steps ------------------------------------------------------------------


@each_cell
def test_the_backward_step_agrees_with_finite_differences_in_every_element(
    cell: ReferenceCell,
) -> None:
    """Central differences over ±1e-5 err by about 1e-10 for values of order one.

    Truncation, 1e-5 squared times a third derivative, and rounding, 1e-16 / 1e-5, are
    both of that size; 1e-8 leaves room for the third derivative. A lost term or a
    wrong sign is of order one.
    """
    rng = np.random.default_rng(4)
    weights = random_weights(cell, rng, 2, 3)
    x, state = rng.normal(size=(2, 2)), random_state(cell, rng, 2, 3)
    d_state = random_state(cell, rng, 2, 3)

    _, saved = cell.step(weights, x, state)
    d_weights, d_x, d_before = cell.step_backward(weights, saved, d_state)
    assert list(d_weights) == list(cell.weight_shapes(2, 3))

    def loss() -> float:
        after, _ = cell.step(weights, x, state)
        pairs = zip(d_state, after, strict=True)
        return float(sum((d * part).sum() for d, part in pairs))

    named = {**{n: (weights[n], d_weights[n]) for n in weights}, "x": (x, d_x)}
    for part, value, gradient in zip(
        cell.info.state_parts, state, d_before, strict=True
    ):
        named[part] = (value, gradient)
    for name, (value, gradient) in named.items():
        assert gradient.shape == value.shape, name
        np.testing.assert_allclose(
            gradient,
            differences(loss, value),
            rtol=0,
            atol=1e-8,
            err_msg=f"{cell.info.name}: gradient with respect to {name}",
        )


def differences(loss: Callable[[], float], value: Array, step: float = 1e-5) -> Array:
    gradient = np.empty_like(value)
    for index in np.ndindex(value.shape):
        centre = value[index]
        value[index] = centre + step
        above = loss()
        value[index] = centre - step
        below = loss()
        value[index] = centre
        gradient[index] = (above - below) / (2 * step)
    return gradient


# --- comparison with torch ------------------------------------------------------------

BATCH, TIME, INPUT, HIDDEN = 3, 7, 4, 5
FLOAT64_NOISE = 1e-12
"""Both sides compute in float64 and sum in other orders: about 1e-15 a time step."""


@pytest.fixture(name="torch", scope="module")
def torch_module() -> ModuleType:
    module: ModuleType = pytest.importorskip("torch")
    return module


def run_reference(
    cell: ReferenceCell,
    weights: Weights,
    x: Array,
    state: State,
    d_h: Array,
    d_final: State,
) -> dict[str, Array]:
    """Return outputs, final state and gradients of d_h · h + d_final · final."""
    outputs, saved = [], []
    for x_t in x:
        state, kept = cell.step(weights, x_t, state)
        outputs.append(state[0])
        saved.append(kept)
    d_weights = {name: np.zeros_like(w) for name, w in weights.items()}
    d_x, d_state = np.empty_like(x), d_final
    for t in reversed(range(len(x))):
        d_state = (d_state[0] + d_h[t], *d_state[1:])
        d_step, d_x[t], d_state = cell.step_backward(weights, saved[t], d_state)
        for name, d in d_step.items():
            d_weights[name] += d
    found = {f"grad {name}": d for name, d in d_weights.items()}
    found |= {"outputs": np.stack(outputs), "grad x": d_x}
    for part, final, d in zip(cell.info.state_parts, state, d_state, strict=True):
        found |= {f"final {part}": final, f"grad {part}": d}
    return found


def problem(cell: ReferenceCell) -> tuple[Weights, Array, State, Array, State]:
    rng = np.random.default_rng(6)
    return (
        random_weights(cell, rng, INPUT, HIDDEN),
        rng.normal(size=(TIME, BATCH, INPUT)),
        random_state(cell, rng, BATCH, HIDDEN),
        rng.normal(size=(TIME, BATCH, HIDDEN)),
        random_state(cell, rng, BATCH, HIDDEN),
    )


def agree(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert set(found) == set(expected)
    errors = {n: relative_error(found[n], expected[n]) for n in expected}
    assert max(errors.values()) < FLOAT64_NOISE, errors


TORCH_CELLS: list[ReferenceCell] = [Rnn(), RnnRelu(), Gru(), Lstm()]


def torch_layer(
    torch: ModuleType, cell: ReferenceCell, input_size: int, hidden: int
) -> Any:
    if cell.info.name == "rnn-relu":
        return torch.nn.RNN(input_size, hidden, nonlinearity="relu")
    return getattr(torch.nn, cell.info.name.upper())(input_size, hidden)


@pytest.mark.parametrize("cell", TORCH_CELLS, ids=lambda c: c.info.name)
def test_a_sequence_agrees_with_the_layer_of_torch(
    torch: ModuleType, cell: ReferenceCell
) -> None:
    weights, x, state, d_h, d_final = problem(cell)
    layer = torch_layer(torch, cell, INPUT, HIDDEN).double()
    b_hh = np.zeros_like(weights["b"])
    if "b_hn" in weights:
        b_hh[2] = weights["b_hn"]
    for parameter, value in (
        (layer.weight_ih_l0, weights["w_ih"].reshape(-1, INPUT)),
        (layer.weight_hh_l0, weights["w_hh"].reshape(-1, HIDDEN)),
        (layer.bias_ih_l0, weights["b"].ravel()),
        (layer.bias_hh_l0, b_hh.ravel()),
    ):
        parameter.data = torch.tensor(value)
    t_x = torch.tensor(x, requires_grad=True)
    t_state = tuple(torch.tensor(part[None], requires_grad=True) for part in state)
    outputs, final = layer(t_x, t_state if len(t_state) == 2 else t_state[0])
    final = final if isinstance(final, tuple) else (final,)
    loss = (torch.tensor(d_h) * outputs).sum()
    for d, part in zip(d_final, final, strict=True):
        loss = loss + (torch.tensor(d) * part[0]).sum()
    loss.backward()

    expected = {
        "outputs": outputs.detach().numpy(),
        "grad x": t_x.grad.numpy(),
        "grad w_ih": layer.weight_ih_l0.grad.numpy().reshape(weights["w_ih"].shape),
        "grad w_hh": layer.weight_hh_l0.grad.numpy().reshape(weights["w_hh"].shape),
        "grad b": layer.bias_ih_l0.grad.numpy().reshape(weights["b"].shape),
    }
    if "b_hn" in weights:
        expected["grad b_hn"] = layer.bias_hh_l0.grad.numpy().reshape(b_hh.shape)[2]
    for name, part, before in zip(cell.info.state_parts, final, t_state, strict=True):
        expected[f"final {name}"] = part[0].detach().numpy()
        expected[f"grad {name}"] = before.grad[0].numpy()
    agree(run_reference(cell, weights, x, state, d_h, d_final), expected)


def test_a_sequence_of_the_reset_before_form_agrees_with_its_equations_in_torch(
    torch: ModuleType,
) -> None:
    cell = GruResetBefore()
    weights, x, state, d_h, d_final = problem(cell)
    t = {n: torch.tensor(w, requires_grad=True) for n, w in weights.items()}
    t_x = torch.tensor(x, requires_grad=True)
    before = torch.tensor(state[0], requires_grad=True)

    (w_r, w_z, w_n), (u_r, u_z, u_n), (b_r, b_z, b_n) = t["w_ih"], t["w_hh"], t["b"]
    linear = torch.nn.functional.linear
    h, outputs = before, []
    for x_t in t_x:
        r = torch.sigmoid(linear(x_t, w_r, b_r) + linear(h, u_r))
        z = torch.sigmoid(linear(x_t, w_z, b_z) + linear(h, u_z))
        n = torch.tanh(linear(x_t, w_n, b_n) + linear(r * h, u_n))
        h = z * h + (1 - z) * n
        outputs.append(h)
    stacked = torch.stack(outputs)
    loss = (torch.tensor(d_h) * stacked).sum() + (torch.tensor(d_final[0]) * h).sum()
    loss.backward()

    expected = {f"grad {name}": w.grad.numpy() for name, w in t.items()}
    expected |= {
        "outputs": stacked.detach().numpy(),
        "final h": h.detach().numpy(),
        "grad x": t_x.grad.numpy(),
        "grad h": before.grad.numpy(),
    }
    agree(run_reference(cell, weights, x, state, d_h, d_final), expected)


def test_the_two_forms_of_the_gru_differ() -> None:
    """The weights are the same and b_hn = 0, so only the place of the reset differs."""
    rng = np.random.default_rng(7)
    weights = random_weights(GruResetBefore(), rng, 2, 3)
    x, state = rng.normal(size=(4, 2)), random_state(Gru(), rng, 4, 3)
    (before,), _ = GruResetBefore().step(weights, x, state)
    (after,), _ = Gru().step({**weights, "b_hn": np.zeros(3)}, x, state)
    assert relative_error(after, before) > 0.01


# --- dtype and range -----------------------------------------------------------------


@each_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_keep_the_dtype_they_are_given(cell: ReferenceCell, dtype: str) -> None:
    rng = np.random.default_rng(8)
    weights = {
        name: w.astype(dtype) for name, w in random_weights(cell, rng, 2, 3).items()
    }
    x = rng.normal(size=(4, 2)).astype(dtype)
    state = tuple(part.astype(dtype) for part in random_state(cell, rng, 4, 3))
    after, saved = cell.step(weights, x, state)
    d_weights, d_x, d_before = cell.step_backward(weights, saved, after)
    arrays = [*after, *d_weights.values(), d_x, *d_before, *saved]
    assert {str(a.dtype) for a in arrays} == {dtype}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_is_finite_and_warns_of_nothing_over_the_whole_range(
    dtype: str,
) -> None:
    largest = np.finfo(dtype).max
    a = np.array([-largest, -1e4, -100, -1, 0, 1, 100, 1e4, largest], dtype)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        values = sigmoid(a)
    assert values.dtype == a.dtype
    np.testing.assert_array_equal(values[[0, -1]], [0, 1])
    np.testing.assert_allclose(values + sigmoid(-a), 1)
    np.testing.assert_allclose(values[3], 1 / (1 + np.e), rtol=1e-6)


# --- initial values ------------------------------------------------------------------

SIZES = LayerSizes(input_size=6, hidden_size=50, time_steps=100)


def drawn(
    cell: ReferenceCell, scheme: str, seed: int = 0, sizes: LayerSizes = SIZES
) -> Weights:
    return cell.initial_weights(scheme, np.random.default_rng(seed), sizes)


@each_cell
def test_recurrent_matrices_start_orthogonal_gate_by_gate(cell: ReferenceCell) -> None:
    for u in drawn(cell, "canonical")["w_hh"]:
        np.testing.assert_allclose(u @ u.T, np.eye(SIZES.hidden_size), atol=1e-13)


def test_orthogonal_matrices_are_uniform_over_their_group() -> None:
    """By Haar measure, entry (0, 0) has mean 0; that of plain LAPACK is negative."""
    sizes = LayerSizes(input_size=1, hidden_size=3, time_steps=5)
    corners = [drawn(Rnn(), "canonical", s, sizes)["w_hh"][0] for s in range(400)]
    diagonals = np.array([np.diag(u) for u in corners])
    # An entry of a uniform 3 x 3 rotation has variance 1/3; five standard errors.
    assert np.abs(diagonals.mean(axis=0)).max() < 5 * math.sqrt(1 / 3 / len(corners))
    np.testing.assert_allclose((diagonals**2).mean(axis=0), 1 / 3, atol=0.08)


@pytest.mark.parametrize("cell", [Rnn(), *GATED], ids=lambda c: c.info.name)
def test_input_matrices_start_glorot_uniform_gate_by_gate(cell: ReferenceCell) -> None:
    limit = math.sqrt(6 / (SIZES.input_size + SIZES.hidden_size))
    for w in drawn(cell, "canonical")["w_ih"]:
        assert 0.95 * limit < np.abs(w).max() <= limit
        # 300 draws: the standard error of the mean is limit / sqrt(900).
        assert abs(w.mean()) < 5 * limit / 30


@each_cell
def test_one_seed_draws_the_same_values_and_schemes_share_their_matrices(
    cell: ReferenceCell,
) -> None:
    one = drawn(cell, "canonical")
    for scheme in OWN_SCHEMES:
        again = drawn(cell, scheme)
        for name in ("w_ih", "w_hh"):
            np.testing.assert_array_equal(one[name], again[name])
    other = drawn(cell, "canonical", seed=1)
    assert not np.array_equal(one["w_ih"], other["w_ih"])
    identity = cell.info.name == "rnn-relu"
    assert np.array_equal(one["w_hh"], other["w_hh"]) == identity


@each_cell
def test_canonical_raises_only_the_keeping_bias_and_zero_bias_raises_none(
    cell: ReferenceCell,
) -> None:
    expected = {n: np.zeros_like(w) for n, w in drawn(cell, "canonical").items()}
    for name, w in drawn(cell, "zero-bias").items():
        if name.startswith("b"):
            np.testing.assert_array_equal(w, expected[name])
    if cell.info.keep_bias is not None:
        tensor, row = cell.info.keep_bias
        expected[tensor][row] = 1
    for name, w in drawn(cell, "canonical").items():
        if name.startswith("b"):
            np.testing.assert_array_equal(w, expected[name])


@each_gated_cell
def test_chrono_spreads_time_constants_uniformly_over_the_span(
    cell: ReferenceCell,
) -> None:
    sizes = LayerSizes(input_size=1, hidden_size=2000, time_steps=100)
    shapes = cell.weight_shapes(1, 2000)
    assert cell.info.keep_bias is not None
    # Orthogonal matrices of that size are slow and not needed here.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "implementations.cells.initial.orthogonal",
            lambda rng, shape: np.zeros(shape),
        )
        weights = drawn(cell, "chrono", sizes=sizes)
    tensor, row = cell.info.keep_bias
    keep = sigmoid(weights[tensor][row])
    constants = 1 / (1 - keep)
    assert constants.min() >= 2
    assert constants.max() <= 100
    # Uniform over [2, 100]: mean 51, standard error 98 / sqrt(12 * 2000) = 0.63.
    assert abs(constants.mean() - 51) < 3.2
    others = weights[tensor].copy()
    if cell.info.name == "lstm":
        np.testing.assert_array_equal(others[0], -others[row])
        np.testing.assert_allclose(sigmoid(others[0]), 1 - keep, rtol=1e-12)
        others[0] = 0
    others[row] = 0
    assert not others.any()
    assert not weights.get("b_hn", np.zeros(1)).any()
    assert weights["b"].shape == shapes["b"]


@each_gated_cell
@pytest.mark.parametrize("time_steps", [1, 2, 3])
def test_chrono_works_for_the_shortest_sequences(
    cell: ReferenceCell, time_steps: int
) -> None:
    assert cell.info.keep_bias is not None
    tensor, row = cell.info.keep_bias
    weights = drawn(cell, "chrono", sizes=LayerSizes(2, 50, time_steps))
    bias = weights[tensor][row]
    assert bias.min() >= 0
    assert bias.max() <= math.log(2)
    assert bias.std() > 0


@pytest.mark.parametrize("cell", UNGATED, ids=lambda c: c.info.name)
def test_schemes_that_differ_in_a_gate_bias_are_equal_for_a_cell_without_gates(
    cell: ReferenceCell,
) -> None:
    one = drawn(cell, "canonical")
    for scheme in OWN_SCHEMES:
        for name, w in drawn(cell, scheme).items():
            np.testing.assert_array_equal(w, one[name])


def test_the_relu_network_starts_as_in_its_paper() -> None:
    """U = 1, b = 0, W normal with deviation 0.001: 6000 draws, five standard errors."""
    sizes = LayerSizes(input_size=60, hidden_size=100, time_steps=5)
    weights = drawn(RnnRelu(), "canonical", sizes=sizes)
    np.testing.assert_array_equal(weights["w_hh"][0], np.eye(100))
    assert not weights["b"].any()
    w = weights["w_ih"]
    assert abs(w.mean()) < 5 * 1e-3 / math.sqrt(w.size)
    assert abs(w.std() / 1e-3 - 1) < 5 / math.sqrt(2 * w.size)
    # Normal and not uniform: a kurtosis of 3, standard error sqrt(24 / n), not 1.8.
    kurtosis = ((w / w.std()) ** 4).mean()
    assert abs(kurtosis - 3) < 5 * math.sqrt(24 / w.size)


# --- counts --------------------------------------------------------------------------


@each_cell
def test_the_canonical_parameter_count_is_that_of_the_tensors(
    cell: ReferenceCell,
) -> None:
    tensors = sum(w.size for w in drawn(cell, "canonical").values())
    counts = cell.parameter_counts(SIZES.input_size, SIZES.hidden_size)
    assert counts["canonical"] == tensors


@pytest.mark.parametrize("cell", TORCH_CELLS, ids=lambda c: c.info.name)
def test_the_torch_parameter_count_is_that_of_its_layers(
    torch: ModuleType, cell: ReferenceCell
) -> None:
    expected = {"rnn": 640, "rnn-relu": 640, "gru": 1920, "lstm": 2560}
    assert cell.parameter_counts(10, 20)["torch"] == expected[cell.info.name]
    layer = torch_layer(torch, cell, 10, 20)
    assert sum(p.numel() for p in layer.parameters()) == expected[cell.info.name]


def test_the_keras_parameter_count_includes_the_biases_of_its_layers() -> None:
    """Each block has H (I + H) weights and H biases, or 2 H for `reset_after=True`."""
    assert Gru().parameter_counts(1, 32)["keras"] == 3360
    assert GruResetBefore().parameter_counts(1, 32)["keras"] == 3 * 32 * 33 + 3 * 32
    assert Lstm().parameter_counts(1, 32)["keras"] == 4 * 32 * 33 + 4 * 32
    for cell in UNGATED:
        assert cell.parameter_counts(1, 32)["keras"] == 32 * 33 + 32


def test_there_is_no_torch_parameter_count_for_gru_reset_before() -> None:
    assert "torch" not in GruResetBefore().parameter_counts(3, 4)


class Counted(np.ndarray[Any, Any]):
    """An array that counts operations on it, by the rule of `flops`."""

    total = 0

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any
    ) -> Any:
        plain = [np.asarray(i) if isinstance(i, Counted) else i for i in inputs]
        result = getattr(ufunc, method)(*plain, **kwargs)
        inner = plain[0].shape[-1] if ufunc is np.matmul else 0
        Counted.total += result.size * (2 * inner if inner else 1)
        return result.view(Counted)


@pytest.fixture
def one_operation_sigmoid(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Count the sigmoid as one operation, like any activation."""
    for module in (gru_module, lstm_module):
        monkeypatch.setattr(module, "sigmoid", np.tanh)
    Counted.total = 0
    yield
    Counted.total = 0


FLOPS_AT_2_3 = {
    "rnn": 2 * 3 * 5 + 3 * 3,
    "rnn-relu": 2 * 3 * 5 + 3 * 3,
    "gru": 6 * 3 * 5 + 15 * 3,
    "gru-reset-before": 6 * 3 * 5 + 14 * 3,
    "lstm": 8 * 3 * 5 + 17 * 3,
}


@each_cell
@pytest.mark.usefixtures("one_operation_sigmoid")
def test_flops_are_the_counted_operations_of_a_time_step(cell: ReferenceCell) -> None:
    assert cell.flops(2, 3) == FLOPS_AT_2_3[cell.info.name]
    for input_size, hidden_size in ((2, 3), (5, 4)):
        rng = np.random.default_rng(9)
        weights = random_weights(cell, rng, input_size, hidden_size)
        state = random_state(cell, rng, 1, hidden_size)
        Counted.total = 0
        cell.step(
            {name: w.view(Counted) for name, w in weights.items()},
            rng.normal(size=(1, input_size)).view(Counted),
            tuple(part.view(Counted) for part in state),
        )
        assert Counted.total == cell.flops(input_size, hidden_size)
