"""JaxNetwork: precision, compilation, custom layers, kernels, builds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from implementations.jax_backend.kernel import kernel_of
from implementations.jax_backend.layer import Layer
from implementations.jax_backend.network import JaxNetwork
from tests import probe_cases as cases
from tests.backend_cases import (
    assert_weights_come_back,
    build,
    call_everything,
    draw_batch,
    draw_weights,
)
from tests.frameworks.backends import SMALL as OF_GRU
from tests.frameworks.backends import Backend
from tests.frameworks.jax_layers import factory, scanned

SMALL = replace(OF_GRU, cell="rnn")


def of_layer(layer: Any) -> JaxNetwork:
    network: JaxNetwork = Backend.of("jax").network_of(factory(layer), SMALL)
    return network


# --- compilation ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Return every program that JAX compiled in each of two rounds."""
    folder = tmp_path_factory.mktemp("programs")
    before = jax.config.values["jax_dump_ir_to"]
    jax.config.update("jax_dump_ir_to", str(folder))
    network = build("jax-scan", SMALL)
    rounds = []
    for _ in range(2):
        network.load_weights(draw_weights(SMALL))
        call_everything(network, SMALL, draw_batch(SMALL))
        files = sorted(folder.iterdir())
        rounds.append([file.read_text(encoding="utf-8") for file in files])
        for file in files:
            file.unlink()
    jax.config.update("jax_dump_ir_to", before)
    return rounds


def test_every_product_is_computed_in_full_precision(
    programs: list[list[str]],
) -> None:
    lines = [line for program in programs[0] for line in program.splitlines()]
    products = [line for line in lines if "stablehlo.dot_general" in line]
    assert len(products) > 10
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_a_second_round_of_calls_compiles_nothing(programs: list[list[str]]) -> None:
    assert len(programs[0]) == len(
        ["forward", "forward of one time step", "pull", "loss_and_gradients", "update"]
    )
    assert programs[1] == []


# --- custom layers --------------------------------------------------------------------


def test_weights_in_the_layout_of_keras_are_converted_too() -> None:
    shapes = {"kernel": (2, 6), "recurrent_kernel": (6, 6), "bias": (6,)}

    def run(weights: Any, x: Any, state: Any, active: Any) -> Any:
        canonical = {
            "w_ih": weights["kernel"].T[None],
            "w_hh": weights["recurrent_kernel"].T[None],
            "b": weights["bias"][None],
        }
        return scanned(canonical, x, state, active)

    network = of_layer(Layer("own", shapes, run))
    assert_weights_come_back(network, SMALL)
    placed = network.place(draw_batch(SMALL))
    found = network.loss_and_gradients(placed).read()
    expected = of_layer(scanned).loss_and_gradients(placed).read()
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    for name, tensor in expected.gradients.items():
        np.testing.assert_allclose(found.gradients[name], tensor, rtol=1e-5, atol=1e-7)


# --- the kernel that ran --------------------------------------------------------------


def test_a_custom_call_is_reported_by_name() -> None:
    def on_host(weights: Any, x: Any, state: Any, active: Any) -> Any:
        outputs, final = scanned(weights, x, state, active)
        same = jax.ShapeDtypeStruct(outputs.shape, outputs.dtype)
        return jax.pure_callback(lambda a: a, same, outputs), final

    assert of_layer(on_host).kernel() == "custom call xla_ffi_python_cpu_callback"


def test_cudnn_is_distinguished_from_other_custom_calls() -> None:
    for target, words in (
        ("cudnn_rnn_ffi", "cuDNN"),
        ("__cublas$gemm", "XLA operations"),
        ("flash_rnn", "custom call flash_rnn"),
    ):
        call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct((2,), np.float32))
        program = jax.jit(call).lower(np.ones(2, np.float32)).compiler_ir("hlo")
        assert kernel_of(program.as_hlo_text()) == words


def test_jax_reports_no_threads() -> None:
    assert cases.load("jax").state().threads is None
