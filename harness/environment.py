"""Machine, threads, libraries, commit: what a number needs beside it."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import MisuseError

_Answer = TypeVar("_Answer")

VISIBLE = "CUDA_VISIBLE_DEVICES"
_TF32 = "NVIDIA_TF32_OVERRIDE"

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def describe_environment(distributions: Iterable[str]) -> dict[str, Any]:
    """Return the facts a number of this machine needs beside it.

    Args:
        distributions: Names whose installed versions matter.
    """
    import psutil

    gpus = gpu_names()
    cores = psutil.cpu_count(logical=True) or 1
    return {
        "machine": _machine(cores, gpus),
        "cpu": cpu_model(),
        "cores": cores,
        "gpus": gpus,
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": installed_versions(distributions),
        **_commit(),
    }


def machine_name() -> str:
    """Return a short name of this machine: "2 cores AMD EPYC"."""
    import psutil

    return _machine(psutil.cpu_count(logical=True) or 1, gpu_names())


def _machine(cores: int, gpus: list[str]) -> str:
    return " + ".join([f"{cores} cores {cpu_model()}", *gpus])


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found.group(1).strip() if found else platform.machine()


@functools.cache
def processor() -> str:
    """Return the processor's name with a hash of its features: "AMD EPYC 1a2b3c4d".

    Libraries choose their kernels by those features, and so their rounding.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    features = " ".join(sorted(found.group(1).split())) if found else platform.machine()
    return f"{cpu_model()} {hashlib.sha256(features.encode()).hexdigest()[:8]}"


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


def allowed_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    versions = {}
    for name in dict.fromkeys(distributions):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def resolve_device(asked: str, *, elsewhere: bool = False) -> str:
    """Return `cpu` or `cuda:N` for `auto`, `cpu`, `cuda` or `cuda:N`.

    Args:
        asked: What was asked for.
        elsewhere: Whether trials run on other machines, whose devices are not known.

    Raises:
        MisuseError: If the name is none of these, or there is no such device.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", asked):
        raise MisuseError(
            f"unknown device '{asked}'; allowed: auto, cpu, cuda, cuda:N, as cuda:0"
        )
    if asked == "cpu":
        return "cpu"
    if elsewhere:
        if asked == "auto":
            raise MisuseError(
                "--device auto cannot tell what a cluster has; give cpu or cuda"
            )
        return f"cuda:{int(asked.partition(':')[2] or 0)}"
    gpus = gpu_names()
    if asked == "auto":
        return "cuda:0" if gpus else "cpu"
    index = int(asked.partition(":")[2] or 0)
    if index < len(gpus):
        return f"cuda:{index}"
    here = ", ".join(f"cuda:{i} ({name})" for i, name in enumerate(gpus))
    raise MisuseError(
        f"no device '{asked}' here: the NVIDIA driver shows "
        f"{here or 'no GPU'}; use --device cpu or --device auto"
    )


def framework_versions(name: str, distributions: Iterable[str]) -> str:
    """Return "tensorflow 2.21.0, keras 3.15.1", or the name alone."""
    found = [f"{n} {v}" for n, v in installed_versions(distributions).items()]
    return ", ".join(found) or name


def pinned_variables(
    threads: int, device: str = "cpu", precision: str = "highest"
) -> dict[str, str]:
    """Return what a worker's environment must hold before its framework is imported.

    A worker sees its own device alone, as the first; `VISIBLE` names it.

    Args:
        threads: What every numerical library may use.
        device: `cpu` or `cuda:N`, as numbered among those that are visible here.
        precision: `highest` keeps NVIDIA's libraries from TF32, whoever asks for it.
    """
    return {
        VISIBLE: visible(device),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as the driver lists them, and gpu_names
        **({"JAX_PLATFORMS": "cpu"} if device == "cpu" else {}),
        **({_TF32: "0"} if precision == "highest" else {}),
        **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
        # XLA sizes its pool by NPROC; one thread also for Eigen's products.
        "NPROC": str(threads),
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
    """Return this process's environment with what is pinned, as `pinned_variables`."""
    others = {name: value for name, value in os.environ.items() if name != _TF32}
    return {**others, **pinned_variables(threads, device, precision)}


def visible(device: str) -> str:
    """Return what shows a device, and no other, to CUDA; "" shows none."""
    if device == "cpu":
        return ""
    index = int(device.partition(":")[2] or 0)
    shown = os.environ.get(VISIBLE)
    if shown is None:
        return str(index)
    names = [name.strip() for name in shown.split(",")]
    return names[index] if index < len(names) else ""


def user_cache() -> Path | None:
    """Return this project's folder in the user's cache, or None without a home."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(cache) if Path(cache).is_absolute() else Path("~/.cache")
    try:
        return folder.expanduser() / "rnn-harness"
    except RuntimeError:
        return None


def _commit() -> dict[str, Any]:
    """Return the commit of the checkout this package runs from, if it is one."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return {"commit": None, "dirty": False}
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": False}
    return {"commit": head, "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()
