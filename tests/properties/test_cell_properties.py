"""Properties of a cell for any sizes, weights, inputs and state."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contract import Array, ReferenceCell, State, Weights
from implementations.cells.gru import Gru, GruResetBefore
from implementations.cells.lstm import Lstm
from implementations.cells.rnn import Rnn, RnnRelu
from tests.built_in_cells import CELLS

cells = st.sampled_from([*CELLS.values()])
grus = st.sampled_from([Gru(), GruResetBefore()])
sizes = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.1, 1.0, 3.0])

# Stored examples are of no use on another machine, and a shared machine is slow.
sixty = settings(max_examples=60)


def setting(
    cell: ReferenceCell, seed: int, size: tuple[int, int, int], scale: float
) -> tuple[Weights, Array, State]:
    rng = np.random.default_rng(seed)
    batch, input_size, hidden_size = size
    shapes = cell.weight_shapes(input_size, hidden_size)
    weights = {name: rng.normal(0, scale, shape) for name, shape in shapes.items()}
    state = tuple(rng.normal(size=(batch, hidden_size)) for _ in cell.info.state_parts)
    return weights, rng.normal(size=(batch, input_size)), state


@sixty
@given(cells, seeds, sizes, st.sampled_from([0.1, 1.0]))
def test_the_backward_step_is_the_slope_along_any_direction(
    cell: ReferenceCell, seed: int, size: tuple[int, int, int], scale: float
) -> None:
    """Central differences over ±1e-5 along a unit direction err by 1e-10 and rounding.

    Third derivatives grow with the cube of weights and inputs, hence 1e-7, on the
    scale of the gradient's length, and no weights of scale 3 here.
    """
    weights, x, state = setting(cell, seed, size, scale)
    rng = np.random.default_rng([seed, 1])
    d_state = tuple(rng.normal(size=part.shape) for part in state)
    _, saved = cell.step(weights, x, state)
    d_weights, d_x, d_before = cell.step_backward(weights, saved, d_state)
    point = [*weights.values(), x, *state]
    gradient = [*d_weights.values(), d_x, *d_before]

    direction = [rng.normal(size=value.shape) for value in point]
    length = np.sqrt(sum((d**2).sum() for d in direction))
    direction = [d / length for d in direction]

    def loss(shift: float) -> float:
        moved = [v + shift * d for v, d in zip(point, direction, strict=True)]
        named = dict(zip(weights, moved, strict=False))
        after, _ = cell.step(
            named, moved[len(weights)], tuple(moved[len(weights) + 1 :])
        )
        return float(sum((d * p).sum() for d, p in zip(d_state, after, strict=True)))

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    expected = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
    size_of_gradient = np.sqrt(sum((g**2).sum() for g in gradient))
    assert abs(slope - expected) <= 1e-7 * (1 + size_of_gradient)


@sixty
@given(cells, seeds, sizes, scales)
def test_sequences_of_a_batch_do_not_affect_each_other(
    cell: ReferenceCell, seed: int, size: tuple[int, int, int], scale: float
) -> None:
    """Up to rounding: a product of another size may sum in another order."""
    weights, x, state = setting(cell, seed, size, scale)
    after, saved = cell.step(weights, x, state)
    d_weights, d_x, d_before = cell.step_backward(weights, saved, after)
    total = {name: np.zeros_like(w) for name, w in weights.items()}
    for k in range(len(x)):
        alone, kept = cell.step(
            weights, x[k : k + 1], tuple(p[k : k + 1] for p in state)
        )
        d_alone, d_x_alone, d_before_alone = cell.step_backward(weights, kept, alone)
        np.testing.assert_allclose(d_x_alone[0], d_x[k], rtol=1e-9, atol=1e-12)
        for part in range(len(state)):
            np.testing.assert_allclose(alone[part][0], after[part][k], atol=1e-13)
            np.testing.assert_allclose(
                d_before_alone[part][0], d_before[part][k], rtol=1e-9, atol=1e-12
            )
        for name, d in d_alone.items():
            total[name] += d
    for name, d in d_weights.items():
        np.testing.assert_allclose(d, total[name], rtol=1e-9, atol=1e-12)


@sixty
@given(cells, seeds, sizes, scales)
def test_a_time_step_does_not_change_its_arguments(
    cell: ReferenceCell, seed: int, size: tuple[int, int, int], scale: float
) -> None:
    weights, x, state = setting(cell, seed, size, scale)
    given = [*weights.values(), x, *state]
    before = [array.copy() for array in given]
    after, saved = cell.step(weights, x, state)
    given += after
    before += [array.copy() for array in after]
    cell.step_backward(weights, saved, after)
    for array, as_it_was in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, as_it_was)


@sixty
@given(grus, seeds, sizes, scales)
def test_the_state_of_a_gru_lies_between_the_old_state_and_a_tanh(
    cell: ReferenceCell, seed: int, size: tuple[int, int, int], scale: float
) -> None:
    """It is a convex combination, so it never exceeds the larger of |h'| and 1."""
    weights, x, (h_before,) = setting(cell, seed, size, scale)
    (h,), _ = cell.step(weights, x, (h_before,))
    assert (np.abs(h) <= np.maximum(np.abs(h_before), 1) * (1 + 1e-15)).all()


@sixty
@given(seeds, sizes, scales)
def test_the_state_of_a_relu_network_is_never_negative_and_scales_with_its_inputs(
    seed: int, size: tuple[int, int, int], scale: float
) -> None:
    """relu(c a) = c relu(a) for c > 0; a power of two scales without rounding."""
    weights, x, state = setting(RnnRelu(), seed, size, scale)
    (h,), _ = RnnRelu().step(weights, x, state)
    larger = {**weights, "b": 4 * weights["b"]}
    (scaled,), _ = RnnRelu().step(larger, 4 * x, (4 * state[0],))
    assert (h >= 0).all()
    np.testing.assert_array_equal(scaled, 4 * h)


@sixty
@given(st.sampled_from([Rnn(), Lstm()]), seeds, sizes, scales)
def test_the_output_of_rnn_and_lstm_is_within_one(
    cell: ReferenceCell, seed: int, size: tuple[int, int, int], scale: float
) -> None:
    weights, x, state = setting(cell, seed, size, scale)
    after, _ = cell.step(weights, x, state)
    assert (np.abs(after[0]) <= 1).all()
