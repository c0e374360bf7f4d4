"""Check what a plugin gives: the arguments it declares, and what its factory returns.

What a factory returned must have the methods of its contract.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from harness.errors import PluginError, shown

MOST_LETTERS = 100
"""The longest name of a plugin; reports and file names are made of several."""

MOST_ITEMS = 1000
"""The most items of a list or a table in a declaration, and plugins of a file."""

# --- declared arguments --------------------------------------------------------------


@dataclass(frozen=True)
class Allowed:
    """What an argument of a declaration may be.

    Attributes:
        words: It in words, to follow "must be".
        holds: Says whether a value of any type is allowed.
        kept: Makes a copy of a value that its author could change later.
    """

    words: str
    holds: Callable[[Any], bool]
    kept: Callable[[Any], Any] | None = None


def is_name(value: object) -> bool:
    """Say whether a value is the name of a plugin."""
    form = r"[a-z0-9]+(-[a-z0-9]+)*"
    return _is_of_form(value, form) and len(str(value)) <= MOST_LETTERS


def check_name(kind: str, name: object) -> None:
    """Check the name of a plugin.

    Raises:
        ValueError: If it is not one.
    """
    if not is_name(name):
        raise ValueError(
            f"{kind} name {shown(name)}: use lower-case letters, digits and single "
            f"hyphens, at most {MOST_LETTERS}, such as 'my-gru'"
        )


def is_line(value: object) -> bool:
    """Say whether a value is one line that a terminal shows as it is."""
    return isinstance(value, str) and len(value) <= 1000 and value.isprintable()


def is_word(value: object) -> bool:
    """Say whether a value is a word such as `float32`."""
    return _is_of_form(value, r"\w([\w.-]*\w)?")


def is_module(value: object) -> bool:
    """Say whether a value may be the name of a Python module."""
    return is_line(value) and all(map(str.isidentifier, str(value).split(".")))


def is_reference(value: object) -> bool:
    """Say whether a value has the form `module:callable`."""
    return _is_of_form(value, r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_list(value: object, holds: Callable[[Any], bool], least: int = 1) -> bool:
    """Say whether a value holds at least so many of a kind."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | Set):
        return False
    return len(value) >= least and all(map(holds, value))


def is_long(value: object) -> bool:
    """Say whether a list or a table has more items than a declaration may have."""
    if isinstance(value, str | bytes):
        return False
    return isinstance(value, Sequence | Set | Mapping) and len(value) > MOST_ITEMS


def list_of(
    what: str, example: str, holds: Callable[[Any], bool], least: int = 1
) -> Allowed:
    """Return what is allowed where a list is asked for."""
    words = f"a list of {what}, such as {example}"
    return Allowed(words, lambda value: is_list(value, holds, least), tuple)


def or_none(allowed: Allowed) -> Allowed:
    """Return what is allowed if an argument may be left out."""
    words = f"{allowed.words}, or None"
    return Allowed(words, lambda value: value is None or allowed.holds(value))


def _is_of_form(value: object, form: str) -> bool:
    return is_line(value) and re.fullmatch(form, str(value)) is not None


def _is_variables(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        _is_of_form(name, r"[A-Za-z_]\w*") and str(name).isascii() and is_line(content)
        for name, content in value.items()
    )


LINE = Allowed("one line of printable text, of at most 1000 characters", is_line)
FLAG = Allowed("True or False", lambda value: isinstance(value, bool))
REFERENCE = Allowed(
    "of the form 'module:callable' (a module's name has no hyphen or space)",
    is_reference,
)
VARIABLES = Allowed(
    "text by the name of a variable, such as {'KERAS_BACKEND': 'jax'}",
    _is_variables,
    dict,
)


def _is_range(value: Any) -> bool:
    # An integer may be too large for `math.isfinite`.
    numbers = is_list(value, lambda n: isinstance(n, int | float) and abs(n) < math.inf)
    pair = numbers and isinstance(value, Sequence) and len(value) == 2
    return pair and bool(value[0] < value[1])


def _is_ranges(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        is_line(part) and _is_range(given) for part, given in value.items()
    )


RANGES = Allowed(
    "two finite numbers by state part, the lower one first, such as {'h': (0.1, 1.0)}",
    _is_ranges,
    lambda value: {part: tuple(given) for part, given in value.items()},
)

# --- what a factory returned ---------------------------------------------------------


def check_call(
    found: Callable[..., Any],
    arguments: Sequence[str],
    plugin: str,
    *,
    by_position: bool = False,
) -> None:
    """Check that a callable takes these arguments, by name or by position.

    Raises:
        PluginError: Naming the argument that does not fit.
    """
    name = getattr(found, "__name__", type(found).__name__)
    expected = f"({', '.join(arguments)})"
    placed, named = (arguments, ()) if by_position else ((), arguments)
    _check_arguments(found, name, placed, named, expected, plugin)


def check_methods(found: object, protocol: type, plugin: str) -> None:
    """Check that an object has every method of a protocol, with its arguments.

    Raises:
        PluginError: Naming the method or argument that is missing or wrong.
    """
    for base in protocol.__mro__:
        for name, expected in vars(base).items():
            if name.startswith("_"):
                continue
            if not hasattr(found, name):
                raise PluginError(
                    plugin,
                    f"{type(found).__name__} lacks '{name}', which a "
                    f"{protocol.__name__} must have",
                )
            if inspect.isfunction(expected):
                _check_method(getattr(found, name), expected, plugin)


def _check_method(found: object, expected: Callable[..., Any], plugin: str) -> None:
    name = expected.__name__
    wanted = inspect.signature(expected)
    parameters = list(wanted.parameters.values())[1:]  # without self
    wanted = wanted.replace(
        parameters=[p.replace(annotation=inspect.Parameter.empty) for p in parameters],
        return_annotation=inspect.Signature.empty,
    )
    if not callable(found):
        raise PluginError(plugin, f"'{name}' is not callable; expected {name}{wanted}")
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    placed = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    _check_arguments(found, name, placed, named, str(wanted), plugin)


def _check_arguments(
    found: Callable[..., Any],
    name: str,
    placed: Sequence[str],
    named: Sequence[str],
    expected: str,
    plugin: str,
) -> None:
    """Check that a callable takes arguments, some by position and some by name."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # some callables in C have no signature
        return
    try:
        signature.bind(*placed, **dict.fromkeys(named))
    except TypeError as error:
        raise PluginError(
            plugin,
            f"{name}{signature} has a wrong signature: {error}; expected "
            f"{name}{expected}",
        ) from error
