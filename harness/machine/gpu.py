"""What NVIDIA's driver tells of a GPU: clock, heat, power, and who else uses it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
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
"""Bits of NVML's reasons why a clock is below what was asked for; the others, such as
an idle GPU or a clock that somebody set, hold no clock back."""


@dataclass(frozen=True)
class Gpu:
    """What was seen of a GPU; None is what the driver does not tell.

    Attributes:
        clock_hz: Of its multiprocessors, now; `memory_clock_hz` of its memory.
        temperature_c: In degrees Celsius.
        slowed_by: What holds its clock back now.
        busy: Share of the last moment in which it computed.
        others: Processes that hold it beside those of this command.
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

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        slowed_by = None if self.slowed_by is None else list(self.slowed_by)
        return {**asdict(self), "slowed_by": slowed_by}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Gpu:
        """Rebuild it from `to_json`."""
        found = values["slowed_by"]
        return cls(**{**values, "slowed_by": None if found is None else tuple(found)})


def look_at_gpu(index: int, own: Collection[int] = ()) -> Gpu | None:
    """Return what the driver tells of a GPU, or None without a driver or such a GPU.

    Args:
        index: As the driver counts them.
        own: Process ids that are not others'.
    """
    return from_driver(lambda: _look(index, own))


def _look(index: int, own: Collection[int]) -> Gpu:
    import pynvml as nvml

    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def tell(ask: Callable[..., _Answer], *what: Any) -> _Answer | None:
        try:
            return ask(handle, *what)
        except nvml.NVMLError:  # as on a part of a GPU, or in a virtual machine
            return None

    reasons = tell(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    power_mw = tell(nvml.nvmlDeviceGetPowerUsage)
    use = tell(nvml.nvmlDeviceGetUtilizationRates)
    holders = tell(nvml.nvmlDeviceGetComputeRunningProcesses)
    return Gpu(
        index,
        str(nvml.nvmlDeviceGetName(handle)),
        clock_hz=_hz(tell(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM)),
        memory_clock_hz=_hz(tell(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM)),
        temperature_c=tell(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        power_w=None if power_mw is None else power_mw / 1e3,
        slowed_by=None if reasons is None else _names(reasons),
        busy=None if use is None else use.gpu / 100,
        others=None if holders is None else sum(h.pid not in own for h in holders),
    )


def _hz(mhz: float | None) -> float | None:
    return None if mhz is None else 1e6 * mhz


def _names(reasons: int) -> tuple[str, ...]:
    return tuple(name for bit, name in SLOWED_BY.items() if reasons & bit)


def gpu_names() -> list[str]:
    """Return the names of the CUDA devices the driver shows, in order."""
    import pynvml

    def names() -> list[str]:
        handles = map(
            pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount())
        )
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]

    return from_driver(names) or []


def gpu_name() -> str | None:
    """Return the name of the first CUDA device that this process sees, or None."""
    import pynvml

    return from_driver(lambda: str(pynvml.nvmlDeviceGetName(_first_gpu())))


def gpu_memory() -> int | None:
    """Return the bytes held on the first CUDA device that this process sees, or None.

    By all processes: the driver does not know those of a container by their ids.
    """
    import pynvml

    return from_driver(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(_first_gpu()).used))


def gpu_free_memory() -> int | None:
    """Return the bytes free on the first CUDA device this process sees, or None."""
    import pynvml

    return from_driver(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(_first_gpu()).free))


def _first_gpu() -> Any:
    """Return the driver's handle of the first CUDA device that this process sees."""
    import pynvml

    first = os.environ.get(VISIBLE, "0").partition(",")[0].strip()
    if first.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(first))
    return pynvml.nvmlDeviceGetHandleByUUID(first)


def from_driver(ask: Callable[[], _Answer]) -> _Answer | None:
    """Return what NVIDIA's driver answers, or None where it does not."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return ask()
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
