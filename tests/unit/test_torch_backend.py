"""The torch backend: conversions bit for bit, bias modes, kernels, refusals."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.contract import (
    Array,
    Batch,
    Inputs,
    NetworkSpec,
    Optimizer,
    Readout,
    Target,
    Weights,
)
from harness.errors import PluginError, RefusedError, UnavailableError
from harness.measure.problem import initial_weights
from harness.registry import Registry

torch = pytest.importorskip("torch")

from implementations.torch_backend import native  # noqa: E402
from implementations.torch_backend.network import TorchNetwork  # noqa: E402

REGISTRY = Registry.discover()
CELLS = ["rnn", "gru", "lstm"]
SPEC = NetworkSpec(
    cell="gru",
    inputs=Inputs("tokens", 40),
    hidden_size=6,
    output_size=3,
    readout=Readout.EVERY,
    target=Target.CLASS,
    num_layers=2,
)


def build(cell: str, **changes: Any) -> tuple[TorchNetwork, Weights]:
    spec = replace(SPEC, cell=cell, **changes)
    network = TorchNetwork(spec, REGISTRY.load_cell(cell), "cpu", native.layer)
    weights = initial_weights(spec, REGISTRY.load_cell(cell), "canonical", 0, 10)
    rng = np.random.default_rng(0)
    weights = {
        name: (w + rng.uniform(-0.1, 0.1, w.shape)).astype(np.float32)
        for name, w in weights.items()
    }
    network.load_weights(weights)
    return network, weights


def a_batch() -> Batch:
    rng = np.random.default_rng(1)
    return Batch(
        rng.integers(0, 40, (4, 9)),
        np.array([9, 5, 3, 9]),
        rng.integers(0, 3, (4, 9)),
        np.arange(9) < np.array([9, 5, 3, 9])[:, None],
    )


@pytest.mark.parametrize("cell", CELLS)
def test_weights_come_back_bit_for_bit(cell: str) -> None:
    network, weights = build(cell)
    found = network.weights()
    assert list(found) == list(weights)
    for name, tensor in weights.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert found[name].dtype == np.float32


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer("adam"),
        Optimizer("rmsprop"),
        Optimizer("sgd", momentum=0.9),
        Optimizer("sgd"),
    ],
)
def test_training_goes_on_from_weights_and_optimiser_state(
    cell: str, optimizer: Optimizer
) -> None:
    network, _ = build(cell, optimizer=optimizer)
    placed = network.place(a_batch())
    network.train_steps([placed] * 3).read()
    weights, state = network.weights(), network.optimizer_state()
    expected = network.train_steps([placed] * 2).read()
    other, _ = build(cell, optimizer=optimizer)
    other.load_weights(weights)
    other.load_optimizer_state(state)
    found = other.train_steps([placed] * 2).read()
    np.testing.assert_array_equal(found.losses, expected.losses)
    for name, tensor in network.weights().items():
        np.testing.assert_array_equal(other.weights()[name], tensor)
    assert state["updates"] == 3


@pytest.mark.parametrize("cell", CELLS)
def test_redundant_biases_stay_zero_in_canonical_mode_only(cell: str) -> None:
    batch = a_batch()
    needed = {"rnn": 0, "gru": 6, "lstm": 0}[cell]
    for biases, changes in (("canonical", False), ("native", True)):
        network, _ = build(cell, biases=biases)
        before = network._parameters()["layer0.bias_hh_l0"].detach().clone()
        network.train_steps([network.place(batch)] * 3).read()
        bias = network._parameters()["layer0.bias_hh_l0"].detach()
        redundant = slice(0, len(bias) - needed)
        assert bool((before[redundant] == 0).all())
        assert bool((bias[redundant] != 0).any()) is changes


@pytest.mark.parametrize(
    ("cell", "count"), [("rnn", 640), ("gru", 1920), ("lstm", 2560)]
)
def test_torch_trains_as_many_parameters_as_it_ships_in_native_mode(
    cell: str, count: int
) -> None:
    spec = replace(
        SPEC,
        cell=cell,
        inputs=Inputs("reals", 10),
        hidden_size=20,
        num_layers=1,
        biases="native",
    )
    network = TorchNetwork(spec, REGISTRY.load_cell(cell), "cpu", native.layer)
    trained = network._trained()
    found = sum(p.numel() for n, p in trained.items() if n.startswith("layer"))
    assert found == count
    declared = REGISTRY.load_cell(cell).parameter_counts(10, 20)
    assert declared["torch"] == count


def test_the_lstm_runs_in_onednn_and_the_gru_does_not() -> None:
    seen = {cell: build(cell)[0].kernel() for cell in CELLS}
    assert seen["gru"] == "ATen loop of aten::gru"
    assert seen["rnn"] == "ATen loop of aten::rnn_tanh"
    if torch.backends.mkldnn.is_available():
        assert seen["lstm"] == "oneDNN"


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_falling_back_from_onednn_is_reported() -> None:
    network, _ = build("lstm")
    with torch.backends.mkldnn.flags(enabled=False):
        assert network.kernel() == "ATen loop of aten::lstm"


# --- precisions ----------------------------------------------------------------------


def _difference(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("cell", ["rnn", "gru"])
@pytest.mark.parametrize("name", ["torch-native", "torch-loop"])
def test_bf16_rounds_products_and_leaves_weights_and_moments_in_float32(
    name: str, cell: str
) -> None:
    spec = replace(SPEC, cell=cell, precision="bf16")
    network = REGISTRY.build(name, spec, REGISTRY.load_cell(cell), "cpu")
    assert isinstance(network, TorchNetwork)
    exact, weights = build(cell)
    network.load_weights(weights)
    batch = a_batch()
    placed, reference = network.place(batch), exact.place(batch)
    state = _state(len(REGISTRY.load_cell(cell).info.state_parts))
    found, expected = (
        n.forward(p, state).read() for n, p in ((network, placed), (exact, reference))
    )
    # Half a unit in the last of 8 bits is 2^-9, which 9 time steps add up.
    assert 2**-12 < _difference(found.outputs, expected.outputs) < 2**-5
    assert 2**-12 < _difference(found.state[0], expected.state[0]) < 2**-5
    gradients = network.loss_and_gradients(placed).read().gradients
    exactly = exact.loss_and_gradients(reference).read().gradients
    for tensor, gradient in gradients.items():
        assert gradient.dtype == np.float32
        assert _difference(gradient, exactly[tensor]) < 2**-4, tensor
    network.train_steps([placed]).read()
    moments = network.optimizer_state()
    for array in (found.outputs, *found.state, *network.weights().values()):
        assert array.dtype == np.float32
    assert {moments[f"first/{n}"].dtype for n in weights} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "tf32"}, "TF32 is arithmetic of NVIDIA GPUs; asked was tf32 on"),
        (
            {"precision": "bf16", "dtype": "float64"},
            "bf16 is a precision of float32 networks; asked was float64",
        ),
        ({"precision": "fp8"}, "torch computes at highest, tf32 or bf16; asked was"),
    ],
)
def test_a_precision_that_means_nothing_is_refused_in_one_sentence(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        build("gru", **changes)


@pytest.mark.skipif(
    torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="oneDNN has an LSTM in bfloat16 for this processor",
)
def test_a_layer_without_a_kernel_for_the_precision_is_unavailable() -> None:
    words = "has no nn.LSTM for bf16 on this cpu: could not create a primitive"
    with pytest.raises(UnavailableError, match=words):
        build("lstm", precision="bf16")


class _Wrong(torch.nn.GRU):  # type: ignore[misc]
    def __init__(self, input_size: int, hidden_size: int, mistake: str) -> None:
        super().__init__(input_size, hidden_size, bias=mistake != "no bias")
        if mistake == "extra":
            self.scale = torch.nn.Parameter(torch.ones(1))
        if mistake == "shape":
            self.weight_hh_l0 = torch.nn.Parameter(torch.ones(3, hidden_size))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("no bias", "'bias_ih_l0' is missing; expected shape (18,)"),
        ("extra", "'scale' is unknown; expected weight_ih_l0"),
        ("shape", "'weight_hh_l0' has shape (3, 6); expected shape (18, 6)"),
    ],
)
def test_a_layer_with_another_layout_is_refused_by_name(
    mistake: str, words: str
) -> None:
    def layer(cell: str, input_size: int, hidden_size: int) -> Any:
        return _Wrong(input_size, hidden_size, mistake)

    with pytest.raises(PluginError) as caught:
        TorchNetwork(SPEC, REGISTRY.load_cell("gru"), "cpu", layer)
    assert words in str(caught.value)


class _OneArgument(torch.nn.GRU):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return super().forward(x)


class _OutputsOnly(torch.nn.GRU):  # type: ignore[misc]
    def forward(self, x: Any, state: Any = None) -> Any:
        return super().forward(x, state)[0]


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda *_: None, "returned NoneType; expected a torch.nn.Module"),
        (lambda _, i, h: _OneArgument(i, h), "expected forward(x, state)"),
        (lambda _, i, h: _OutputsOnly(i, h), "expected (outputs, state), as nn.GRU"),
    ],
)
def test_a_layer_of_another_form_is_refused_in_one_sentence(
    layer: Any, words: str
) -> None:
    def run() -> None:
        network = TorchNetwork(SPEC, REGISTRY.load_cell("gru"), "cpu", layer)
        network.forward(network.place(a_batch()))

    with pytest.raises(PluginError) as caught:
        run()
    assert words in str(caught.value)


def test_a_missing_gpu_is_unavailable_in_one_sentence() -> None:
    device = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UnavailableError, match=f"so {device} is not there"):
        TorchNetwork(SPEC, REGISTRY.load_cell("gru"), device, native.layer)


@functools.cache
def _state(parts: int) -> tuple[Array, ...]:
    rng = np.random.default_rng(2)
    return tuple(
        rng.standard_normal((2, 4, 6)).astype(np.float32) for _ in range(parts)
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("cell", CELLS)
def test_on_a_gpu_cudnn_gives_what_the_cpu_gives(cell: str) -> None:
    on_cpu, weights = build(cell)
    spec = replace(SPEC, cell=cell)
    on_gpu = TorchNetwork(spec, REGISTRY.load_cell(cell), "cuda:0", native.layer)
    on_gpu.load_weights(weights)
    batch = a_batch()
    state = _state(len(REGISTRY.load_cell(cell).info.state_parts))
    expected = on_cpu.forward(on_cpu.place(batch), state).read()
    found = on_gpu.forward(on_gpu.place(batch), state).read()
    np.testing.assert_allclose(found.outputs, expected.outputs, atol=1e-5)
    gradients = on_gpu.loss_and_gradients(on_gpu.place(batch)).read().gradients
    reference = on_cpu.loss_and_gradients(on_cpu.place(batch)).read().gradients
    for name, tensor in reference.items():
        error = np.linalg.norm(gradients[name] - tensor) / np.linalg.norm(tensor)
        assert error < 1e-5, name
    assert on_gpu.kernel() == "cuDNN"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("cell", CELLS)
def test_on_a_gpu_tf32_is_used_where_it_is_asked_for_and_nowhere_else(
    cell: str,
) -> None:
    on_cpu, weights = build(cell, hidden_size=256)
    batch = a_batch()
    expected = on_cpu.forward(on_cpu.place(batch)).read().outputs
    errors = {}
    for precision in ("tf32", "highest", "tf32"):
        spec = replace(SPEC, cell=cell, hidden_size=256, precision=precision)
        network = TorchNetwork(spec, REGISTRY.load_cell(cell), "cuda:0", native.layer)
        network.load_weights(weights)
        found = network.forward(network.place(batch)).read().outputs
        errors[precision] = _difference(found, expected)
    assert errors["highest"] < 1e-5
    # Half a unit in the last of 11 bits is 2^-12.
    assert 2**-15 < errors["tf32"] < 2**-8
