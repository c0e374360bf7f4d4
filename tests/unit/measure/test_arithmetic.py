"""Operations and bytes of a call, counted by hand."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.contract import Optimizer
from harness.loading import load_cell
from harness.machine.system import System
from harness.measure import capacity
from harness.measure.arithmetic import flops_of_call, least_bytes_of_call
from harness.measure.capacity import check_memory, least_host_bytes, least_memory_bytes
from harness.measure.problem import Problem
from harness.store import RunFolder
from harness.trial import PhasesSettings, Trial
from tests import helpers
from tests.helpers import REGISTRY

B, T, I, H = 3, 5, 2, 4  # noqa: E741
WEIGHTS = H * I + H * H + H + H + 1  # rnn: w_ih, w_hh, b; readout of one real


def problem(**changes: object) -> Problem:
    asked = {"measure": "speed", "implementation": "numpy-reference", **changes}
    trial = Trial(
        cell="rnn",
        batch=B,
        time_steps=T,
        input_size=I,
        hidden_size=H,
        seed=0,
        **asked,  # type: ignore[arg-type]
    )
    return Problem(REGISTRY, trial)


def test_the_operations_of_each_phase_are_those_counted_by_hand() -> None:
    forward = B * (T * load_cell(REGISTRY, "rnn").flops(I, H) + 2 * H)
    found = {
        phase: flops_of_call(problem(), phase, B)
        for phase in ("forward", "loss_and_gradients", "train_step")
    }
    assert found == {
        "forward": forward,
        "loss_and_gradients": 3 * forward,
        "train_step": 3 * forward,
    }
    assert flops_of_call(problem(), "stream", 1) == load_cell(REGISTRY, "rnn").flops(
        I, H
    ) + (2 * H)


@pytest.mark.parametrize(("dtype", "item"), [("float32", 4), ("float64", 8)])
@pytest.mark.parametrize(
    ("optimizer", "moments"),
    [
        (Optimizer(), 2),
        (Optimizer(name="rmsprop"), 1),
        (Optimizer(name="sgd"), 0),
        (Optimizer(name="sgd", momentum=0.9), 1),
    ],
)
def test_the_bytes_of_each_phase_are_those_counted_by_hand(
    dtype: str, item: int, optimizer: Optimizer, moments: int
) -> None:
    asked = problem(dtype=dtype, optimizer=optimizer)
    inputs, outputs, state = B * T * I, B, B * H
    # Read: inputs, weights; written: outputs, the final state.
    assert least_bytes_of_call(asked, "forward", B) == item * (
        inputs + WEIGHTS + outputs + state
    )
    # Read: inputs, weights, targets; written: gradients.
    gradients = inputs + WEIGHTS + outputs + WEIGHTS
    assert least_bytes_of_call(asked, "loss_and_gradients", B) == item * gradients
    # Read: gradients, moments; written: weights, moments.
    step = WEIGHTS * (1 + moments) + WEIGHTS * (1 + moments)
    assert least_bytes_of_call(asked, "train_step", B) == item * (gradients + step)
    # One time step of one sequence also reads the state.
    assert least_bytes_of_call(asked, "stream", 1) == item * (I + WEIGHTS + 1 + 2 * H)


def test_only_the_rows_that_are_looked_up_count_as_bytes_of_an_embedding() -> None:
    trial = Trial(
        "speed",
        "numpy-reference",
        "rnn",
        task="copy-memory",
        task_options={"alphabet": 40},
        length=3,
        batch=B,
        hidden_size=H,
        seed=0,
        data_seed=0,
    )
    asked = Problem(REGISTRY, trial)
    assert asked.spec.inputs.embedded
    steps, classes = asked.time_steps, asked.spec.output_size
    weights = H * H + H * H + H + H * classes + classes
    looked_up, outputs = B * steps * H, B * steps * classes
    assert least_bytes_of_call(asked, "forward", B) == 4 * (
        looked_up + weights + outputs + B * H
    )


@pytest.mark.slow
def test_a_trial_that_cannot_fit_into_memory_is_refused_before_anything_is_drawn(
    tmp_path: Path,
) -> None:
    asked = problem(settings=PhasesSettings(("forward", "train_step")))
    drawn, placed, states = 8 * B * T * I, 8 * 4 * B * T * I, 4 * B * T * H
    assert least_memory_bytes(asked) == drawn + placed + states + 2 * 4 * WEIGHTS
    check_memory(asked)
    vast = {"batch": 10**7, "time_steps": 10**3, "input_size": 8, "hidden_size": 4}
    section = helpers.speed("numpy-reference", shapes=[vast], memory=True)
    helpers.write(tmp_path / "s.toml", helpers.suite(section))
    code, out, err = helpers.run("run", "s.toml", "-o", "r", cwd=tmp_path)
    assert code == 4, out + err
    found = {r.trial.measure: r for r in RunFolder.open(tmp_path / "r").records()}
    for measure in ("speed", "memory"):
        assert found[measure].outcome == "out_of_memory"
        assert "needs at least 2980" in str(found[measure].reason)
        assert "give a smaller batch" in str(found[measure].reason)


def fake_memory(monkeypatch: pytest.MonkeyPatch, **found: int | None) -> None:
    """Pretend that the machine has this much memory, by kind."""
    free = SimpleNamespace(available=found["free"])
    monkeypatch.setattr(capacity.psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(System, "memory_left_bytes", lambda _: found.get("left"))
    monkeypatch.setattr(capacity, "gpu_free_memory", lambda: found.get("gpu"))
    capacity._free_at_first.cache_clear()


def on_gpu(**changes: object) -> Problem:
    settings = PhasesSettings(("forward", "train_step"))
    return problem(
        implementation="torch-native", device="cuda:0", settings=settings, **changes
    )


def test_the_limit_of_a_control_group_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = problem(settings=PhasesSettings(("forward", "train_step")))
    needed = least_memory_bytes(asked)
    fake_memory(monkeypatch, free=2**40, left=needed)
    check_memory(asked)
    fake_memory(monkeypatch, free=2**40, left=needed - 1)
    with pytest.raises(MemoryError, match="within the memory limit of its control"):
        check_memory(asked)
    fake_memory(monkeypatch, free=needed - 1, left=2**40)
    with pytest.raises(MemoryError, match=r"free; give a smaller batch.*size$"):
        check_memory(asked)


def test_a_gpu_trial_needs_gpu_memory_and_host_memory_for_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = on_gpu()
    placed, states = 8 * 4 * B * T * I, 4 * B * T * H
    needed = placed + states + 2 * 4 * WEIGHTS
    assert least_memory_bytes(asked) == needed
    host = 8 * B * T * I + 8 * B * T * H
    assert least_host_bytes(asked, read_back=True) == host
    assert least_host_bytes(on_gpu(measure="memory")) == 8 * B * T * I

    fake_memory(monkeypatch, free=host, gpu=needed)
    check_memory(asked)
    fake_memory(monkeypatch, free=host - 1, gpu=2**40)
    with pytest.raises(MemoryError, match="of this machine's memory"):
        check_memory(asked, read_back=True)
    fake_memory(monkeypatch, free=2**40, gpu=needed - 1)
    with pytest.raises(MemoryError, match=r"on cuda:0 and .* free there; give a smal"):
        check_memory(asked)
    fake_memory(monkeypatch, free=2**40, gpu=None)  # a driver that reports nothing
    check_memory(asked)


def test_gpu_memory_that_a_framework_keeps_for_later_counts_as_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = on_gpu()
    needed = least_memory_bytes(asked)
    fake_memory(monkeypatch, free=2**40, gpu=needed)
    check_memory(asked)
    monkeypatch.setattr(capacity, "gpu_free_memory", lambda: 0)
    check_memory(asked)
