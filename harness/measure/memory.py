"""How much memory does it need? Each phase's peak, in a process of its own.

That process has built nothing yet, and so tells what a first call takes, too.

The process has imported its framework and built the smallest network before anything is
counted: what is left is the network, its batch and what computing it takes. Phases come
in the order in which they need more, so that memory which an allocator keeps from one
is not counted to a smaller one.
"""

from __future__ import annotations

import gc
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from harness.contract import DeviceProbe, Network, Quantity, TrainableNetwork
from harness.errors import RefusedError
from harness.machine.gpu import gpu_memory
from harness.measure.arithmetic import FLOPS_PER_FORWARD, check_memory, kept_bytes
from harness.measure.problem import Measurement, Problem
from harness.measure.work import Work
from harness.registry import Registry
from harness.store import Reading
from harness.trial import Trial

CALLS = 3
"""Of each phase: the second and third run with what the first has built."""

STREAM_STEPS = 16

QUANTITIES = {
    "peak_bytes": Quantity("bytes", "lower"),
    "baseline_bytes": Quantity("bytes", "neither"),
    "allocator_peak_bytes": Quantity("bytes", "lower"),
    "device_peak_bytes": Quantity("bytes", "lower"),
    "first_call_s": Quantity("s", "lower"),
}


class Gauge(Protocol):
    """Tells the memory of one kind, from `reset` on."""

    def reset(self) -> None:
        """Begin anew with what is held now."""

    def values(self) -> Mapping[str, int]:
        """Return the peak since `reset`, by metric."""


class ResidentMemory:
    """Resident memory of this process, above what it was when this was made.

    Where the system keeps no peak that can be begun anew, the process's own is told.
    """

    def __init__(self) -> None:
        gc.collect()
        self.baseline_bytes = _status("VmRSS") or _highest_bytes()

    def reset(self) -> None:
        """Begin anew with what is held now."""
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return

    def values(self) -> Mapping[str, int]:
        """Return the peak above the baseline, and the baseline."""
        peak = _status("VmHWM") or _highest_bytes()
        return {
            "peak_bytes": max(0, peak - self.baseline_bytes),
            "baseline_bytes": self.baseline_bytes,
        }


class DeviceMemory:
    """What a GPU holds: by the framework's own allocator, and by the driver.

    The driver is asked again and again meanwhile, and tells of the device as a whole:
    what other processes hold there counts too.

    Args:
        probe: Of the framework on the device.
        held_bytes: Asks the driver; None where it does not answer.
    """

    def __init__(
        self, probe: DeviceProbe, held_bytes: Callable[[], int | None] = gpu_memory
    ) -> None:
        self._probe, self._held_bytes = probe, held_bytes
        self._baseline = held_bytes()
        self._peak = 0
        self._watching: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def reset(self) -> None:
        """Begin anew with what is held now."""
        self._probe.reset_peak()
        self._peak, self._watching = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        assert self._watching is not None
        while True:
            self._peak = max(self._peak, self._held_bytes() or 0)
            if self._watching.wait(_POLL_S):
                return

    def values(self) -> Mapping[str, int]:
        """Return both peaks, the driver's above what was held before."""
        assert self._watching is not None
        assert self._thread is not None
        self._watching.set()
        self._thread.join()
        found = {}
        allocated = self._probe.peak_bytes()
        if allocated is not None:
            found["allocator_peak_bytes"] = allocated
        if self._baseline is not None:
            found["device_peak_bytes"] = max(0, self._peak - self._baseline)
        return found


_POLL_S = 0.002
"""Between two questions to the driver, which takes some microseconds to answer."""


def _status(name: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _highest_bytes() -> int:
    """Return the most that this process ever held; macOS counts in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_memory(
    registry: Registry, trial: Trial, gauges: Callable[[Problem], list[Gauge]]
) -> Measurement:
    """Measure the peak memory of every phase that the implementation has.

    Settings: `phases`.

    Args:
        registry: Knows the plugins.
        trial: What to compute.
        gauges: Makes what tells memory, once the framework is imported.

    Raises:
        RefusedError: If the implementation does not offer what the trial asks.
    """
    smallest = {"hidden_size": 1, "num_layers": 1}
    Problem(registry, replace(trial, **smallest)).network()  # type: ignore[arg-type]
    problem = Problem(registry, trial)
    check_memory(problem)
    told = gauges(problem)
    network = problem.network()
    network.load_weights(problem.initial_weights())
    readings, first_s = [], 0.0
    for name in ("stream", "forward", "loss_and_gradients", "train_step"):
        call = _call(name, problem, network)
        if name not in trial.settings["phases"] or call is None:
            continue
        for gauge in told:
            gauge.reset()
        start_s = time.perf_counter()
        call()
        # What an update needs for its gradients was built when these were asked.
        first_s = max(first_s, time.perf_counter() - start_s)
        for _ in range(CALLS - 1):
            call()
        values: dict[str, float] = {}
        for gauge in told:
            values |= gauge.values()
        if name != "stream":  # which here is several calls
            values["first_call_s"] = first_s
        readings.append(Reading(name, values))
        first_s = first_s if name == "loss_and_gradients" else 0.0
    if not readings:
        raise RefusedError(f"{trial.implementation} does not train")
    facts = {"kernel": network.kernel(), "parameters": problem.parameters()}
    return Measurement(readings, facts, QUANTITIES)


def _call(name: str, problem: Problem, network: Network) -> Callable[[], None] | None:
    """Return a call of a phase on a batch that is placed for it, or None."""
    if name == "stream":
        return lambda: _stream(problem, network)
    size = problem.trial.batch
    assert size is not None
    batch = problem.batch("train", 0, size)
    if name == "forward":
        return lambda: network.forward(network.place(batch)).wait()
    if not problem.trains:
        return None
    trained = cast(TrainableNetwork, network)
    if name == "loss_and_gradients":
        return lambda: trained.loss_and_gradients(network.place(batch)).wait()
    return lambda: trained.train_steps([network.place(batch)]).wait()


def _stream(problem: Problem, network: Network) -> None:
    spec = problem.spec
    sequence = problem.batch("train", 0, 1).inputs[0]
    zero = np.zeros((spec.num_layers, 1, spec.hidden_size), spec.dtype)
    state = (zero,) * len(problem.cell.info.state_parts)
    for x in sequence[:STREAM_STEPS]:
        state = network.step(x[None], state).read().state


def work(registry: Registry, trial: Trial) -> Work:
    """Return what the calls of all phases compute, in a process of their own."""
    problem, batch = Problem(registry, trial), trial.batch or 1
    phases = trial.settings["phases"]
    passes = CALLS * sum(FLOPS_PER_FORWARD.get(phase, 0) for phase in phases)
    return Work(
        passes * problem.time_steps,
        passes * problem.forward_flops(batch),
        start_s=3.0,
        activation_bytes=kept_bytes(problem, batch),
    )
