"""How much memory does it need? The peak of each phase, in a process of its own.

The process has built nothing before, so the time of a first call is measured here too.

Before memory is counted, the process imports its framework and builds the smallest
network. The network, its batch and the memory of the computation are counted. Phases
that need less come first, because an allocator may keep the memory of an earlier phase.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from harness.contract import DeviceProbe, Network, Quantity
from harness.errors import RefusedError
from harness.machine.gpu import gpu_memory
from harness.machine.system import System
from harness.measure.arithmetic import FLOPS_PER_FORWARD, work_of
from harness.measure.capacity import check_memory
from harness.measure.problem import Measurement, Problem
from harness.measure.speed.phases import queued
from harness.measure.work import Work
from harness.registry import Registry
from harness.store import Reading
from harness.trial import Trial

CALLS = 3
"""Calls of each phase: the second and third use what the first has built."""

STREAM_STEPS = 16

QUANTITIES = {
    "peak_bytes": Quantity("bytes", "lower"),
    "baseline_bytes": Quantity("bytes", "neither"),
    "allocator_peak_bytes": Quantity("bytes", "lower"),
    "device_peak_bytes": Quantity("bytes", "lower"),
    "first_call_s": Quantity("s", "lower"),
}


class ResidentMemory:
    """Resident memory of this process, above the baseline when this object was made.

    If the system cannot reset its record of the peak, the peak since the process began
    is measured.
    """

    def __init__(self) -> None:
        gc.collect()
        self.baseline_bytes = System().own_bytes("VmRSS") or _highest_bytes()

    def reset(self) -> None:
        """Start a new peak from what is held now."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def values(self) -> Mapping[str, int]:
        """Return the peak above the baseline, and the baseline."""
        peak = System().own_bytes("VmHWM") or _highest_bytes()
        return {
            "peak_bytes": max(0, peak - self.baseline_bytes),
            "baseline_bytes": self.baseline_bytes,
        }


class DeviceMemory:
    """Memory of a GPU, as the framework's allocator and the driver report it.

    The driver is asked repeatedly during the calls. It reports the whole device, so
    that memory of other processes there counts too.

    Args:
        probe: The framework's probe of the device.
        held_bytes: Returns the driver's number of used bytes, or None without an
            answer.
    """

    def __init__(
        self, probe: DeviceProbe, held_bytes: Callable[[], int | None] = gpu_memory
    ) -> None:
        self._probe, self._held_bytes = probe, held_bytes
        self._baseline = held_bytes()

    def reset(self) -> None:
        """Start a new peak from what is held now."""
        self._probe.reset_peak()
        self._peak, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        ended = False
        while not ended:
            self._peak = max(self._peak, self._held_bytes() or 0)
            ended = self._ended.wait(_POLL_S)

    def values(self) -> Mapping[str, int]:
        """Return both peaks; the driver's is above what was held before."""
        self._ended.set()
        self._thread.join()
        found = {}
        allocated = self._probe.peak_bytes()
        if allocated is not None:
            found["allocator_peak_bytes"] = allocated
        if self._baseline is not None:
            found["device_peak_bytes"] = max(0, self._peak - self._baseline)
        return found


Gauge = ResidentMemory | DeviceMemory
"""Measures the peak of one kind of memory, from `reset` on."""

_POLL_S = 0.002
"""Time between two questions to the driver, which answers within microseconds."""


def _highest_bytes() -> int:
    """Return the most memory that this process ever held."""
    # macOS counts in bytes, Linux in kibibytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def gauges_of(problem: Problem) -> list[Gauge]:
    """Return the gauges of a trial: this process's memory, and that of its GPU."""
    found: list[Gauge] = [ResidentMemory()]
    if problem.trial.device != "cpu" and (probe := problem.probe()) is not None:
        found.append(DeviceMemory(probe))
    return found


def measure_memory(
    registry: Registry,
    trial: Trial,
    gauges: Callable[[Problem], list[Gauge]] = gauges_of,
) -> Measurement:
    """Measure the peak memory of every phase that the implementation offers.

    Settings: `phases`.

    Args:
        registry: All plugins.
        trial: The trial.
        gauges: Makes the gauges; called once the framework is imported.

    Raises:
        RefusedError: If the implementation does not offer what the trial asks for.
    """
    smallest = {"hidden_size": 1, "num_layers": 1}
    Problem(registry, replace(trial, **smallest)).network()  # type: ignore[arg-type]
    problem = Problem(registry, trial)
    check_memory(problem)
    made = gauges(problem)
    network = problem.network()
    network.load_weights(problem.initial_weights())
    readings, first_s = [], 0.0
    for name in ("stream", "forward", "loss_and_gradients", "train_step"):
        call = _call(name, problem, network)
        if name not in problem.phases or call is None:
            continue
        for gauge in made:
            gauge.reset()
        start_s = time.perf_counter()
        call()
        # The update uses what the first call of `loss_and_gradients` has built.
        first_s = max(first_s, time.perf_counter() - start_s)
        for _ in range(CALLS - 1):
            call()
        values: dict[str, float] = {}
        for gauge in made:
            values |= gauge.values()
        if name != "stream":  # one call of `stream` is several time steps
            values["first_call_s"] = first_s
        readings.append(Reading(name, values))
        first_s = first_s if name == "loss_and_gradients" else 0.0
    if not readings:
        raise RefusedError(f"{trial.implementation} does not train")
    facts = {"kernel": network.kernel(), "parameters": problem.parameters()}
    return Measurement(readings, facts, QUANTITIES)


def _call(name: str, problem: Problem, network: Network) -> Callable[[], None] | None:
    """Return a call of a phase that also places its batch; None if it cannot run."""
    if name == "stream":
        return lambda: _stream(problem, network)
    if name != "forward" and not problem.trains:
        return None
    batch, queue = problem.batch("train", 0), queued(name, network)
    return lambda: queue(network.place(batch)).wait()


def _stream(problem: Problem, network: Network) -> None:
    sequence = problem.batch("train", 0, 1).inputs[0]
    state = problem.zero_state()
    for x in sequence[:STREAM_STEPS]:
        state = network.step(x[None], state).read().state


def work(registry: Registry, trial: Trial) -> Work:
    """Return what the calls of all phases compute, in a process of their own."""
    problem = Problem(registry, trial)
    passes = CALLS * sum(FLOPS_PER_FORWARD.get(name, 0) for name in problem.phases)
    return replace(work_of(problem, passes, trial.batch or 1), start_s=3.0)
