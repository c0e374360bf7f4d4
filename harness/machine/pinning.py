"""The environment variables of a worker, set before its framework is imported."""

from __future__ import annotations

import os

from harness.machine.devices import visible
from harness.machine.gpu import VISIBLE

_TF32 = "NVIDIA_TF32_OVERRIDE"

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "NPROC",  # where XLA takes its number from; Eigen's products have a flag
)


def pinned_variables(
    threads: int, device: str = "cpu", precision: str = "highest"
) -> dict[str, str]:
    """Return the variables that must be set before a worker's framework is imported.

    A worker sees only its own device, as the first; `VISIBLE` names it.

    Args:
        threads: The number of threads of every numerical library.
        device: `cpu` or `cuda:N`, counted among the devices that are visible here.
        precision: `highest` keeps NVIDIA's libraries from using TF32.
    """
    return {
        VISIBLE: visible(device),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as the driver lists them, and gpu_names
        **({"JAX_PLATFORMS": "cpu"} if device == "cpu" else {}),
        **({_TF32: "0"} if precision == "highest" else {}),
        **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
        "TF_NUM_INTEROP_THREADS": "1",
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONHASHSEED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def worker_environment(
    threads: int, device: str = "cpu", precision: str = "highest"
) -> dict[str, str]:
    """Return this process's environment variables with those of `pinned_variables`."""
    others = {name: value for name, value in os.environ.items() if name != _TF32}
    return {**others, **pinned_variables(threads, device, precision)}
