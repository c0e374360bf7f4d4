"""How fast torch multiplies and copies on one device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.nn import functional
from torch.nn.modules import module as modules

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
        threads = torch.get_num_threads()
        return FrameworkState(frames, threads, _settings(self._on_gpu), _SHARED)


_SHARED: tuple[ModuleType | type, ...] = (
    torch.nn,
    functional,
    torch.autograd,
    torch.linalg,
    torch._C._nn,
    torch._VF,
    torch.Tensor,
    torch.autograd.Function,
    *{kind for kind in vars(torch.nn).values() if isinstance(kind, type)},
    *{kind for kind in vars(torch.optim).values() if isinstance(kind, type)},
)
"""Where torch's functions and methods are; `torch` itself is its framework's module."""

_PRECISIONS = (
    ("generic", "all"),
    ("mkldnn", "all"),
    ("mkldnn", "matmul"),
    ("mkldnn", "conv"),
    ("mkldnn", "rnn"),
)
_CUDA_PRECISIONS = tuple(("cuda", kind) for kind in ("all", "matmul", "conv", "rnn"))

_HOOKS = tuple(n for n in vars(modules) if n.startswith("_global_"))
"""The names of the hooks that all modules call."""


_TENTH_IS_SUBNORMAL = torch.tensor([1e-38])


def _settings(on_gpu: bool) -> dict[str, Any]:
    """Return the modes and defaults that all code of the process shares."""
    of_c = torch._C
    return {
        **_precisions(on_gpu),
        **_hooks(),
        "torch's saved tensors hooks": _saved_tensors_hooks(),
        "torch's function modes": of_c._len_torch_function_stack(),
        "torch's dispatch modes": of_c._len_torch_dispatch_stack(),
        "torch's grad mode": str(torch.is_grad_enabled()),
        "torch's inference mode": str(torch.is_inference_mode_enabled()),
        "torch's anomaly mode": str(torch.is_anomaly_enabled()),
        "torch's threads": str(torch.get_num_threads()),
        "torch's threads between operations": str(torch.get_num_interop_threads()),
        "torch's threads of the backward pass": str(of_c._is_multithreading_enabled()),
        "torch's default dtype": str(torch.get_default_dtype()),
        "torch's default device": str(torch.get_default_device()),
        "torch's deterministic algorithms": str(
            torch.are_deterministic_algorithms_enabled()
        ),
        "torch's filling of new memory": str(
            torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
        ),
        "torch's flushing of subnormals": str((_TENTH_IS_SUBNORMAL * 0.1).item() == 0),
        "torch's profiler": str(of_c._autograd._profiler_enabled()),
        "torch's mkldnn": str(torch.backends.mkldnn.enabled),
        "torch's deterministic mkldnn": str(torch.backends.mkldnn.deterministic),
        "torch's cudnn": str(torch.backends.cudnn.enabled),
        "torch's cudnn benchmark": str(torch.backends.cudnn.benchmark),
        "torch's deterministic cudnn": str(torch.backends.cudnn.deterministic),
        "torch's autocast": str(torch.is_autocast_enabled("cpu")),
        "torch's autocast dtype": str(torch.get_autocast_dtype("cpu")),
    }


def _precisions(on_gpu: bool) -> dict[str, str]:
    """Return in which precision float32 numbers are multiplied.

    On a GPU, a network sets the precisions of CUDA before each call, so that they
    concern nobody else.
    """
    ask = getattr(torch._C, "_get_fp32_precision_getter", None)
    if ask is None:  # before torch 2.9
        found = {"float32 matmul precision": torch.get_float32_matmul_precision()}
        if not on_gpu:
            found["cuda.matmul.allow_tf32"] = str(torch.backends.cuda.matmul.allow_tf32)
            found["cudnn.allow_tf32"] = str(torch.backends.cudnn.allow_tf32)
        return {f"torch's {name}": value for name, value in found.items()}
    # What the older functions return is one of these, but once these have been set
    # separately the older ones raise.
    asked = _PRECISIONS if on_gpu else (*_PRECISIONS, *_CUDA_PRECISIONS)
    return {
        f"torch's float32 precision of {backend} {kind}": ask(backend, kind)
        for backend, kind in asked
    }


def _hooks() -> dict[str, Any]:
    """Return the hooks of all modules by their names in torch."""
    return {f"torch's {name[1:]}": _copied(getattr(modules, name)) for name in _HOOKS}


def _copied(hooks: Any) -> Any:
    return dict(hooks) if isinstance(hooks, dict) else hooks


def _saved_tensors_hooks() -> Any:
    """Return the hooks on tensors that are kept for the backward pass."""
    ask = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return None if ask is None else ask(False)


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
