import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.contract import Inputs, LayerSizes, NetworkSpec, Readout, Target
from harness.errors import PluginError
from harness.loading import build_network, load_cell, load_task
from harness.registry import Registry
from harness.run.job import Limits
from harness.run.worker import limits as worker_limits
from harness.run.worker.log import Write
from harness.run.worker.process import Request, WorkerDiedError, WorkerProcess
from harness.store import RunFolder
from harness.trial import SpeedSettings, Trial
from tests import helpers
from tests.helpers import REGISTRY


def spec(cell: str, dtype: str = "float32") -> NetworkSpec:
    return NetworkSpec(
        cell=cell,
        inputs=Inputs("reals", 2),
        hidden_size=4,
        output_size=1,
        readout=Readout.LAST,
        target=Target.REAL,
        dtype=dtype,
    )


TIMED = Trial(
    "speed",
    "numpy-reference",
    "rnn",
    time_steps=3,
    input_size=1,
    hidden_size=2,
    batch=1,
    seed=0,
    data_seed=0,
    settings=SpeedSettings(("forward",), readings=1),
)


# --- every installed plugin -----------------------------------------------------------


@pytest.mark.parametrize("name", REGISTRY.cells)
def test_every_cell_keeps_the_contract(name: str) -> None:
    cell = load_cell(REGISTRY, name)
    assert cell.info.name == name
    assert cell.info.source
    shapes = cell.weight_shapes(3, 4)
    rng = np.random.default_rng(0)
    weights = cell.initial_weights("canonical", rng, LayerSizes(3, 4, 10))
    assert {n: w.shape for n, w in weights.items()} == shapes
    counts = cell.parameter_counts(3, 4)
    assert counts["canonical"] == sum(int(np.prod(s)) for s in shapes.values())
    assert cell.flops(3, 4) > 0


@pytest.mark.parametrize("name", REGISTRY.tasks)
def test_every_task_has_the_methods_of_the_contract(name: str) -> None:
    task = load_task(REGISTRY, name, {})
    assert task.info.name == name
    assert task.info.headline in task.info.scores
    assert "loss" in task.info.scores
    batch = task.sample(np.random.default_rng(0), batch=3, length=10)
    assert batch.time_steps == task.time_steps(10)
    outputs = np.zeros((3, batch.scored.shape[1], task.info.output_size))
    assert set(task.score(outputs, batch)) == set(task.info.scores)
    assert set(task.floor(length=10)) == set(task.info.scores)


# --- plugins that break the contract --------------------------------------------------


def read(name: str) -> Registry:
    registry = Registry.discover([helpers.PLUGINS / f"{name}.py"])
    assert registry.problems == []
    return registry


def needs_torch() -> None:
    pytest.importorskip("torch")


def assert_built(registry: Registry) -> None:
    """Assert that the layer of my-gru is built with the requested sizes."""
    built = build_network(
        registry, "my-gru", spec("gru"), load_cell(registry, "gru"), "cpu"
    )
    found = {name: weight.shape for name, weight in built.weights().items()}
    assert found["layer0.w_ih"] == (3, 4, 2)
    assert found["layer0.w_hh"] == (3, 4, 4)


def test_a_layer_in_the_form_of_the_readme_is_built() -> None:
    needs_torch()
    assert_built(read("my_gru"))


def test_a_layer_may_use_other_names_for_its_sizes(tmp_path: Path) -> None:
    needs_torch()
    text = (helpers.PLUGINS / "my_gru.py").read_text(encoding="utf-8")
    for name, other in (("input_size", "i"), ("hidden_size", "h")):
        text = text.replace(name, other)
    assert "def layer(cell, i, h):" in text
    assert_built(Registry.discover([helpers.write(tmp_path / "my_gru.py", text)]))


