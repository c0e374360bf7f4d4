"""What every framework refuses in the same words."""

from __future__ import annotations

from harness.errors import RefusedError


def refuse_tf32_off_gpu(precision: str, device: str) -> None:
    """Refuse what only NVIDIA's GPUs compute.

    Raises:
        RefusedError: If TF32 is asked for elsewhere.
    """
    if precision == "tf32" and not device.startswith("cuda"):
        raise RefusedError(
            f"TF32 is arithmetic of NVIDIA GPUs; asked was tf32 on {device}"
        )
