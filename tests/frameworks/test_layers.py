"""Layers of a framework: names of weights, the kernel that ran, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.contract import NetworkSpec
from harness.errors import PluginError
from tests.backend_cases import build, draw_batch
from tests.frameworks.backends import SMALL, Backend


def network_of(backend: Backend, layer: Any, cell: str | None = None) -> Any:
    """Build a small network of a layer, by default for the cell of most of them."""
    return backend.network_of(backend.layers.factory(layer), small(backend, cell))


def small(backend: Backend, cell: str | None = None) -> NetworkSpec:
    return replace(SMALL, cell=cell or backend.layers.CELL)


def test_a_layer_may_use_canonical_names_for_its_weights(backend: Backend) -> None:
    own = network_of(backend, backend.layers.elman, "rnn")
    oracle = build("numpy-reference", small(backend, "rnn"))
    batch = replace(draw_batch(SMALL), lengths=np.full(4, 9))  # it ignores padding
    found = own.loss_and_gradients(own.place(batch)).read()
    expected = oracle.loss_and_gradients(oracle.place(batch)).read()
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    for name, tensor in expected.gradients.items():
        np.testing.assert_allclose(found.gradients[name], tensor, rtol=1e-5, atol=1e-7)


# --- the kernel that ran --------------------------------------------------------------


def test_the_loop_over_time_is_found(backend: Backend, implementation: str) -> None:
    assert build(implementation, SMALL).kernel() == backend.loop


def test_a_layer_without_a_loop_is_reported(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend.framework != "tensorflow":
        steps = "implementations.jax_backend.network.KERNEL_TIME_STEPS"
        monkeypatch.setattr(steps, 8)  # 64 compile slowly
    found = network_of(backend, backend.layers.without_loop, "rnn").kernel()
    assert found == backend.loop.replace("while loop", "operations")


# --- refusals -------------------------------------------------------------------------


def test_a_layer_of_the_wrong_form_is_refused_when_it_is_built(
    backend: Backend, wrong_form: tuple[Any, str]
) -> None:
    layer, words = wrong_form
    with pytest.raises(PluginError) as caught:
        network_of(backend, layer)
    assert words in str(caught.value)


def test_a_layer_with_wrong_answers_is_refused_in_one_sentence(
    backend: Backend, wrong_answer: tuple[Any, str]
) -> None:
    layer, words = wrong_answer
    if backend.framework == "tensorflow":
        with pytest.raises(PluginError) as caught:
            network_of(backend, layer)
    else:  # JAX traces a layer for the shapes of a call
        network = network_of(backend, layer)
        with pytest.raises(PluginError) as caught:
            network.forward(network.place(draw_batch(small(backend))))
    assert words in str(caught.value)
