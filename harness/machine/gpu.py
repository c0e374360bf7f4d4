"""What NVIDIA's driver says about a GPU: clock, heat, power and other processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

_Answer = TypeVar("_Answer")

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable that says which GPUs a process sees."""

SLOWED_BY = {
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x20: "heat (driver)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
"""NVML's bits for the reasons why a clock is slower than asked for. Other bits, such as
an idle GPU or a clock that somebody set, do not slow a measurement."""


@dataclass(frozen=True)
class Gpu:
    """What was seen of a GPU; a value is None if the driver does not report it.

    Attributes:
        index: Its number in the driver's list.
        clock_hz: The present clock of its multiprocessors.
        memory_clock_hz: The present clock of its memory.
        temperature_c: In degrees Celsius.
        slowed_by: What slows its clock now.
        busy: Share of the last moment in which it computed.
        others: Processes that use it besides those of this command.
    """

    index: int
    name: str
    clock_hz: float | None = None
    memory_clock_hz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    slowed_by: tuple[str, ...] | None = None
    busy: float | None = None
    others: int | None = None


def index_of(device: str) -> int:
    """Return the number in `cuda:N`, or 0 for a device without one."""
    return int(device.partition(":")[2] or 0)


def look_at_gpu(index: int, own: Collection[int] = ()) -> Gpu | None:
    """Return what the driver says about a GPU, or None without a driver or such a GPU.

    Args:
        index: Its number in the driver's list.
        own: Ids of this command's own processes.
    """
    return _from_driver(lambda nvml: _look(nvml, index, own))


def _look(nvml: Any, index: int, own: Collection[int]) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def answer(ask: Callable[..., _Answer], *what: Any) -> _Answer | None:
        try:
            return ask(handle, *what)
        except nvml.NVMLError:  # a part of a GPU or a virtual machine may not say
            return None

    bits = answer(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    power_mw = answer(nvml.nvmlDeviceGetPowerUsage)
    use = answer(nvml.nvmlDeviceGetUtilizationRates)
    holders = answer(nvml.nvmlDeviceGetComputeRunningProcesses)
    return Gpu(
        index,
        str(nvml.nvmlDeviceGetName(handle)),
        clock_hz=_hz(answer(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM)),
        memory_clock_hz=_hz(answer(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM)),
        temperature_c=answer(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        power_w=None if power_mw is None else power_mw / 1e3,
        slowed_by=None
        if bits is None
        else tuple(reason for bit, reason in SLOWED_BY.items() if bits & bit),
        busy=None if use is None else use.gpu / 100,
        others=None if holders is None else sum(h.pid not in own for h in holders),
    )


def _hz(mhz: float | None) -> float | None:
    return None if mhz is None else 1e6 * mhz


def gpu_names() -> list[str]:
    """Return the names of the CUDA devices that the driver shows, in order."""

    def names(nvml: Any) -> list[str]:
        handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
        return [str(nvml.nvmlDeviceGetName(handle)) for handle in handles]

    return _from_driver(names) or []


def gpu_name() -> str | None:
    """Return the name of the first CUDA device that this process sees, or None."""
    return _from_driver(lambda nvml: str(nvml.nvmlDeviceGetName(_first_gpu(nvml))))


def gpu_memory() -> int | None:
    """Return the bytes used on the first CUDA device that this process sees, or None.

    All processes are counted, because the driver does not know the process ids that a
    container sees.
    """
    return _from_driver(lambda nvml: int(_first_memory(nvml).used))


def gpu_free_memory() -> int | None:
    """Return the free bytes of the first CUDA device this process sees, or None."""
    return _from_driver(lambda nvml: int(_first_memory(nvml).free))


def _first_memory(nvml: Any) -> Any:
    return nvml.nvmlDeviceGetMemoryInfo(_first_gpu(nvml))


def _first_gpu(nvml: Any) -> Any:
    """Return the driver's handle of the first CUDA device that this process sees."""
    first = os.environ.get(VISIBLE, "0").partition(",")[0].strip()
    if first.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(first))
    return nvml.nvmlDeviceGetHandleByUUID(first)


def _from_driver(ask: Callable[[Any], _Answer]) -> _Answer | None:
    """Return NVIDIA's driver's answer to a question, or None if it has none.

    Args:
        ask: Asks the driver; it is called with NVIDIA's library.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return ask(pynvml)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
