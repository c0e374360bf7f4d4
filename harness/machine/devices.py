"""Names of devices: which a user may ask for, and which one CUDA may see."""

from __future__ import annotations

import os
import re

from harness.errors import MisuseError
from harness.machine.gpu import VISIBLE, gpu_names, index_of


def resolve_device(asked: str, *, elsewhere: bool = False) -> str:
    """Return `cpu` or `cuda:N` for `auto`, `cpu`, `cuda` or `cuda:N`.

    Args:
        asked: What was asked for.
        elsewhere: Whether trials run on other machines, whose devices are not known.

    Raises:
        MisuseError: If the name is not one of these, or there is no such device.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", asked):
        raise MisuseError(
            f"unknown device '{asked}'; allowed: auto, cpu, cuda, cuda:N, e.g. cuda:0"
        )
    if asked == "cpu":
        return "cpu"
    if elsewhere:
        if asked == "auto":
            raise MisuseError(
                "--device auto cannot tell what a cluster has; give cpu or cuda"
            )
        return f"cuda:{index_of(asked)}"
    gpus = gpu_names()
    if asked == "auto":
        return "cuda:0" if gpus else "cpu"
    if index_of(asked) < len(gpus):
        return f"cuda:{index_of(asked)}"
    here = ", ".join(f"cuda:{i} ({name})" for i, name in enumerate(gpus))
    raise MisuseError(
        f"no device '{asked}' here: the NVIDIA driver shows "
        f"{here or 'no GPU'}; use --device cpu or --device auto"
    )


def visible(device: str) -> str:
    """Return the value of `VISIBLE` with which CUDA sees one device, or none ("")."""
    if device == "cpu":
        return ""
    index, shown = index_of(device), os.environ.get(VISIBLE)
    if shown is None:
        return str(index)
    names = [name.strip() for name in shown.split(",")]
    return names[index] if index < len(names) else ""
