"""Keras layers on TensorFlow and on JAX: biases, parameters, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from harness.contract import Inputs, Optimizer
from harness.errors import PluginError, UnavailableError
from harness.loading import load_cell
from tests.backend_cases import REGISTRY, build, draw_batch
from tests.frameworks.backends import SMALL, Backend
from tests.frameworks.keras_layers import gru

OTHER_BACKEND = {"tensorflow": "jax", "jax": "torch"}


@pytest.fixture
def stock(backend: Backend) -> str:
    """Return the implementation whose layers are those of Keras."""
    return backend.implementations[0]


# --- biases --------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(("biases", "moves"), [("canonical", False), ("native", True)])
def test_redundant_biases_stay_zero_in_canonical_mode_only(
    backend: Backend, stock: str, biases: Any, moves: bool
) -> None:
    spec = replace(SMALL, biases=biases, optimizer=Optimizer("sgd"))
    network = build(stock, spec)
    batch = network.place(draw_batch(spec))
    gradients = network.loss_and_gradients(batch).read().gradients
    norm = network.train_steps([batch] * 2).read().gradient_norms[0]
    first, second = backend.parameters(network)["layer0.bias"]
    redundant, needed = second[:12], second[12:]  # for z and r; b_hn for n
    assert (redundant != 0).all() == moves
    assert (needed != 0).all()
    squares = {name: (g**2).sum() for name, g in gradients.items()}
    # A redundant bias has the same gradient as its twin, and counts in the norm.
    twice = (gradients["layer0.b"][:2] ** 2).sum() if moves else 0
    assert norm == pytest.approx(np.sqrt(sum(squares.values()) + twice), rel=1e-5)
    z, r = first[:6] + second[:6], first[6:12] + second[6:12]
    found = network.weights()["layer0.b"]
    np.testing.assert_array_equal(found, np.stack([r, z, first[12:]]))


@pytest.mark.parametrize(
    ("cell", "count"), [("rnn", 640 - 20), ("gru", 1920), ("lstm", 2560 - 80)]
)
def test_keras_layers_have_the_declared_number_of_parameters(
    backend: Backend, stock: str, cell: str, count: int
) -> None:
    spec = replace(SMALL, cell=cell, inputs=Inputs("reals", 10), hidden_size=20)
    network = build(stock, replace(spec, biases="native"))
    shipped = sum(p.size for p in backend.parameters(network).values())
    declared = load_cell(REGISTRY, cell).parameter_counts(10, 20)
    assert shipped == declared["keras"] == count


# --- refusals -------------------------------------------------------------------------


def test_the_error_for_a_gru_of_the_wrong_form_names_the_right_one(
    backend: Backend,
) -> None:
    spec = replace(SMALL, cell="gru-reset-before")
    with pytest.raises(PluginError) as caught:
        backend.network_of(lambda cell, i, h: gru(h), spec)
    assert str(caught.value) == (
        "GRU: parameter 'bias' has shape (2, 18); expected shape (18,); a GRU with "
        "reset_after=True computes the cell gru: declare it for that one, or give it "
        "reset_after=False"
    )


def test_a_second_backend_of_keras_is_unavailable(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = keras.backend.backend()
    monkeypatch.setattr(keras.backend, "backend", lambda: OTHER_BACKEND[here])
    with pytest.raises(UnavailableError, match=f"KERAS_BACKEND must be {here}"):
        backend.network_of(lambda cell, i, h: gru(h))
