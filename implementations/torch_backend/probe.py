"""How fast torch multiplies and copies on one device."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from harness.contract import FrameworkState
from implementations.shared.device import Probe, check_device


class TorchProbe(Probe):
    """A `DeviceProbe` of torch's matrix product, memory, allocator and events.

    Raises:
        UnavailableError: If torch sees no such device.
    """

    def __init__(self, device: str) -> None:
        check_device("torch", torch.__version__, device, torch.cuda.device_count())
        super().__init__(device)
        self._device = torch.device(device)

    def _matmul(self, size: int, dtype: str, precision: str) -> Callable[[], None]:
        kind = torch.bfloat16 if precision == "bf16" else getattr(torch, dtype)
        a, b = torch.randn(2, size, size, device=self._device).to(kind)
        c = torch.empty_like(a)

        def call() -> None:
            if self._on_gpu:  # other code of the process sets this switch too
                torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            torch.mm(a, b, out=c)
            self._wait()

        return call

    def copy(self, size: int) -> Callable[[], None]:
        """Return a call that reads and writes `size` bytes and waits."""
        held = torch.ones(size // 4, device=self._device)

        def call() -> None:
            held.neg_()
            self._wait()

        return call

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize(self._device)

    def _peak_bytes(self) -> int:
        return int(torch.cuda.max_memory_allocated(self._device))

    def reset_peak(self) -> None:
        """Take what tensors hold now as the peak."""
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(self._device)

    def timer(self) -> CudaTimer | None:
        """Return CUDA events on the current stream."""
        return CudaTimer(self._device) if self._on_gpu else None

    def state(self) -> FrameworkState:
        """Return how many frames dynamo was asked to compile, and the threads."""
        # Not imported here: that takes seconds, and code that compiles has imported it.
        dynamo = sys.modules.get("torch._dynamo.utils")
        frames = 0 if dynamo is None else dynamo.counters["frames"]["total"]
        return FrameworkState(frames, torch.get_num_threads())


class CudaTimer:
    """Two CUDA events on the current stream of a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """Record the first event."""
        self._record(0)

    def stop(self) -> float:
        """Record the second event and wait for it; return the seconds between both."""
        self._record(1)
        first, last = self._events
        last.synchronize()
        return float(first.elapsed_time(last)) / 1e3

    def _record(self, index: int) -> None:
        stream = torch.cuda.current_stream(self._device)
        self._events[index].record(stream)
