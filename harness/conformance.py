"""Check that what a plugin's factory returned has the methods of its contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from harness.errors import PluginError


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
