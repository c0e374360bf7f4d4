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
    Optimizer,
    Weights,
)
from harness.errors import PluginError, RefusedError, UnavailableError
from harness.loading import build_network, load_cell
from harness.measure.problem import initial_weights
from tests.backend_cases import SPEC
from tests.helpers import REGISTRY

torch = pytest.importorskip("torch")

from implementations.torch_backend import native  # noqa: E402
from implementations.torch_backend.network import TorchNetwork  # noqa: E402

CELLS = ["rnn", "gru", "lstm"]


def build(cell: str, **changes: Any) -> tuple[TorchNetwork, Weights]:
    spec = replace(SPEC, cell=cell, **changes)
    network = TorchNetwork(spec, load_cell(REGISTRY, cell), "cpu", native.layer)
    weights = initial_weights(spec, load_cell(REGISTRY, cell), "canonical", 0, 10)
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
def test_training_resumes_from_weights_and_optimiser_state(
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
        before = network._weights["layer0.bias_hh_l0"].detach().clone()
        network.train_steps([network.place(batch)] * 3).read()
        bias = network._weights["layer0.bias_hh_l0"].detach()
        redundant = slice(0, len(bias) - needed)
        assert bool((before[redundant] == 0).all())
        assert bool((bias[redundant] != 0).any()) is changes


@pytest.mark.parametrize(
    ("cell", "count"), [("rnn", 640), ("gru", 1920), ("lstm", 2560)]
)
def test_torch_trains_all_parameters_of_its_layers_in_native_mode(
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
    network = TorchNetwork(spec, load_cell(REGISTRY, cell), "cpu", native.layer)
    trained = network._trained()
    found = sum(p.numel() for n, p in trained.items() if n.startswith("layer"))
    assert found == count
    declared = load_cell(REGISTRY, cell).parameter_counts(10, 20)
    assert declared["torch"] == count


def test_a_tensor_without_a_gradient_has_zero_moments_that_come_back() -> None:
    class Forgetful(torch.nn.GRU):  # type: ignore[misc]
        def forward(self, x: Any, state: Any = None) -> Any:
            (hidden_size,) = self.bias_ih_l0.shape
            outputs = x.new_zeros(*x.shape[:2], hidden_size // 3) + self.bias_hh_l0[-1]
            return outputs, outputs[-1:]

    for optimizer in (Optimizer("adam"), Optimizer("sgd", momentum=0.9)):
        spec = replace(SPEC, optimizer=optimizer, num_layers=1)
        cell = load_cell(REGISTRY, "gru")
        networks = [
            TorchNetwork(spec, cell, "cpu", lambda _, i, h: Forgetful(i, h))
            for _ in range(2)
        ]
        placed = networks[0].place(replace(a_batch(), lengths=np.full(4, 9)))
        networks[0].train_steps([placed] * 3).read()
        state = networks[0].optimizer_state()
        moments = {name.partition("/")[0] for name in state} - {"updates"}
        assert len(moments) == len(networks[0]._moments)
        for moment in moments:
            assert not state[f"{moment}/layer0.w_ih"].any()
            assert state[f"{moment}/layer0.b_hn"].any()
            assert state[f"{moment}/layer0.w_ih"].shape == (3, 6, 6)
        networks[1].load_weights(networks[0].weights())
        networks[1].load_optimizer_state(state)
        again = networks[1].optimizer_state()
        assert list(again) == list(state)
        for name, array in state.items():
            np.testing.assert_array_equal(again[name], array)
            assert again[name].dtype == array.dtype
        losses = [n.train_steps([placed] * 2).read().losses for n in networks]
        np.testing.assert_array_equal(losses[0], losses[1])


# --- the kernel that ran --------------------------------------------------------------

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN"
)
LOOP = "ATen loop of aten::lstm"


def a_full_batch() -> Batch:
    """Return a batch whose sequences are all of one length."""
    return replace(a_batch(), lengths=np.full(4, 9))


@pytest.mark.parametrize(
    ("cell", "loop"), [("gru", "aten::gru"), ("rnn", "aten::rnn_tanh")]
)
def test_the_kernel_is_that_of_the_calls(cell: str, loop: str) -> None:
    network, _ = build(cell)
    assert network.kernel() == "nothing has run"
    network.forward(network.place(a_full_batch()))
    assert network.kernel() == f"ATen loop of {loop}"


@needs_onednn
def test_a_padded_batch_that_does_not_run_in_onednn_is_reported() -> None:
    network, _ = build("lstm")
    padded, full = network.place(a_batch()), network.place(a_full_batch())
    network.forward(full)
    assert network.kernel() == "oneDNN"
    network.loss_and_gradients(full)
    assert network.kernel() == "oneDNN"
    network.train_steps([full, padded])
    assert network.kernel() == f"oneDNN; with gradients {LOOP}"
    network.forward(padded)
    assert network.kernel() == LOOP
    network.step(np.zeros(4, int), _state(2))
    assert network.kernel() == f"oneDNN; with gradients {LOOP}"
    network.vjp(full, _state(2), np.ones((4, 9, 3), np.float32), _state(2))
    assert network.kernel() == "oneDNN"


@needs_onednn
@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_a_fallback_from_onednn_is_reported() -> None:
    network, _ = build("lstm")
    with torch.backends.mkldnn.flags(enabled=False):
        network.forward(network.place(a_full_batch()))
        assert network.kernel() == LOOP


class _LongByHand(torch.nn.LSTM):  # type: ignore[misc]
    """Does not use the operator of torch for more than 5 time steps."""

    def forward(self, x: Any, state: Any = None) -> Any:
        if len(x) <= 5:
            return super().forward(x, state)
        outputs = torch.tanh(x @ self.weight_ih_l0[: self.hidden_size].T)
        return outputs, (outputs[-1:], outputs[-1:])


@needs_onednn
def test_the_kernel_is_found_at_the_shape_of_the_call() -> None:
    spec = replace(SPEC, cell="lstm")
    network = TorchNetwork(
        spec, load_cell(REGISTRY, "lstm"), "cpu", lambda _, i, h: _LongByHand(i, h)
    )
    full = a_full_batch()
    cut = [full.inputs[:, :5], np.full(4, 5), full.targets[:, :5], full.scored[:, :5]]
    network.forward(network.place(Batch(*cut)))
    assert network.kernel() == "oneDNN"
    network.forward(network.place(full))
    assert network.kernel() == "torch operations"


@needs_onednn
def test_every_kernel_of_stacked_layers_is_named_once() -> None:
    made: list[torch.nn.Module] = []

    def layer(cell: str, input_size: int, hidden_size: int) -> torch.nn.Module:
        of = torch.nn.LSTM if len(made) == 1 else _LongByHand
        made.append(of(input_size, hidden_size))
        return made[-1]

    spec = replace(SPEC, cell="lstm", num_layers=3)
    network = TorchNetwork(spec, load_cell(REGISTRY, "lstm"), "cpu", layer)
    network.forward(network.place(a_full_batch()))
    assert network.kernel() == "torch operations and oneDNN"


def test_asking_for_the_kernel_does_not_change_training() -> None:
    placed = build("gru")[0].place(a_batch())
    losses = []
    for asks in (False, True):
        network, _ = build("gru")
        network.train_steps([placed] * 2)
        if asks:
            network.kernel()
        losses.append(network.train_steps([placed] * 2).read().losses)
    np.testing.assert_array_equal(losses[0], losses[1])


# --- precisions ----------------------------------------------------------------------


def _difference(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("cell", ["rnn", "gru"])
@pytest.mark.parametrize("name", ["torch-native", "torch-loop"])
def test_bf16_rounds_products_and_leaves_weights_and_moments_in_float32(
    name: str, cell: str
) -> None:
    spec = replace(SPEC, cell=cell, precision="bf16")
    network = build_network(REGISTRY, name, spec, load_cell(REGISTRY, cell), "cpu")
    assert isinstance(network, TorchNetwork)
    exact, weights = build(cell)
    network.load_weights(weights)
    batch = a_batch()
    placed, reference = network.place(batch), exact.place(batch)
    state = _state(len(load_cell(REGISTRY, cell).info.state_parts))
    found, expected = (
        n.forward(p, state).read() for n, p in ((network, placed), (exact, reference))
    )
    # Half a unit in the last of 8 bits is 2^-9, added up over 9 time steps.
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
        ({"precision": "tf32"}, "TF32 is arithmetic of NVIDIA GPUs, not of cpu"),
        (
            {"precision": "bf16", "dtype": "float64"},
            "bf16 is a precision of float32 networks, not of float64",
        ),
        ({"precision": "fp8"}, "torch computes at highest, tf32 or bf16, not at fp8"),
    ],
)
def test_an_invalid_precision_is_refused_in_one_sentence(
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
        TorchNetwork(SPEC, load_cell(REGISTRY, "gru"), "cpu", layer)
    assert words in str(caught.value)


class _OneArgument(torch.nn.GRU):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return super().forward(x)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda *_: None, "returned NoneType; expected a torch.nn.Module"),
        (lambda _, i, h: _OneArgument(i, h), "expected forward(x, state)"),
    ],
)
def test_a_layer_of_the_wrong_form_is_refused_in_one_sentence(
    layer: Any, words: str
) -> None:
    with pytest.raises(PluginError) as caught:
        TorchNetwork(SPEC, load_cell(REGISTRY, "gru"), "cpu", layer)
    assert words in str(caught.value)


