"""How fast torch multiplies and copies on one device."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from harness.contract import Array, FrameworkState
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

    def _tenth(self, values: Array) -> Array:
        found: Array = torch.from_numpy(values).to(self._device).mul(0.1).cpu().numpy()
        return found

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
        """Return how many frames dynamo was asked to compile, threads and modes."""
        # Not imported here: that takes seconds, and code that compiles has imported it.
        dynamo = sys.modules.get("torch._dynamo.utils")
        frames = 0 if dynamo is None else dynamo.counters["frames"]["total"]
        return FrameworkState(frames, torch.get_num_threads(), _settings())


def _settings() -> dict[str, str]:
    """Return the modes and defaults that all code of the process shares."""
    # 1e-38 is normal, a tenth of it is subnormal.
    flushed = (torch.tensor([1e-38]) * 0.1).item() == 0
    profiled = torch._C._autograd._profiler_enabled()
    return {
        "torch's grad mode": str(torch.is_grad_enabled()),
        "torch's inference mode": str(torch.is_inference_mode_enabled()),
        "torch's anomaly mode": str(torch.is_anomaly_enabled()),
        "torch's threads": str(torch.get_num_threads()),
        "torch's threads between operations": str(torch.get_num_interop_threads()),
        "torch's default dtype": str(torch.get_default_dtype()),
        "torch's default device": str(torch.get_default_device()),
        "torch's float32 matmul precision": torch.get_float32_matmul_precision(),
        "torch's deterministic algorithms": str(
            torch.are_deterministic_algorithms_enabled()
        ),
        "torch's flushing of subnormals": str(flushed),
        "torch's profiler": str(profiled),
        "torch's mkldnn": str(torch.backends.mkldnn.enabled),
        "torch's cudnn": str(torch.backends.cudnn.enabled),
        "torch's cudnn benchmark": str(torch.backends.cudnn.benchmark),
        "torch's autocast": str(torch.is_autocast_enabled("cpu")),
    }


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
