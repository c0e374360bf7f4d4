"""torch-compile has the loop's values and gradients, with one graph for all sizes."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.contract import Batch, CellInfo, Inputs, NetworkSpec, Readout, Target
from harness.errors import UnavailableError
from harness.loading import build_network, load_cell
from harness.measure.problem import Problem, initial_weights
from harness.measure.speed.meter import SpeedMeter
from harness.run.plan.derived import TIMED_OPTIMIZER
from harness.trial import SpeedSettings, Trial
from tests.helpers import REGISTRY

torch = pytest.importorskip("torch")

from implementations.cells import equations  # noqa: E402
from implementations.torch_backend import compiled, loop  # noqa: E402
from implementations.torch_backend.kernel import kernel_of, layer_call  # noqa: E402
from implementations.torch_backend.network import TorchNetwork  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        tuple(map(int, torch.__version__.split(".")[:2])) < compiled.OLDEST,
        reason=f"torch {torch.__version__} is older than torch-compile needs",
    ),
    # Warnings of the compiler of torch on import.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
]

# Float64 rounds by 1e-16, added up over at most 12 time steps and 100 products.
CLOSE = {"rtol": 1e-12, "atol": 1e-13}
SPEC = NetworkSpec(
    cell="gru",
    inputs=Inputs("reals", 3),
    hidden_size=6,
    output_size=2,
    readout=Readout.EVERY,
    target=Target.REAL,
)


def silence_compiler() -> None:
    """Keep the thousands of log records of the compiler from pytest."""
    logging.getLogger("torch.__trace").propagate = False


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    silence_compiler()


def graphs() -> int:
    """Return how many graphs have been compiled in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


@pytest.fixture(scope="module")
def compiled_by_phase() -> dict[str, int]:
    """Time the phases of a GRU in float64; return the number of graphs of each."""
    from implementations.torch_backend.graphs import graphs_of

    torch.set_num_threads(1)
    silence_compiler()
    trial = Trial(
        "speed",
        "torch-compile",
        "gru",
        dtype="float64",
        # Sizes that are equal only here: as many time steps as gates.
        time_steps=3,
        input_size=2,
        hidden_size=4,
        batch=4,
        seed=0,
        data_seed=0,
        optimizer=TIMED_OPTIMIZER,
        settings=SpeedSettings(readings=1),
    )
    graphs_of.cache_clear()
    counted = [graphs()]
    meter = SpeedMeter(Problem(REGISTRY, trial))
    counted.append(graphs())
    for name in meter.phases:
        watch: Any = meter._stopwatch
        watch._phase(name).call(watch._inputs(name)[0])
        counted.append(graphs())
    meter.warm_up()
    for name in 3 * meter.phases:  # in one turn alone, reading may wait for a core
        meter.turn(name)
    assert meter.finish().readings[0].values["ok"] == 1
    counted.append(graphs())
    names = ("construction", *meter.phases, "warm-up and turns")
    return dict(zip(names, np.diff(counted).tolist(), strict=True))


class Sizes:
    """A cell with what a layer needs of it: names, gates, shapes."""

    def __init__(
        self, gates: str, parts: str, shapes: Callable[[int, int], dict[str, Any]]
    ) -> None:
        self.info = CellInfo("own", tuple(gates), tuple(parts), None, "these tests")
        self.weight_shapes = shapes


def _shapes(gates: int, **own: Callable[[int], tuple[int, ...]]) -> Any:
    def shapes(input_size: int, hidden_size: int) -> dict[str, Any]:
        return {
            "w_ih": (gates, hidden_size, input_size),
            "b": (gates, hidden_size),
            **{name: shape(hidden_size) for name, shape in own.items()},
        }

    return shapes


def everything_at_once(ops: Any, w: Any, a: Sequence[Any], state: Any) -> Any:
    """Use weights in every way: vectors, rows, a matrix of two, the bias of W x + b.

    The second product multiplies the result of the first one.
    """
    h, c = state
    (p,) = ops.products(w["u"], h)
    i = ops.sigmoid(a[0] + p * w["scale"] + w["peephole"][0] * c + w["b"][1])
    (q,) = ops.products(w["down"] @ w["up"], i * h)
    c = i * c + ops.tanh(a[1] + q + w["scale"])
    return ops.sigmoid(p + w["peephole"][1] * c) * c, c


EVERYTHING = Sizes(
    "xy",
    "hc",
    _shapes(
        2,
        u=lambda h: (1, h, h),
        scale=lambda h: (h,),
        peephole=lambda h: (2, h),
        down=lambda h: (1, h, 2),
        up=lambda h: (1, 2, h),
    ),
)