# --- wrong answers of a layer ---------------------------------------------------------


def answering(cell: str, answer: Any, **changes: Any) -> TorchNetwork:
    """Build a network of stock layers whose (outputs, state) `answer` changes."""
    stock: Any = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]

    class Own(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__()
            self.__dict__["stock"] = stock(input_size, hidden_size)
            for name, parameter in self.stock.named_parameters():
                setattr(self, name, parameter)

        def forward(self, x: Any, state: Any = None) -> Any:
            return answer(*self.stock(x, state))

    def layer(cell: str, input_size: int, hidden_size: int) -> Any:
        return Own(input_size, hidden_size)

    spec = replace(SPEC, cell=cell, **changes)
    return TorchNetwork(spec, load_cell(REGISTRY, cell), "cpu", layer)


OUTPUTS = "expected float32 (9, 4, 6), [time, batch, hidden]; "
STATE = "expected float32 (1, 4, 6), [1, batch, hidden]; "


@pytest.mark.parametrize(
    ("cell", "answer", "words"),
    [
        (
            "gru",
            lambda o, s: (o.half(), s),
            f"outputs float16 (9, 4, 6); {OUTPUTS}return them in the dtype of x",
        ),
        (
            "gru",
            lambda o, s: (o[:-1], s),
            f"outputs float32 (8, 4, 6); {OUTPUTS}return one output for each time step "
            "of each sequence",
        ),
        (
            "gru",
            lambda o, s: (o.transpose(0, 1), s),
            f"outputs float32 (4, 9, 6); {OUTPUTS}put time first",
        ),
        (
            "gru",
            lambda o, s: (o.tolist(), s),
            f"outputs list; {OUTPUTS}return a tensor",
        ),
        (
            "gru",
            lambda o, s: (o, s[0]),
            f"the state h float32 (4, 6); {STATE}add the axis of layers, as h[None]",
        ),
        (
            "gru",
            lambda o, s: (o, s.half()),
            f"the state h float16 (1, 4, 6); {STATE}return it in the dtype of x",
        ),
        (
            "gru",
            lambda o, s: (o, (s,)),
            f"the state h (float32 (1, 4, 6)); {STATE}return h itself",
        ),
        (
            "gru",
            lambda o, s: (o, o),
            f"the state h float32 (9, 4, 6); {STATE}return the state after the last "
            "time step, as nn.GRU",
        ),
        (
            "lstm",
            lambda o, s: (o, s[0]),
            "the state float32 (1, 4, 6); expected a tuple of 2, each float32 (1, 4, "
            "6), [1, batch, hidden]; return (outputs, (h, c))",
        ),
        (
            "lstm",
            lambda o, s: (o, (s[0], s[1][0])),
            f"the state c float32 (4, 6); {STATE}add the axis of layers, as c[None]",
        ),
        (
            "gru",
            lambda o, s: o,
            "float32 (9, 4, 6); expected (outputs, state), as nn.GRU; return a tuple "
            "of two",
        ),
        (
            "gru",
            lambda o, s: ((o - 2).sqrt(), s),
            "outputs with 216 NaN of 216 numbers to finite inputs and weights; "
            "expected finite numbers; look for 0/0, for a root or logarithm below 0 "
            "and for memory never written (torch.empty)",
        ),
    ],
)
def test_a_wrong_answer_is_reported_in_one_sentence(
    cell: str, answer: Any, words: str
) -> None:
    network = answering(cell, answer)
    with pytest.raises(PluginError) as caught:
        network.forward(network.place(a_full_batch()))
    assert str(caught.value) == f"Own: answered {words}"


def test_padded_outputs_of_a_recurrent_module_must_be_packed() -> None:
    class Unpacked(torch.nn.GRU):  # type: ignore[misc]
        def forward(self, x: Any, state: Any = None) -> Any:
            outputs, final = super().forward(x, state)
            return outputs.data, final

    network = TorchNetwork(
        SPEC, load_cell(REGISTRY, "gru"), "cpu", lambda _, i, h: Unpacked(i, h)
    )
    with pytest.raises(PluginError) as caught:
        network.forward(network.place(a_batch()))
    assert str(caught.value) == (
        "Unpacked: answered outputs float32 (26, 6) to padded sequences; expected a "
        "PackedSequence of float32 (26, 6), as nn.GRU; return outputs that are packed "
        "as x is, or derive from nn.Module, whose layers are given no padding"
    )


def test_an_answer_that_overflows_is_not_an_error() -> None:
    """Diverged learning is reported as such, from its loss."""

    def overflow(outputs: Any, state: Any) -> Any:
        large = torch.where(outputs > 0, torch.inf, torch.nan)
        return outputs + large, state

    network = answering("gru", overflow, num_layers=1)
    outputs = network.forward(network.place(a_full_batch())).read().outputs
    assert np.isnan(outputs).any()


def test_a_missing_gpu_is_unavailable_in_one_sentence() -> None:
    device = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UnavailableError, match=f"so {device} is not there"):
        TorchNetwork(SPEC, load_cell(REGISTRY, "gru"), device, native.layer)


