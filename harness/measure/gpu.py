"""What NVIDIA's driver tells of a GPU: clock, heat, power, and who else uses it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from harness.environment import from_driver

_Answer = TypeVar("_Answer")

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
