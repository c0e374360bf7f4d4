"""What all code of a process shares, and what some code has changed of it.

A changed function, floating-point mode or default changes what other code of the same
process computes, or how long it takes.
"""

from __future__ import annotations

import builtins
import contextlib
import locale
import math
import os
import signal
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

ProcessState = Mapping[str, Any]
"""Values by name, which are equal as long as nobody changes them."""


def process_state() -> ProcessState:
    """Return what this process's code shares, apart from what a framework has."""
    return {
        **_functions(),
        "numpy's error handling": np.geterr(),
        "numpy's error callback": np.geterrcall(),
        "numpy's buffer size": np.getbufsize(),
        "floating-point mode": _floating_point_mode(),
        "locale": locale.setlocale(locale.LC_ALL),
        "signal handlers": {n: signal.getsignal(n) for n in _SIGNALS},
        "current folder": _current_folder(),
    }


def changes(before: ProcessState, after: ProcessState) -> list[str]:
    """Return the names of what differs, each with both values if they are short."""
    return [
        f"{name}{_both(old, after.get(name))}"
        for name, old in before.items()
        if not _equal(old, after.get(name))
    ]


def restore(before: ProcessState) -> None:
    """Undo what has been changed, apart from the floating-point mode."""
    for module in _MODULES:
        for name, was in before.items():
            of, _, own = name.rpartition(".")
            if of == module.__name__ and vars(module).get(own) is not was:
                setattr(module, own, was)
    np.seterr(**before["numpy's error handling"])
    np.seterrcall(before["numpy's error callback"])
    np.setbufsize(before["numpy's buffer size"])
    locale.setlocale(locale.LC_ALL, before["locale"])
    for number, handler in before["signal handlers"].items():
        if signal.getsignal(number) is not handler:
            with contextlib.suppress(ValueError, TypeError):  # another thread, or of C
                signal.signal(number, handler)
    with contextlib.suppress(OSError):
        os.chdir(before["current folder"])


def _both(old: Any, new: Any) -> str:
    if all(isinstance(value, str | int | float) for value in (old, new)):
        texts = [str(value) for value in (old, new)]
        if max(map(len, texts)) <= 40:
            return f" (was {texts[0]}, is {texts[1]})"
    return ""


def _equal(old: Any, new: Any) -> bool:
    if callable(old):
        return old is new
    try:
        return bool(old == new)
    except Exception:  # an object of a plugin may compare as it likes
        return False


_MODULES: tuple[ModuleType, ...] = (
    builtins,
    math,
    os,
    time,
    np,
    np.linalg,
    np.random,
)


def _functions() -> ProcessState:
    """Return every public function of the modules that computing relies on."""
    return {
        f"{module.__name__}.{name}": value
        for module in _MODULES
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value)
    }


_SIGNALS = tuple(sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))


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


def _current_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109  # it raises if the folder was removed
    except OSError:
        return "removed"
