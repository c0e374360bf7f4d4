"""JaxNetwork: precision, compilation, custom layers, kernels, builds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from harness.contract import NetworkSpec
from harness.errors import PluginError
from implementations.jax_backend import network as network_module
from implementations.jax_backend.kernel import kernel_of
from implementations.jax_backend.layer import Layer
from implementations.jax_backend.network import JaxNetwork
from implementations.jax_backend.scan import Operations
from tests import probe_cases as cases
from tests.backend_cases import (
    assert_weights_come_back,
    build,
    draw_batch,
    draw_state,
    draw_weights,
)
from tests.frameworks.backends import SMALL as OF_GRU
from tests.frameworks.backends import Backend

SMALL = replace(OF_GRU, cell="rnn")


def of_layer(layer: Any) -> JaxNetwork:
    network: JaxNetwork = Backend.of("jax").network_of(lambda *_: layer, SMALL)
    return network


# --- compilation ----------------------------------------------------------------------


def call_everything(network: Any, spec: NetworkSpec) -> None:
    placed = network.place(draw_batch(spec))
    state = draw_state(spec)
    done = network.forward(placed, state).read()
    network.forward(placed).read()
    network.step(draw_batch(spec).inputs[:, 0], state).read()
    network.vjp(placed, state, done.outputs, done.state)
    network.loss_and_gradients(placed).read()
    network.train_steps([placed] * 2).read()


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
        call_everything(network, SMALL)
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


def scanned(weights: Any, x: Any, state: Any, active: Any) -> Any:
    """Compute a tanh Elman network that ignores padding."""
    w, u, b = weights["w_ih"][0], weights["w_hh"][0], weights["b"][0]

    def advance(h: Any, x_t: Any) -> Any:
        new = jnp.tanh(x_t @ w.T + h @ u.T + b)
        return new, new

    h, outputs = lax.scan(advance, state[0], x)
    return outputs, (h,)


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


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (None, "returned NoneType; expected a function (weights, x, state, active)"),
        (Operations, "returned type; expected a function"),
        (lambda weights, x: x, "expected <lambda>(weights, x, state, active)"),
        (
            Layer("own", {"w_ih": (1, 6, 2)}, scanned),
            "own: parameter 'kernel' is missing; expected shape (2, 6)",
        ),
    ],
)
def test_a_layer_of_the_wrong_form_is_refused_when_it_is_built(
    layer: Any, words: str
) -> None:
    with pytest.raises(PluginError) as caught:
        of_layer(layer)
    assert words in str(caught.value)


def outputs_only(weights: Any, x: Any, state: Any, active: Any) -> Any:
    return scanned(weights, x, state, active)[0]


def last_only(weights: Any, x: Any, state: Any, active: Any) -> Any:
    outputs, final = scanned(weights, x, state, active)
    return outputs[-1], final


def batch_first(weights: Any, x: Any, state: Any, active: Any) -> Any:
    outputs, final = scanned(weights, x, state, active)
    return jnp.swapaxes(outputs, 0, 1), final


def bare_state(weights: Any, x: Any, state: Any, active: Any) -> Any:
    outputs, final = scanned(weights, x, state, active)
    return outputs, final[0]


def half(weights: Any, x: Any, state: Any, active: Any) -> Any:
    outputs, final = scanned(weights, x, state, active)
    return outputs.astype(jnp.bfloat16), final


EXPECTED = "expected (float32 (9, 4, 6), (float32 (4, 6))), a tuple of outputs"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (outputs_only, "outputs_only: answered float32 (9, 4, 6); expected (float32"),
        (last_only, f"answered (float32 (4, 6), (float32 (4, 6))); {EXPECTED}"),
        (batch_first, f"answered (float32 (4, 9, 6), (float32 (4, 6))); {EXPECTED}"),
        (bare_state, f"answered (float32 (9, 4, 6), float32 (4, 6)); {EXPECTED}"),
        (half, f"answered (bfloat16 (9, 4, 6), (float32 (4, 6))); {EXPECTED}"),
    ],
)
def test_a_layer_with_wrong_answers_is_refused_in_one_sentence(
    layer: Any, words: str
) -> None:
    network = of_layer(layer)
    with pytest.raises(PluginError) as caught:
        network.forward(network.place(draw_batch(SMALL)))
    assert words in str(caught.value)


# --- the kernel that ran --------------------------------------------------------------


def test_the_loop_of_a_scan_is_found_in_the_compiled_program() -> None:
    assert build("jax-scan", SMALL).kernel() == "XLA while loop"


def test_an_unrolled_loop_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "KERNEL_TIME_STEPS", 8)  # 64 compile slowly

    def unrolled(weights: Any, x: Any, state: Any, active: Any) -> Any:
        outputs = []
        for x_t in x:
            out, state = scanned(weights, x_t[None], state, active)
            outputs.append(out)
        return jnp.concatenate(outputs), state

    assert of_layer(unrolled).kernel() == "XLA operations"


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


# --- what the probe reports -----------------------------------------------------------


def test_tracing_and_compiling_are_reported_and_a_second_call_is_not() -> None:
    probe = cases.load("jax")
    double = jax.jit(lambda x: 2 * x)
    cases.assert_reports_builds(probe, double, jax.numpy.ones(2), 3.0)
    assert probe.state().threads is None
