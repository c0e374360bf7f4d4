"""What a torch plugin changes of its process is named, and nothing ends for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from harness.machine.process_state import ProcessState
from tests.backend_cases import SPEC, build, draw_batch, draw_weights

torch = pytest.importorskip("torch")
from torch.nn.modules import module as modules  # noqa: E402

from implementations.torch_backend.network import TorchNetwork  # noqa: E402
from implementations.torch_backend.probe import TorchProbe  # noqa: E402

PROBE = TorchProbe("cpu")


def _other(*given: Any, **named: Any) -> None:
    """Replace a function."""


PRECISIONS = [
    ("torch.backends", "generic all"),
    ("torch.backends.mkldnn.matmul", "mkldnn matmul"),
    ("torch.backends.mkldnn.rnn", "mkldnn rnn"),
    ("torch.backends.mkldnn.conv", "mkldnn conv"),
    ("torch.backends.cuda.matmul", "cuda matmul"),
    ("torch.backends.cudnn", "cuda all"),
    ("torch.backends.cudnn.rnn", "cuda rnn"),
    ("torch.backends.cudnn.conv", "cuda conv"),
]


@pytest.fixture
def precisions() -> Iterator[None]:
    """Put all precisions back after a test."""
    if not hasattr(torch._C, "_get_fp32_precision_getter"):
        pytest.skip("this torch has no precision for each backend")
    every = [name.split() for _, name in PRECISIONS]
    every += [["mkldnn", "all"]]
    before = [(*n, torch._C._get_fp32_precision_getter(*n)) for n in every]
    yield
    for backend, kind, value in before:
        torch._C._set_fp32_precision_setter(backend, kind, value)


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
@pytest.mark.usefixtures("precisions")
@pytest.mark.parametrize(("where", "named"), PRECISIONS)
def test_a_precision_is_named_in_whichever_way_it_is_set(
    where: str, named: str
) -> None:
    state = _state()
    holder = torch
    for part in where.split(".")[1:]:
        holder = getattr(holder, part)
    holder.fp32_precision = "ieee" if named in ("cuda conv", "cuda rnn") else "tf32"
    found = state.changes()
    name = f"torch's float32 precision of {named} (was "
    assert any(each.startswith(name) for each in found), found
    assert all(each.startswith("torch's float32 precision of") for each in found)


@pytest.mark.usefixtures("precisions")
def test_the_older_function_for_precision_is_named_too() -> None:
    state = _state()
    torch.set_float32_matmul_precision("medium")
    found = state.changes()
    assert any("precision of mkldnn matmul" in each for each in found), found


def _state() -> ProcessState:
    return ProcessState([torch, *PROBE.state().shared], lambda: PROBE.state().settings)


HOLDERS: list[tuple[Callable[[], Any], str, str]] = [
    (lambda: torch, "tanh", "torch.tanh"),
    (lambda: torch.nn.functional, "mse_loss", "torch.nn.functional.mse_loss"),
    (lambda: torch.nn.GRU, "forward", "torch.nn.modules.rnn.GRU.forward"),
    (lambda: torch.nn.GRU, "__call__", "torch.nn.modules.rnn.GRU.__call__"),
    (lambda: torch.Tensor, "tanh", "torch.Tensor.tanh"),
    (lambda: torch.optim.Adam, "step", "torch.optim.adam.Adam.step"),
    (
        lambda: TorchNetwork,
        "forward",
        "implementations.torch_backend.network.TorchNetwork.forward",
    ),
]


@pytest.mark.parametrize(("holder", "attribute", "named"), HOLDERS)
def test_a_replaced_function_is_named(
    holder: Callable[[], Any],
    attribute: str,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = _state()
    monkeypatch.setattr(holder(), attribute, _other)
    assert state.changes() == [named]
    monkeypatch.undo()


def test_hooks_and_modes_that_are_left_are_named() -> None:
    state = _state()
    hook = modules.register_module_forward_hook(_other)
    assert state.changes() == ["torch's global_forward_hooks"]
    hook.remove()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        assert state.changes() == ["torch's saved tensors hooks"]
    with torch.no_grad():
        assert state.changes() == ["torch's grad mode (was True, is False)"]
    with torch.device("meta"):
        assert any("default device" in each for each in state.changes())
    assert state.changes() == []


@pytest.mark.parametrize("implementation", ["torch-native", "torch-loop"])
def test_no_number_depends_on_the_state_of_global_generators(
    implementation: str,
) -> None:
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # as a plugin does
        network = build(implementation, SPEC)
        network.load_weights(draw_weights(SPEC))
        placed = network.place(draw_batch(SPEC))
        losses = network.train_steps([placed, placed]).read().losses
        weights = network.weights()
        found.append((losses.tobytes(), {n: w.tobytes() for n, w in weights.items()}))
    assert found[0] == found[1]