@pytest.mark.parametrize(
    ("name", "implementation", "message"),
    [
        (
            "wrong_layer",
            "narrow-gru",
            (
                "too many positional arguments",
                "expected layer(cell, input_size, hidden_size)",
            ),
        ),
        (
            "misnamed_layer",
            "lost-gru",
            ("misnamed_layer.py has no callable 'layr'; did you mean 'layer'?",),
        ),
        ("network_lacks_vjp", "no-vjp", ("NoVjp lacks 'vjp'", "TrainableNetwork")),
    ],
)
def test_the_error_for_an_invalid_implementation_says_what_is_wrong(
    name: str, implementation: str, message: tuple[str, ...]
) -> None:
    registry = read(name)
    declared = registry.implementation(implementation)
    if declared.framework == "torch":
        needs_torch()
    (cell,) = declared.cells
    with pytest.raises(PluginError) as raised:
        build_network(
            registry, implementation, spec(cell), load_cell(registry, cell), "cpu"
        )
    assert raised.value.plugin == implementation
    for words in message:
        assert words in str(raised.value)


def test_the_error_for_a_missing_argument_of_a_task_names_it() -> None:
    with pytest.raises(PluginError) as raised:
        load_task(read("task_lacks_length"), "short-adding", {})
    assert str(raised.value) == (
        "short-adding: sample(rng, *, batch) has a wrong signature: got an unexpected "
        "keyword argument 'length'; expected sample(rng, *, batch, length)"
    )


