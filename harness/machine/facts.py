"""The facts that are stored with every number: machine, libraries, commit."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.machine.gpu import gpu_names
from harness.machine.system import System


def describe_environment(distributions: Iterable[str]) -> dict[str, Any]:
    """Return the facts that are stored with numbers from this machine.

    Args:
        distributions: Python distributions whose installed versions are included.
    """
    import psutil  # here, because `interpreters.probe` runs where it may be missing

    return {
        "machine": machine_name(),
        "cpu": cpu_model(),
        "cores": psutil.cpu_count() or 1,
        "gpus": gpu_names(),
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": installed_versions(distributions),
        **_commit(),
    }


def machine_name() -> str:
    """Return a short name of this machine: "2 cores AMD EPYC"."""
    import psutil

    return " + ".join([f"{psutil.cpu_count() or 1} cores {cpu_model()}", *gpu_names()])


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    return System().cpuinfo("model name") or platform.processor() or platform.machine()


@functools.cache
def processor() -> str:
    """Return the processor's name with a hash of its features: "AMD EPYC 1a2b3c4d".

    Libraries choose their kernels by these features, and with them their rounding.
    """
    features = System().cpuinfo("flags|Features") or platform.machine()
    features = " ".join(sorted(features.split()))
    return f"{cpu_model()} {hashlib.sha256(features.encode()).hexdigest()[:8]}"


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


def framework_versions(name: str, distributions: Iterable[str]) -> str:
    """Return "tensorflow 2.21.0, keras 3.15.1", or the name if none is installed."""
    found = [f"{n} {v}" for n, v in installed_versions(distributions).items()]
    return ", ".join(found) or name


def _commit() -> dict[str, Any]:
    """Return the commit of the git checkout that this package runs from, if any."""
    folder = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command, quiet = ["git", "-C", str(folder), *arguments], subprocess.DEVNULL
        found = subprocess.check_output(command, text=True, stderr=quiet, timeout=10)
        return found.strip()

    try:
        if (folder / ".git").exists():
            head = git("rev-parse", "--short=12", "HEAD")
            changed = git("status", "--porcelain", "--untracked-files=no")
            return {"commit": head, "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        pass
    return {"commit": None, "dirty": False}
