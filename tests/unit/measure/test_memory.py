"""The peak memory of each phase counts all that it allocates, and nothing earlier."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest

from harness.errors import RefusedError
from harness.measure.memory import measure_memory
from harness.registry import Registry
from harness.runner.gauges import DeviceMemory, ResidentMemory
from harness.runner.process import RunnerProcess
from harness.runner.remote import RemoteRunner
from harness.runner.runner import InProcess, Runner
from harness.store import RunFolder
from harness.trial import PhasesSettings, Trial
from tests import helpers
from tests.helpers import REGISTRY

MIB = 2**20
PHASES = ["forward", "loss_and_gradients", "train_step", "stream"]


def trial(implementation: str, **changes: object) -> Trial:
    return Trial(
        "memory",
        implementation,
        "rnn",
        batch=2,
        time_steps=5,
        input_size=2,
        hidden_size=4,
        seed=0,
        data_seed=0,
        settings=PhasesSettings(PHASES),
        **changes,  # type: ignore[arg-type]
    )


def peaks(registry: Registry, name: str, runner: Runner) -> dict[str, float]:
    found = measure_memory(registry, trial(name), runner)
    return {r.split: r.values["peak_bytes"] / MIB for r in found.readings}


def test_memory_that_a_phase_holds_for_a_moment_is_its_peak() -> None:
    registry = Registry.discover([helpers.PLUGINS / "greedy.py"])
    process = RunnerProcess(registry.declared)
    found = peaks(registry, "greedy", RemoteRunner(process))
    process.close()
    assert list(found) == ["stream", "forward", "loss_and_gradients", "train_step"]
    assert found["forward"] == pytest.approx(48, abs=8)
    assert found["loss_and_gradients"] == pytest.approx(144, abs=8)
    assert found["stream"] < 4


def test_memory_that_the_process_held_before_is_not_counted() -> None:
    before = np.ones(200 * MIB // 8)
    del before  # the system keeps its peak, which is reset
    here = InProcess(REGISTRY)
    assert max(peaks(REGISTRY, "numpy-reference", here).values()) < 8
    held = np.ones(100 * MIB // 8)
    assert max(peaks(REGISTRY, "numpy-reference", here).values()) < 8
    assert held.sum() > 0


def test_memory_of_before_that_is_freed_is_no_longer_in_the_baseline() -> None:
    held = np.ones(200 * MIB // 8)
    memory = ResidentMemory()
    del held
    memory.reset()
    assert np.ones(100 * MIB // 8).sum() > 0
    assert memory.values()["peak_bytes"] / MIB == pytest.approx(100, abs=8)


@pytest.mark.slow
def test_a_run_measures_the_memory_of_each_trial_in_its_own_process(
    tmp_path: Path,
) -> None:
    section = helpers.speed(
        "keeps-250",
        "keeps-260",
        memory=True,
        shapes=[{"batch": 2, "time_steps": 5, "input_size": 2, "hidden_size": 16}],
    )
    helpers.write(tmp_path / "s.toml", helpers.suite(section))
    heavy = helpers.PLUGINS / "heavy.py"
    code, out, err = helpers.run(
        *("run", "s.toml", "-o", "r", "-j", 1, "--no-certify", "--plugin", heavy),
        cwd=tmp_path,
    )
    assert code == 0, out + err
    records = RunFolder.open(tmp_path / "r").records()
    found = {r.trial.implementation: r for r in records if r.trial.measure == "memory"}
    workers = {r.result["worker"] for r in found.values()}
    assert len(workers) == len(found) == 3
    peak = {n: r.value("forward", "peak_bytes") / MIB for n, r in found.items()}
    assert peak["keeps-250"] == pytest.approx(250, abs=8)
    assert peak["keeps-260"] - peak["keeps-250"] == pytest.approx(10, abs=2)


def test_the_memory_of_training_is_refused_without_training() -> None:
    if REGISTRY.unavailable("onnxruntime") is not None:
        pytest.skip("no onnxruntime")
    asked = trial("onnxruntime")
    asked = dataclasses.replace(asked, settings=PhasesSettings(("train_step",)))
    with pytest.raises(RefusedError, match="does not train"):
        measure_memory(REGISTRY, asked)


class Allocator:
    """An allocator of a framework with an invented peak."""

    def __init__(self) -> None:
        self.peak = 900

    def reset_peak(self) -> None:
        self.peak = 0

    def peak_bytes(self) -> int:
        return self.peak


def test_both_peaks_of_a_gpu_are_measured_from_the_last_reset() -> None:
    held = {"bytes": 100}
    allocator = Allocator()
    gauge = DeviceMemory(allocator, lambda: held["bytes"])  # type: ignore[arg-type]
    for peak in (700, 500):
        gauge.reset()
        held["bytes"], allocator.peak = peak, peak - 60
        time.sleep(0.1)
        held["bytes"] = 120  # freed before the peak is read
        assert gauge.values() == {
            "allocator_peak_bytes": peak - 60,
            "device_peak_bytes": peak - 100,
        }


def test_only_the_peak_of_the_allocator_is_reported_without_a_driver() -> None:
    gauge = DeviceMemory(Allocator(), lambda: None)  # type: ignore[arg-type]
    gauge.reset()
    assert gauge.values() == {"allocator_peak_bytes": 0}


def test_the_first_call_is_that_of_a_fresh_process(
    tmp_path: Path,
) -> None:
    file = helpers.write(
        tmp_path / "builds.py",
        """
import time

from harness import declare_implementation
from implementations.numpy_reference.network import NumpyNetwork

declare_implementation(
    "builds", framework="numpy", cells=["rnn"], factory="builds:network"
)

BUILT = []


class Builds(NumpyNetwork):
    def loss_and_gradients(self, placed):
        if not BUILT:
            BUILT.append(time.sleep(0.3))
        return super().loss_and_gradients(placed)


def network(spec, cell, device):
    return Builds(spec, cell, device)
""",
    )
    registry = Registry.discover([file])
    found = measure_memory(registry, trial("builds"))
    first = {r.split: r.values.get("first_call_s") for r in found.readings}
    assert first["stream"] is None
    assert first["forward"] < 0.2
    assert 0.3 < first["loss_and_gradients"] < 0.6
    assert first["train_step"] == first["loss_and_gradients"]
