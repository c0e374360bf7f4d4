"""JaxNetwork: conversions, dtype and precision, compilation, kernels, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from harness.contract import Array, Inputs, NetworkSpec, Optimizer, Readout, Target
from harness.errors import InputError, PluginError, UnavailableError
from harness.loading import build_network, load_cell
from implementations.jax_backend import network as network_module
from implementations.jax_backend.kernel import kernel_of
from implementations.jax_backend.layer import Layer
from implementations.jax_backend.network import JaxNetwork
from implementations.jax_backend.scan import Operations
from tests.backend_cases import (
    BATCH,
    REGISTRY,
    SPEC,
    assert_training_goes_on,
    assert_weights_come_back,
    build,
    draw_batch,
    draw_state,
    draw_weights,
    errors_against_reference,
)

CELLS = ["rnn", "rnn-relu", "gru", "gru-reset-before", "lstm"]
SMALL = replace(
    SPEC, inputs=Inputs("reals", 2), num_layers=1, target=Target.REAL, cell="rnn"
)


def jax_scan(spec: NetworkSpec) -> JaxNetwork:
    return cast(JaxNetwork, build("jax-scan", spec))


def of_layer(layer: Any, spec: NetworkSpec = SMALL) -> JaxNetwork:
    cell = load_cell(REGISTRY, spec.cell)
    network = JaxNetwork(spec, cell, "cpu", lambda *_: layer)
    network.load_weights(draw_weights(spec))
    return network


@pytest.mark.parametrize("cell", CELLS)
def test_weights_come_back_bit_for_bit(cell: str) -> None:
    spec = replace(SPEC, cell=cell)
    assert_weights_come_back(jax_scan(spec), spec)


# With two moments, and with none.
@pytest.mark.parametrize("optimizer", [Optimizer("adam"), Optimizer("sgd")])
def test_training_goes_on_from_weights_and_optimiser_state(
    optimizer: Optimizer,
) -> None:
    assert_training_goes_on("jax-scan", cell="rnn", optimizer=optimizer)


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, num_layers=1),
        replace(SMALL, cell="lstm", num_layers=2, readout=Readout.LAST),
    ],
    ids=["tokens, every", "reals, last"],
)
def test_float64_is_computed_in_float64_and_stays_within_the_network(
    spec: NetworkSpec,
) -> None:
    spec = replace(spec, dtype="float64")
    errors = errors_against_reference(jax_scan(spec), spec)
    assert max(errors.values()) < 1e-13, errors
    assert jnp.zeros(1).dtype == np.float32


def call_everything(network: JaxNetwork, spec: NetworkSpec) -> None:
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
    """Every program that JAX handed to its compiler, for each of two rounds."""
    folder = tmp_path_factory.mktemp("programs")
    before = jax.config.values["jax_dump_ir_to"]
    jax.config.update("jax_dump_ir_to", str(folder))
    network = jax_scan(SMALL)
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


def test_every_product_is_asked_for_in_full_precision(
    programs: list[list[str]],
) -> None:
    lines = [line for program in programs[0] for line in program.splitlines()]
    products = [line for line in lines if "stablehlo.dot_general" in line]
    assert len(products) > 10
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_what_was_called_once_is_not_compiled_again(programs: list[list[str]]) -> None:
    assert len(programs[0]) == len(
        ["forward", "forward of one time step", "pull", "loss_and_gradients", "update"]
    )
    assert programs[1] == []


def aligned(array: Array) -> Array:
    """Return a copy where JAX would compute in the caller's own memory."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    same = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    same[:] = array
    return same


def test_weights_are_the_networks_own() -> None:
    network = jax_scan(SMALL)
    given = {name: aligned(tensor) for name, tensor in draw_weights(SMALL).items()}
    network.load_weights(given)
    for tensor in given.values():
        tensor[:] = 0
    assert_weights_come_back(network, SMALL)


def test_what_was_read_or_placed_is_not_touched_by_what_comes_after() -> None:
    network = jax_scan(SMALL)
    batch = draw_batch(SMALL)
    placed = network.place(batch)
    first = network.train_steps([placed])
    weights = network.weights()
    copies = {name: tensor.copy() for name, tensor in weights.items()}
    loss = network.loss_and_gradients(placed)
    expected = loss.read().loss
    batch.inputs[:] = 0
    network.train_steps([placed] * 3).wait()
    first.wait()
    assert first.read().losses.shape == (1,)
    assert loss.read().loss == expected
    for name, tensor in copies.items():
        np.testing.assert_array_equal(weights[name], tensor)
        assert (network.weights()[name] != tensor).any()
    network.load_weights(copies)
    assert network.loss_and_gradients(placed).read().loss == expected


# --- layers of somebody's own --------------------------------------------------------


