"""Functions and methods that all code of a process shares.

Whoever replaces one changes what others compute.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

Holder = ModuleType | type
"""What holds functions: a module, or a class with its methods."""


class Functions:
    """The functions of some modules and classes, as they are when this is made.

    A name that a module gets later is ignored, as modules import parts of theirs when
    they are first used. A method that a class gets later counts if it hides one of a
    base class. Nothing is imported by looking.

    Args:
        holders: The modules and classes.
        packages: Packages of whose modules all that are imported are looked at, with
            the classes that they define. A module that is imported later is looked at
            from then on.
    """

    def __init__(
        self, holders: Iterable[Holder], packages: Collection[str] = ()
    ) -> None:
        self._held: dict[int, _Held] = {}
        self._packages = packages
        self._modules = 0
        for holder in holders:
            self._add(holder)
        self._add_imported()

    def changed(self) -> list[str]:
        """Return the names of those that are others now."""
        found = [name for held in self._held.values() for name in held.changed()]
        self._add_imported()
        return found

    def restore(self) -> None:
        """Put those back that are others now."""
        for held in self._held.values():
            held.restore()

    def _add(self, holder: Holder) -> None:
        self._held.setdefault(id(holder), _Held(holder))

    def _add_imported(self) -> None:
        if not self._packages or len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        for name, module in [*sys.modules.items()]:
            if _package(name) in self._packages and id(module) not in self._held:
                self._add(module)
                for value in [*vars(module).values()]:
                    if isinstance(value, type) and value.__module__ == name:
                        self._add(value)


def imported(names: Iterable[str]) -> list[ModuleType]:
    """Return those of some modules that are imported already."""
    return [module for name in names if (module := sys.modules.get(name)) is not None]


class _Held:
    """The functions of one module or class."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._now: Mapping[str, Any] = vars(holder)
        # Comparing with a whole copy takes 20 ns a name, since what is identical is
        # equal; looking at each function takes ten times as long.
        self._copy = dict(self._now)
        self._functions = {n: v for n, v in self._copy.items() if _computes(v)}

    def changed(self) -> Iterator[str]:
        if self._is_as_copied():
            return
        names = [*self._changed()]
        if not names:  # other values of the module have changed
            self._copy = dict(self._now)
        yield from (f"{_name(self._holder)}.{name}" for name in names)

    def _is_as_copied(self) -> bool:
        try:
            return bool(self._now == self._copy)
        except Exception:  # arrays, and whatever an object of a plugin may do
            return False

    def _changed(self) -> Iterator[str]:
        for name, was in [*self._functions.items()]:
            now = self._now.get(name)
            if now is was:
                continue
            if self._wraps(now, [was]):
                self._functions[name] = now
            else:
                yield name
        if isinstance(self._holder, type):
            yield from self._hiding(self._holder)

    def _wraps(self, now: Any, earlier: Sequence[Any]) -> bool:
        """Say whether a function is an earlier one, wrapped by its own library.

        torch does so when it makes the first optimiser of a class or compiles.
        """
        library = _package(getattr(self._holder, "__module__", self._holder.__name__))
        return any(f is was for f in _inside(now, library) for was in earlier)

    def _hiding(self, of: type) -> Iterator[str]:
        """Yield the methods that were inherited and are the class's own now."""
        for name in [*self._now.keys() - self._copy.keys()]:
            now, bases = self._now[name], of.__mro__[1:]
            was = next((vars(base)[name] for base in bases if name in vars(base)), None)
            if was is None or not _computes(now):
                continue
            # That of the base class may have been wrapped in the meantime.
            if not self._wraps(now, [was, *_inside(was, _package(of.__module__))]):
                yield name

    def restore(self) -> None:
        for name in [] if self._is_as_copied() else [*self._changed()]:
            if name in self._functions:
                setattr(self._holder, name, self._functions[name])
            else:
                delattr(self._holder, name)


_MOST_WRAPPED = 4
"""How many functions of its library may be around a function."""


def _inside(function: Any, library: str) -> list[Any]:
    """Return the functions that functions of a library are wrapped around here."""
    found, inner = [], [function]
    for _ in range(_MOST_WRAPPED):
        inner = [v for f in inner if _defined_in(f, library) for v in _closed_over(f)]
        found += inner
    return found


def _defined_in(function: Any, library: str) -> bool:
    module = getattr(function, "__globals__", {}).get("__name__")
    return _package(module) == library


def _closed_over(function: Any) -> Iterator[Any]:
    """Yield the functions that a function says it wraps, or closes over."""
    values = [getattr(function, "__wrapped__", None)]
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # an empty cell
            values.append(cell.cell_contents)
    yield from filter(inspect.isroutine, values)


def _package(module: object) -> str:
    return str(module).partition(".")[0]


def _computes(value: Any) -> bool:
    """Say whether a value is called, also as a method or for an attribute."""
    return callable(value) or isinstance(value, property | classmethod | staticmethod)


def _name(holder: Holder) -> str:
    """Return the name under which a user knows a module or a class."""
    if isinstance(holder, type):
        return f"{holder.__module__}.{holder.__qualname__}"
    return holder.__name__.replace("._api.v2", "")  # TensorFlow's public modules
