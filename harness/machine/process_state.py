"""What all code of a process shares, and what some code has changed of it.

A changed function, floating-point mode or default changes what other code of the same
process computes, or how long it takes.
"""

from __future__ import annotations

import builtins
import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from harness.machine.functions import Functions, Holder
from harness.machine.process_values import (
    ENVIRONMENT,
    VALUES,
    Value,
    pools,
    recursion_limit,
    search_path,
)

OWN_PACKAGES = ("harness", "implementations", "tasks")
"""The packages of this project."""

_HOLDERS: tuple[Holder, ...] = (
    builtins,
    math,
    os,
    time,
    np,
    np.linalg,
    np.random,
)


class ProcessState:
    """What this process's code shares, as it is when this is made.

    Args:
        holders: Modules and classes whose functions are compared, beside those of
            Python, of numpy and of this project.
        settings: Returns values by name that a framework shares.
    """

    def __init__(
        self,
        holders: Iterable[Holder] = (),
        settings: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._functions = Functions((*_HOLDERS, *holders), OWN_PACKAGES)
        self._values = (
            *VALUES,
            search_path(),
            recursion_limit(),
            *pools(),
            Value("the framework's settings", settings, parts=True),
        )
        self._before = [_read(value.get) for value in self._values]

    def changes(self) -> list[str]:
        """Return the names of what differs now, each with both values if short."""
        found = self._functions.changed()
        for value, old in zip(self._values, self._before, strict=True):
            now = _read(value.get)
            if not _equal(old, now):
                found += _described(value, old, now)
        return found

    def restore(self) -> None:
        """Undo what has been changed, apart from what cannot be or is a framework's."""
        self._functions.restore()
        for value, old in zip(self._values, self._before, strict=True):
            if value.put is not None and not _equal(old, _read(value.get)):
                with contextlib.suppress(Exception):  # such as what a user may not do
                    value.put(old)


def _read(get: Callable[[], Any]) -> Any:
    """Return a value, or why it cannot be read, which is a change as well."""
    try:
        return get()
    except Exception as error:
        return f"unreadable: {type(error).__name__}"


def _equal(old: Any, new: Any) -> bool:
    if old is new:
        return True
    try:
        return not callable(old) and bool(old == new)
    except Exception:  # an object of a plugin may compare as it likes
        return False


def _described(value: Value, old: Any, new: Any) -> Iterator[str]:
    if not (value.parts and isinstance(old, Mapping) and isinstance(new, Mapping)):
        yield value.name + _both(old, new)
        return
    for name in sorted({*old, *new}):
        if not _equal(old.get(name), new.get(name)):
            # An environment variable may hold what is secret.
            private = value.name == ENVIRONMENT
            both = "" if private else _both(old.get(name), new.get(name))
            yield f"{value.name} {name}" if private else f"{name}{both}"


def _both(old: Any, new: Any) -> str:
    if all(isinstance(value, str | int | float) for value in (old, new)):
        texts = [str(value) for value in (old, new)]
        if max(map(len, texts)) <= 40:
            return f" (was {texts[0]}, is {texts[1]})"
    return ""