def test_the_error_for_a_missing_method_of_a_cell_names_it() -> None:
    with pytest.raises(PluginError) as raised:
        load_cell(read("cell_lacks_step_backward"), "one-way")
    assert str(raised.value) == (
        "one-way: OneWay lacks 'step_backward', which a ReferenceCell must have"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symbls": 5}, "'symbls'"),
        ({"symbols": 0}, "symbols must be a whole number of at least 1, not 0"),
        ({"symbols": "many"}, "symbols must be a whole number"),
    ],
)
def test_an_option_that_a_task_does_not_take_is_reported(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(PluginError) as raised:
        load_task(REGISTRY, "copy-memory", options)
    assert message in str(raised.value)


# --- in a worker: a broken plugin harms no other --------------------------------------


@pytest.mark.slow
def test_check_reports_each_outcome_and_continues_with_the_next(tmp_path: Path) -> None:
    names = ["exits_hard", "segfaults", "exits", "layer_raises", "wrong_layer"]
    names += ["cell_lacks_step_backward", "absent_framework", "prints"]
    files = [helpers.PLUGINS / f"{name}.py" for name in names]
    code, out, err = helpers.run("check", "--json", "-j", 1, *files, cwd=tmp_path)
    assert "Traceback" not in err
    found = {c["implementation"]: (c["outcome"], c["reason"]) for c in json.loads(out)}
    crashed = "the worker of exits-hard exited with 7"
    assert found["exits-hard"] == ("crashed", crashed)
    assert found["segfaults"] == ("crashed", "SIGSEGV in segfaults")
    assert found["exits"] == ("failed", "SystemExit: no licence (exits.py:13)")
    outcome, reason = found["one-way-numpy"]
    assert outcome == "failed"
    assert "OneWay lacks 'step_backward'" in reason
    outcome, reason = found["tidal-gru"]
    assert outcome == "unavailable"
    assert "pip install 'rnn-harness[tidal]'" in reason
    if REGISTRY.unavailable("torch-native") is None:
        place = "RuntimeError: no kernel for this shape (layer_raises.py:13)"
        assert found["raising-gru"] == ("failed", place)
        assert "too many positional arguments" in found["narrow-gru"][1]
    # Its output does not reach the pipe, so it is certified like any other.
    assert found["prints"] == ("ok", None)
    assert code == 4


@pytest.mark.slow
def test_a_run_keeps_good_trials_beside_crashed_and_diverged_ones(
    tmp_path: Path,
) -> None:
    short = {"updates": 80, "evaluate_every": 40}
    first = helpers.learning(
        implementations=["crashes-when-timed", "numpy-reference"], **short
    )
    # `learn_on_each` avoids the timing, which would draw batches too.
    second = helpers.learning(task="overflows", learn_on_each=True, **short)
    helpers.write(tmp_path / "tiny.toml", helpers.suite(first, second))
    plugins = [
        part
        for name in ("crashes_when_timed", "overflows")
        for part in ("--plugin", helpers.PLUGINS / f"{name}.py")
    ]
    code, _, err = helpers.run(
        "run", "tiny.toml", "-o", "out", "--seeds", 0, *plugins, cwd=tmp_path
    )
    assert "Traceback" not in err
    assert code == 4
    records = RunFolder.open(tmp_path / "out").records()
    ended = {r.trial.label: (r.outcome, r.reason) for r in records}
    assert ended["speed rnn crashes-when-timed adding-10 s0"] == (
        "crashed",
        "SIGSEGV in crashes-when-timed",
    )
    assert ended["speed rnn numpy-reference adding-10 s0"] == ("ok", None)
    assert ended["learning rnn numpy-reference adding-10 s0"] == ("ok", None)
    outcome, reason = ended["learning rnn numpy-reference overflows-10 s0"]
    assert (outcome, reason) == ("diverged", "loss became infinite at update 30")
    (record,) = [r for r in records if r.outcome == "diverged"]
    losses = [
        v
        for r in record.readings
        if r.split == "train" and r.x
        for v in r.values["loss"]
    ]
    assert None not in losses[:29]
    assert losses[29] is None


def worker_of(
    file: Path, log: Write = lambda _: None, limits: Limits | None = None
) -> WorkerProcess:
    """Return a worker that knows a plugin file."""
    declared = Registry.discover([file]).declared
    return WorkerProcess(Path(sys.executable), 1, declared, log, limits)


NETWORK = """
import os
import time

from harness import declare_implementation
from implementations.numpy_reference.network import NumpyNetwork

declare_implementation("mine", framework="numpy", cells=["rnn"], factory="mine:network")


def network(spec, cell, device):
    {}
    return NumpyNetwork(spec, cell, device)
"""
MINE = replace(TIMED, implementation="mine")


def test_what_a_plugin_prints_does_not_reach_the_pipe(tmp_path: Path) -> None:
    text = NETWORK.format("os.write(1, b'loud')")
    logged: list[bytes] = []
    worker = worker_of(helpers.write(tmp_path / "mine.py", text), logged.append)
    (answer,) = worker.ask(Request("open", "one", MINE), logged.append)
    worker.close()
    assert answer.values["kind"] == "opened"
    assert answer.values["phases"] == ["forward"]
    assert b"".join(logged) == b"loud"


def test_the_death_of_a_host_is_reported_correctly_if_the_pipe_closes_first(
    tmp_path: Path,
) -> None:
    text = NETWORK.format("os.closerange(0, 99); time.sleep(0.5); os._exit(9)")
    worker = worker_of(helpers.write(tmp_path / "mine.py", text))
    (answer,) = worker.ask(Request("open", "one", MINE), lambda _: None)
    assert (answer.values["outcome"], answer.values["died"]) == ("crashed", True)
    assert answer.values["reason"] == "the worker of mine exited with 9"
    worker.close()


def test_the_death_of_a_worker_is_reported_correctly_if_the_pipe_closes_first(
    tmp_path: Path,
) -> None:
    text = (
        "import os\nimport sys\nimport time\nfrom harness import declare_task\n"
        "declare_task('mine', factory='mine:make')\n"
        "def make():\n    os.closerange(0, 99)\n    time.sleep(0.5)\n    os._exit(9)\n"
    )
    worker = worker_of(helpers.write(tmp_path / "mine.py", text))
    asked = replace(TIMED, task="mine", length=5)
    with pytest.raises(WorkerDiedError, match="numpy-reference exited with 9"):
        list(worker.ask(Request("open", "one", asked), lambda _: None))
    worker.close()


def test_memory_that_is_taken_between_two_looks_breaks_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_limits, "POLL_S", helpers.PATIENCE_S)
    text = NETWORK.format("NumpyNetwork.held = b' ' * 2**30")
    file = helpers.write(tmp_path / "mine.py", text)
    worker = worker_of(file, limits=Limits(memory_bytes=700 * 2**20))
    with pytest.raises(WorkerDiedError, match="memory limit of 700 MiB") as raised:
        list(worker.ask(Request("open", "one", MINE), lambda _: None))
    assert raised.value.outcome == "out_of_memory"
    worker.close()
