"""Checks of devices, and the base class of all frameworks' probes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from harness.contract import Array, DeviceTimer, FrameworkState
from harness.errors import RefusedError, UnavailableError


def index_of(device: str) -> int:
    """Return the number in `cuda:N`, or 0 for a device without one."""
    return int(device.partition(":")[2] or 0)


def check_device(framework: str, version: str, device: str, count: int) -> None:
    """Check that a device is among the `count` GPUs that a framework sees.

    Raises:
        UnavailableError: If it is not.
    """
    if device.startswith("cuda") and index_of(device) >= count:
        raise UnavailableError(
            framework,
            f"{framework} {version} sees {count} CUDA devices, so {device} is not "
            "there",
        )


def refuse_tf32_off_gpu(precision: str, device: str) -> None:
    """Refuse TF32, which only NVIDIA's GPUs compute, on other devices.

    Raises:
        RefusedError: If TF32 is asked for on another device.
    """
    if precision == "tf32" and not device.startswith("cuda"):
        raise RefusedError(f"TF32 is arithmetic of NVIDIA GPUs, not of {device}")


class Probe(ABC):
    """A `harness.contract.DeviceProbe` of a framework on one device.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
    """

    def __init__(self, device: str) -> None:
        self._place = device
        self._on_gpu = device.startswith("cuda")

    def matmul(self, size: int, dtype: str, precision: str) -> Callable[[], None]:
        """Return a call that multiplies two square matrices and waits.

        Raises:
            RefusedError: If the framework has no such product on this device.
        """
        refuse_tf32_off_gpu(precision, self._place)
        return self._matmul(size, dtype, precision)

    @abstractmethod
    def _matmul(self, size: int, dtype: str, precision: str) -> Callable[[], None]:
        """Return the call of `matmul`; `precision` is not TF32 on a CPU."""

    @abstractmethod
    def copy(self, size: int) -> Callable[[], None]:
        """Return a call that reads and writes `size` bytes and waits."""

    def peak_bytes(self) -> int | None:
        """Return the most bytes of the GPU that tensors took, or None on the CPU."""
        return self._peak_bytes() if self._on_gpu else None

    def _peak_bytes(self) -> int | None:
        return None

    def reset_peak(self) -> None:  # noqa: B027  # not every framework can
        """Reset the peak, if the framework can."""

    def timer(self) -> DeviceTimer | None:
        """Return the device's clock, or None if the framework has none."""
        return None

    def flushes_subnormals(self) -> bool | None:
        """Return whether the framework sets float32 numbers below 1.2e-38 to zero.

        It is tried in this process. None if it cannot be tried.
        """
        found = self._tenth(np.full(64, 2e-38, np.float32))
        # The bits decide: the comparison itself may take such numbers as zero.
        return None if found is None else not found.view(np.uint32).any()

    def _tenth(self, values: Array) -> Array | None:
        """Return a tenth of float32 values, computed by the framework on the device."""
        return None

    def state(self) -> FrameworkState:
        """Return what the framework reports about its process."""
        return FrameworkState()