@functools.cache
def _state(parts: int) -> tuple[Array, ...]:
    rng = np.random.default_rng(2)
    return tuple(
        rng.standard_normal((2, 4, 6)).astype(np.float32) for _ in range(parts)
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("cell", CELLS)
def test_cudnn_gives_the_results_of_the_cpu(cell: str) -> None:
    on_cpu, weights = build(cell)
    spec = replace(SPEC, cell=cell)
    on_gpu = TorchNetwork(spec, load_cell(REGISTRY, cell), "cuda:0", native.layer)
    on_gpu.load_weights(weights)
    batch = a_batch()
    state = _state(len(load_cell(REGISTRY, cell).info.state_parts))
    expected = on_cpu.forward(on_cpu.place(batch), state).read()
    found = on_gpu.forward(on_gpu.place(batch), state).read()
    np.testing.assert_allclose(found.outputs, expected.outputs, atol=1e-5)
    gradients = on_gpu.loss_and_gradients(on_gpu.place(batch)).read().gradients
    reference = on_cpu.loss_and_gradients(on_cpu.place(batch)).read().gradients
    for name, tensor in reference.items():
        error = np.linalg.norm(gradients[name] - tensor) / np.linalg.norm(tensor)
        assert error < 1e-5, name
    assert on_gpu.kernel() == "cuDNN"
    with torch.backends.cudnn.flags(enabled=False):
        on_gpu.forward(on_gpu.place(batch))
        name = {"rnn": "rnn_tanh"}.get(cell, cell)
        assert on_gpu._kernel(gradients=False) == f"ATen loop of aten::{name}"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_uses_tf32_only_if_it_is_asked_for(
    cell: str,
) -> None:
    on_cpu, weights = build(cell, hidden_size=256)
    batch = a_batch()
    expected = on_cpu.forward(on_cpu.place(batch)).read().outputs
    errors = {}
    for precision in ("tf32", "highest", "tf32"):
        spec = replace(SPEC, cell=cell, hidden_size=256, precision=precision)
        network = TorchNetwork(spec, load_cell(REGISTRY, cell), "cuda:0", native.layer)
        network.load_weights(weights)
        found = network.forward(network.place(batch)).read().outputs
        errors[precision] = _difference(found, expected)
    assert errors["highest"] < 1e-5
    # Half a unit in the last of 11 bits is 2^-12.
    assert 2**-15 < errors["tf32"] < 2**-8