def elementwise(ops: Any, w: Any, a: Sequence[Any], state: Any) -> Any:
    """Compute IndRNN, Li et al. (2018), which has no matrix product."""
    return (ops.tanh(a[0] + w["u"] * state[0]),)


ELEMENTWISE = Sizes("x", "h", _shapes(1, u=lambda h: (h,)))
UNUSED = Sizes("x", "h", _shapes(1, u=lambda h: (h,), unused=lambda h: (h,)))

OF_CELL: Mapping[str, tuple[Any, Any]] = {
    "gru": (equations.gru, load_cell(REGISTRY, "gru")),
    "everything": (everything_at_once, EVERYTHING),
    "elementwise": (elementwise, ELEMENTWISE),
}


@functools.cache
def pair(cell: str, hidden_size: int) -> tuple[Any, Any]:
    """Return the compiled layer and the loop, with the same weights, in float64."""
    own_equations, own_cell = OF_CELL[cell]
    layers = [
        module.layer(own_equations, own_cell, 3, hidden_size).double()
        for module in (compiled, loop)
    ]
    generator = torch.Generator().manual_seed(0)
    for parameter in layers[0].parameters():
        torch.nn.init.uniform_(parameter, -0.7, 0.7, generator)
    layers[1].load_state_dict(layers[0].state_dict())
    return layers[0], layers[1]


def pass_and_back(layer: Any, time_steps: int, batch: int, parts: int) -> list[Any]:
    """Return outputs, final state and every gradient, from one random state."""
    generator = torch.Generator().manual_seed(1)

    def draw(*size: int) -> Any:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    hidden_size = layer._hidden_size
    x = draw(time_steps, batch, 3).requires_grad_()
    state = [draw(1, batch, hidden_size).requires_grad_() for _ in range(parts)]
    outputs, after = layer(x, state[0] if parts == 1 else tuple(state))
    found = [outputs, *((after,) if parts == 1 else after)]
    # Transposed, like the gradient from the readout, and none for the last state.
    cotangents = [draw(batch, time_steps, hidden_size).transpose(0, 1)]
    cotangents += [draw(1, batch, hidden_size) for _ in range(parts - 1)]
    gradients = torch.autograd.grad(
        found[: len(cotangents)],
        [x, *state, *layer.parameters()],
        cotangents,
        materialize_grads=True,
    )
    return [tensor.detach().numpy() for tensor in (*found, *gradients)]


def assert_agree(cell: str, time_steps: int, batch: int, hidden_size: int) -> None:
    parts = len(OF_CELL[cell][1].info.state_parts)
    on_graph, in_loop = pair(cell, hidden_size)
    found = pass_and_back(on_graph, time_steps, batch, parts)
    expected = pass_and_back(in_loop, time_steps, batch, parts)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    x = torch.ones(time_steps, batch, 3, dtype=torch.float64)
    with torch.no_grad():
        outputs = [layer(x)[0].numpy() for layer in (on_graph, in_loop)]
    np.testing.assert_allclose(outputs[0], outputs[1], **CLOSE)


def test_values_and_gradients_are_those_of_the_loop_without_compiling() -> None:
    # The code derived from the equations runs in plain torch, which shows any mistake.
    with torch.compiler.set_stance("force_eager"):
        for cell in OF_CELL:
            for time_steps, batch in ((7, 3), (1, 2), (4, 1)):
                assert_agree(cell, time_steps, batch, hidden_size=5)


@pytest.mark.long
def test_three_graphs_give_the_values_and_gradients_of_the_loop_at_every_size(
    compiled_by_phase: Mapping[str, int],
) -> None:
    before = graphs()
    for time_steps, batch, hidden_size in (
        (7, 3, 6),
        (12, 2, 6),
        (1, 3, 6),
        (5, 1, 6),
        (1, 1, 6),
        (3, 3, 3),
        (2, 4, 1),
    ):
        assert_agree("gru", time_steps, batch, hidden_size)
    assert sum(compiled_by_phase.values()) == 3
    assert graphs() == before


def test_a_weight_that_the_equations_do_not_use_has_no_gradient() -> None:
    layer = compiled.layer(elementwise, UNUSED, 3, 4)  # type: ignore[arg-type]
    with torch.compiler.set_stance("force_eager"):
        outputs, _ = layer(torch.ones(5, 2, 3))
        outputs.sum().backward()
    assert layer.unused.grad is None
    assert layer.u.grad is not None


# --- the kernel that ran --------------------------------------------------------------

compiled_before = pytest.mark.usefixtures("compiled_by_phase")
"""In the same process, so that no test compiles the same graphs again."""


def marked(layer: Any, x: Any) -> Any:
    """Call a layer as a network does while it is profiled."""
    with layer_call():
        return layer(x)


