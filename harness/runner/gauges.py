"""The memory of the process, and of the GPU, in which a network lives."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.contract import (
    Array,
    Batch,
    DeviceProbe,
    Forward,
    Network,
    State,
    TrainableNetwork,
)
from harness.machine.gpu import gpu_memory
from harness.machine.system import System
from harness.runner.given import own
from harness.runner.phase import queued
from harness.runner.returned import handle, method_of, of_type


class ResidentMemory:
    """Resident memory of this process, above the baseline when this object was made.

    If the system cannot reset its record of the peak, the peak since the process began
    is measured.
    """

    def __init__(self) -> None:
        gc.collect()
        self.baseline_bytes = System().own_bytes("VmRSS") or _highest_bytes()

    def reset(self) -> None:
        """Start a new peak from what is held now.

        Memory of before that is free by now is no longer a part of the baseline, or a
        phase that takes as much again would seem to need nothing.
        """
        held = System().own_bytes("VmRSS") or self.baseline_bytes
        self.baseline_bytes = min(self.baseline_bytes, held)
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


class Gauges:
    """Measures the peak memory of calls of a network's phases.

    Args:
        every: The gauges, made before the network was built.
    """

    def __init__(self, every: Sequence[Gauge]) -> None:
        self._every = every

    def measure(
        self,
        phase: str,
        network: TrainableNetwork,
        batch: Batch,
        start: State,
        calls: int,
    ) -> tuple[dict[str, int], float]:
        """Return the peaks during some calls, and the seconds of the first.

        Each call also places its batch; a call of `stream` takes all time steps of one
        sequence, from a state.
        """
        call = _call(phase, own(network), batch, start)
        for gauge in self._every:
            gauge.reset()
        start_s = time.perf_counter()
        call()
        first_s = time.perf_counter() - start_s
        for _ in range(calls - 1):
            call()
        values: dict[str, int] = {}
        for gauge in self._every:
            values |= gauge.values()
        return values, first_s


def _call(
    phase: str, network: Network, batch: Batch, start: State
) -> Callable[[], None]:
    if phase == "stream":
        return lambda: _stream(network, batch.inputs[0], start)
    queue, method = queued(phase, network), method_of(phase)
    return lambda: handle(method, queue(network.place(batch))).wait()


def _stream(network: Network, sequence: Array, start: State) -> None:
    state = start
    for x in sequence:
        read = handle("step", network.step(x[None], state)).read()
        state = of_type("step", read, Forward, "Forward(outputs, state)").state
