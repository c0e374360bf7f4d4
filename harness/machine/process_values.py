"""Values that a process has once, such as its folder, its limits and its hooks."""

from __future__ import annotations

import gc
import locale
import multiprocessing
import os
import resource
import signal
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Value:
    """A value that a process has once.

    Attributes:
        name: What it is called in a report.
        get: Returns it.
        put: Sets it, or None if that is not possible.
        parts: Whether it is a mapping of which a report names what differs.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object] | None = None
    parts: bool = False


_SIGNALS = tuple(n for n in signal.Signals if n not in (signal.SIGKILL, signal.SIGSTOP))
_LIMITS = {
    name: number
    for name, number in vars(resource).items()
    # RLIMIT_OFILE is the same as RLIMIT_NOFILE.
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}
ENVIRONMENT = "environment variable"


def _floating_point_mode() -> str:
    """Say how this thread rounds and whether it keeps subnormal numbers."""
    one, half_unit = np.float32(1), np.float32(2.0**-24)
    more, less = (one + np.float32(share) * half_unit > one for share in (1.5, 0.5))
    nearest = bool(more and not less)
    subnormal = np.array([2.0**-126], np.float32) * np.float32(0.5)
    kept = subnormal.view(np.uint32)[0] != 0
    return (
        f"rounds {'to nearest' if nearest else 'in one direction'}, "
        f"{'keeps' if kept else 'flushes'} subnormals"
    )


_OF_LIBRARIES = {
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "TF2_BEHAVIOR",
    "TF_CPP_MIN_LOG_LEVEL",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR",
}
"""Variables that scikit-learn, JAX, TensorFlow and torch set themselves, when they are
imported or first used."""


def _environment() -> Mapping[str, str]:
    return {n: v for n, v in os.environ.items() if n not in _OF_LIBRARIES}


def _signal_handlers() -> Mapping[int, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _put_signal_handlers(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _current_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109  # it raises if the folder was removed
    except OSError:
        return "removed"


def _put_environment(variables: Mapping[str, str]) -> None:
    for name in _environment().keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _file_mode_mask() -> int:
    mask = os.umask(0o077)  # it cannot be read without being set
    os.umask(mask)
    return mask


def _limits() -> Mapping[str, tuple[int, int]]:
    return {f"limit {n}": resource.getrlimit(v) for n, v in _LIMITS.items()}


def _put_limits(limits: Mapping[str, tuple[int, int]]) -> None:
    for name, limit in limits.items():
        resource.setrlimit(_LIMITS[name.removeprefix("limit ")], limit)


def _garbage_collection() -> tuple[bool, tuple[int, int, int]]:
    return gc.isenabled(), gc.get_threshold()


def _put_garbage_collection(value: tuple[bool, tuple[int, int, int]]) -> None:
    enabled, threshold = value
    gc.set_threshold(*threshold)
    (gc.enable if enabled else gc.disable)()


def _trace_functions() -> tuple[Any, ...]:
    return sys.gettrace(), threading.gettrace(), tracemalloc.is_tracing()


def _put_trace_functions(value: tuple[Any, ...]) -> None:
    sys.settrace(value[0])
    threading.settrace(value[1])
    if tracemalloc.is_tracing() and not value[2]:
        tracemalloc.stop()


def _profile_functions() -> tuple[Any, ...]:
    # From Python 3.12 on, profilers may also be tools of `sys.monitoring`.
    monitoring = getattr(sys, "monitoring", None)
    tools = [] if monitoring is None else [monitoring.get_tool(n) for n in range(6)]
    return sys.getprofile(), threading.getprofile(), tools


def _put_profile_functions(value: tuple[Any, ...]) -> None:
    sys.setprofile(value[0])
    threading.setprofile(value[1])


_STREAMS = ("stdin", "stdout", "stderr")


def _streams() -> list[tuple[Any, Any]]:
    """Return each standard stream, and whether it is closed."""
    streams = [getattr(sys, name, None) for name in _STREAMS]
    return [(stream, getattr(stream, "closed", None)) for stream in streams]


def _put_streams(streams: list[tuple[Any, Any]]) -> None:
    for name, (stream, _) in zip(_STREAMS, streams, strict=True):
        setattr(sys, name, stream)


def _start_method() -> str:
    # The first process of multiprocessing chooses its default, which changes nothing.
    default = multiprocessing.get_all_start_methods()[0]
    return multiprocessing.get_start_method(allow_none=True) or default


def _put_start_method(method: str) -> None:
    multiprocessing.set_start_method(method, force=True)


def _raised_warnings() -> list[Any]:
    """Return the filters that turn warnings into errors; others change no numbers."""
    return [f for f in warnings.filters if f[0] == "error"]


def _put_raised_warnings(filters: list[Any]) -> None:
    # The list itself may belong to a `catch_warnings` of a caller.
    others = [f for f in warnings.filters if f[0] != "error"]
    warnings.filters[:] = [*filters, *others]  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


_ON_LINUX = [
    Value(
        "cores of the process",
        lambda: os.sched_getaffinity(0),
        lambda v: os.sched_setaffinity(0, v),
    ),
    Value("scheduling", lambda: os.sched_getscheduler(0)),
]

VALUES: tuple[Value, ...] = (
    *(_ON_LINUX if sys.platform == "linux" else []),
    Value("numpy's error handling", np.geterr, lambda v: np.seterr(**v)),
    Value("numpy's error callback", np.geterrcall, np.seterrcall),
    Value("numpy's buffer size", np.getbufsize, np.setbufsize),
    Value("floating-point mode", _floating_point_mode),
    Value("standard streams", _streams, _put_streams),
    Value("multiprocessing's start method", _start_method, _put_start_method),
    Value(
        "locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda v: locale.setlocale(locale.LC_ALL, v),
    ),
    Value("signal handlers", _signal_handlers, _put_signal_handlers),
    Value("current folder", _current_folder, os.chdir),
    Value(ENVIRONMENT, _environment, _put_environment, parts=True),
    Value("file mode mask", _file_mode_mask, os.umask),
    Value("limits", _limits, _put_limits, parts=True),
    Value("niceness", lambda: os.nice(0)),
    Value("garbage collection", _garbage_collection, _put_garbage_collection),
    Value("trace functions", _trace_functions, _put_trace_functions),
    Value("profile functions", _profile_functions, _put_profile_functions),
    Value("switch interval", sys.getswitchinterval, sys.setswitchinterval),
    Value("warnings that are errors", _raised_warnings, _put_raised_warnings),
)


def recursion_limit() -> Value:
    """Return the present limit, which torch's compiler raises."""
    limit = sys.getrecursionlimit()

    def get() -> int:
        return min(limit, sys.getrecursionlimit())

    return Value("recursion limit", get, sys.setrecursionlimit)


def search_path() -> Value:
    """Return the folders that are on Python's path now.

    A plugin may add others, so that it finds its own modules.
    """
    known = set(map(str, sys.path))

    def put(path: list[str]) -> None:
        sys.path[:] = [*path, *(p for p in sys.path if str(p) not in known)]

    return Value(
        "module search path",
        # A folder that is there twice counts where it is found first.
        lambda: list(dict.fromkeys(p for p in map(str, sys.path) if p in known)),
        put,
    )


def pools() -> list[Value]:
    """Return the threads of the BLAS and OpenMP libraries that are loaded."""
    # Imported here, as only a process that runs plugins needs it.
    from threadpoolctl import ThreadpoolController

    found = {}
    for pool in ThreadpoolController().lib_controllers:
        name = f"threads of {pool.prefix}"
        found[name] = Value(name, pool.get_num_threads, pool.set_num_threads)
    return [*found.values()]