PLUGIN = """\
from jax import lax, numpy as jnp
from harness import declare_implementation

declare_implementation("my-rnn", framework="jax", cells=["rnn"], layer="my_rnn:layer")

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
"""


def test_a_plugin_file_of_a_few_lines_computes_what_the_reference_does(
    tmp_path: Path,
) -> None:
    file = tmp_path / "my_rnn.py"
    file.write_text(PLUGIN, encoding="utf-8")
    registry = type(REGISTRY).discover([file])
    assert registry.problems == []
    spec = replace(SMALL, dtype="float64")
    cell = load_cell(registry, "rnn")
    network = cast(JaxNetwork, build_network(registry, "my-rnn", spec, cell, "cpu"))
    network.load_weights(draw_weights(spec))
    errors = errors_against_reference(network, spec)
    assert max(errors.values()) < 1e-13, errors


def scanned(weights: Any, x: Any, state: Any, active: Any) -> Any:
    """A tanh Elman network, blind to padding."""
    w, u, b = weights["w_ih"][0], weights["w_hh"][0], weights["b"][0]

    def advance(h: Any, x_t: Any) -> Any:
        new = jnp.tanh(x_t @ w.T + h @ u.T + b)
        return new, new

    h, outputs = lax.scan(advance, state[0], x)
    return outputs, (h,)


def test_the_layout_of_keras_is_converted_too() -> None:
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
def test_a_layer_of_another_form_is_refused_when_it_is_built(
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


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (outputs_only, "outputs_only: answered float32 (9, 4, 6); expected a tuple"),
        (last_only, "outputs float32 (4, 6); expected float32 (9, 4, 6)"),
        (batch_first, "outputs float32 (4, 9, 6); expected float32 (9, 4, 6)"),
        (
            bare_state,
            "state float32 (4, 6); expected a tuple of 1, each float32 (4, 6)",
        ),
        (half, "outputs bfloat16 (9, 4, 6); expected float32 (9, 4, 6)"),
    ],
)
def test_a_layer_that_answers_otherwise_is_refused_in_one_sentence(
    layer: Any, words: str
) -> None:
    network = of_layer(layer)
    with pytest.raises(PluginError) as caught:
        network.forward(network.place(draw_batch(SMALL)))
    assert words in str(caught.value)


# --- what really ran -----------------------------------------------------------------


def test_the_loop_of_a_scan_is_seen_in_the_compiled_program() -> None:
    assert jax_scan(SMALL).kernel() == "XLA while loop"


def test_a_loop_that_was_unrolled_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_cudnn_is_told_from_other_custom_calls() -> None:
    for target, words in (
        ("cudnn_rnn_ffi", "cuDNN"),
        ("__cublas$gemm", "XLA operations"),
        ("flash_rnn", "custom call flash_rnn"),
    ):
        call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct((2,), np.float32))
        program = jax.jit(call).lower(np.ones(2, np.float32)).compiler_ir("hlo")
        assert kernel_of(program.as_hlo_text()) == words


# --- bad input -----------------------------------------------------------------------


def test_weights_and_states_that_do_not_fit_are_refused() -> None:
    network = jax_scan(SMALL)
    weights = draw_weights(SMALL)
    weights["layer0.b"][0, 1] = np.nan
    with pytest.raises(InputError, match=r"'layer0.b' holds nan at \[0, 1\]"):
        network.load_weights(weights)
    placed = network.place(draw_batch(SMALL))
    with pytest.raises(InputError, match=r"expected \(1, 4, 6\)"):
        network.forward(placed, draw_state(SMALL, BATCH + 1))


def test_a_missing_gpu_is_unavailable_in_one_sentence() -> None:
    cell = load_cell(REGISTRY, "rnn")
    with pytest.raises(UnavailableError, match="so cuda:99 is not there") as caught:
        JaxNetwork(SMALL, cell, "cuda:99", lambda *_: scanned)
    assert f"jax {jax.__version__} sees" in str(caught.value)


def on_gpu() -> bool:
    return jax.default_backend() == "gpu"


@pytest.mark.gpu
@pytest.mark.skipif(not on_gpu(), reason="no CUDA device")
@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_gives_what_the_cpu_gives_without_tf32(cell: str) -> None:
    # TF32 has a unit roundoff of 5e-4; float32 at 9 time steps stays near 1e-6.
    spec = replace(SPEC, cell=cell)
    declared = load_cell(REGISTRY, cell)
    network = cast(
        JaxNetwork, build_network(REGISTRY, "jax-scan", spec, declared, "cuda:0")
    )
    network.load_weights(draw_weights(spec))
    errors = errors_against_reference(network, spec)
    assert max(errors.values()) < 1e-5, errors
    assert network.kernel() == "XLA while loop"