def padded_batch() -> Batch:
    """Return sequences of 5, 2, 5 and 4 time steps."""
    inputs, lengths = np.ones((4, 5, 3)), np.array([5, 2, 5, 4])
    return Batch(inputs, lengths, np.ones((4, 5, 2)), np.ones((4, 5), bool))


def build(layers: int = 1) -> TorchNetwork:
    spec = replace(SPEC, num_layers=layers, dtype="float64")
    network = build_network(
        REGISTRY, "torch-compile", spec, load_cell(REGISTRY, spec.cell), "cpu"
    )
    assert isinstance(network, TorchNetwork)
    weights = initial_weights(spec, load_cell(REGISTRY, spec.cell), "canonical", 0, 10)
    network.load_weights(weights)
    return network


@pytest.mark.long
@compiled_before
def test_the_kernel_is_a_graph_and_a_fallback_to_eager_code_is_reported() -> None:
    network = build(layers=2)
    x, state = np.ones((4, 3)), (np.zeros((2, 4, 6)),)
    compiled_outputs = network.step(x, state).read().outputs
    assert network.kernel() == "inductor graph"
    done = network.loss_and_gradients(network.place(padded_batch()))
    gradients = done.read().gradients
    assert network.kernel() == "inductor graph"
    for name, tensor in done.read().gradients.items():
        np.testing.assert_array_equal(tensor, gradients[name])
    with torch.compiler.set_stance("force_eager"):
        eager_outputs = network.step(x, state).read().outputs
        assert network.kernel() == "torch operations"
    np.testing.assert_allclose(eager_outputs, compiled_outputs, **CLOSE)


@pytest.mark.long
@compiled_before
def test_a_backward_pass_that_is_not_compiled_is_reported() -> None:
    layer, _ = pair("gru", 6)
    x = torch.ones(4, 2, 3, dtype=torch.float64)
    trained = list(layer.parameters())

    def backward(outputs: Any) -> None:
        with torch.compiler.set_stance("force_eager"):
            torch.autograd.grad(outputs.sum(), trained)

    found = kernel_of(lambda: marked(layer, x)[0], backward)
    assert found == "inductor graph, backward torch operations"


def test_a_graph_break_is_reported_with_the_number_of_pieces() -> None:
    @torch.compile
    def broken(x: Any) -> Any:
        x = torch.tanh(x)
        torch._dynamo.graph_break()
        return torch.sigmoid(x)

    def once_more(outputs: Any) -> None:
        broken(outputs)

    found = kernel_of(lambda: marked(broken, torch.ones(3)), once_more)
    assert found == "2 inductor graphs"


# --- when graphs are compiled, and when they cannot be --------------------------------


@pytest.mark.long
def test_graphs_are_compiled_only_in_the_first_call_of_a_phase(
    compiled_by_phase: Mapping[str, int],
) -> None:
    # An update needs no graph beside those of the gradients.
    assert compiled_by_phase == {
        "construction": 0,
        "forward": 1,
        "loss_and_gradients": 2,
        "train_step": 0,
        "warm-up and turns": 0,
    }


def test_torch_compile_is_unavailable_without_a_compiler() -> None:
    code = (
        "from harness.errors import UnavailableError\n"
        "from implementations.torch_backend.compiled import _check_compiler\n"
        "try: _check_compiler('cpu')\n"
        "except UnavailableError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CXX": "no-such-compiler", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        f"torch: torch {torch.__version__} compiles for cpu with a C++ compiler, "
        "which is missing here: neither g++ nor one that CXX names\n"
    )


def test_torch_compile_is_unavailable_with_an_older_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.12.1+cpu")
    with pytest.raises(UnavailableError, match=r"2\.12\.1\+cpu is here; this needs 2"):
        compiled.layer(equations.gru, load_cell(REGISTRY, "gru"), 3, 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_graphs_give_the_values_and_gradients_of_the_loop_on_a_gpu() -> None:
    layers = [layer.cuda() for layer in pair("gru", 16)]
    generator = torch.Generator("cuda").manual_seed(0)
    for time_steps, batch in ((7, 3), (12, 2), (1, 1)):
        x = torch.randn(
            time_steps,
            batch,
            3,
            generator=generator,
            dtype=torch.float64,
            device="cuda",
        )
        found = []
        for layer in layers:
            outputs, _ = layer(x)
            gradients = torch.autograd.grad(outputs.sum(), list(layer.parameters()))
            found.append([t.detach().cpu().numpy() for t in (outputs, *gradients)])
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)
    network = build_network(
        REGISTRY, "torch-compile", SPEC, load_cell(REGISTRY, "gru"), "cuda:0"
    )
    network.step(np.ones((4, 3), np.float32), (np.zeros((1, 4, 6), np.float32),))
    assert network.kernel() == "inductor graph"
