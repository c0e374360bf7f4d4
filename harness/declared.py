"""Declarations of plugins as JSON, and how they are read in a process of their own.

Reading a declaration runs the plugin's file or module. Another plugin's code must not
run in a process that judges or analyses, so each is read in a process of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.declarations import (
    CellDeclaration,
    Declaration,
    FrameworkDeclaration,
    ImplementationDeclaration,
    TaskDeclaration,
)
from harness.errors import PluginError, UnavailableError, signal_name

_KINDS: Mapping[str, type[Declaration]] = {
    each.kind: each
    for each in (
        FrameworkDeclaration,
        CellDeclaration,
        TaskDeclaration,
        ImplementationDeclaration,
    )
}

Found = list[Declaration] | PluginError
"""What one plugin declares, or why it cannot be read."""


def to_json(found: Found) -> dict[str, Any]:
    """Return what a plugin declares as JSON values."""
    if isinstance(found, PluginError):
        available = not isinstance(found, UnavailableError)
        return {"plugin": found.plugin, "reason": found.reason, "available": available}
    return {"declares": [_plain(each) for each in found]}


def _plain(declaration: Declaration) -> dict[str, Any]:
    values = dataclasses.asdict(declaration)
    file = None if declaration.file is None else str(declaration.file)
    return {**values, "file": file, "kind": declaration.kind}


def from_json(values: Mapping[str, Any]) -> Found:
    """Return what `to_json` was given.

    Raises:
        ValueError: If the values have another form.
        TypeError: If the values have another form.
        KeyError: If the values have another form.
    """
    if "reason" in values:
        kind = PluginError if values["available"] else UnavailableError
        return kind(values["plugin"], values["reason"])
    return [_declaration(dict(each)) for each in values["declares"]]


def _declaration(values: dict[str, Any]) -> Declaration:
    kind: Any = _KINDS[values.pop("kind")]
    file = values.pop("file")
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    made: Declaration = kind(**given, file=None if file is None else Path(file))
    return made


def to_text(found: Iterable[Found]) -> str:
    """Return what several plugins declare as one text, for another process."""
    return json.dumps([to_json(each) for each in found])


def from_text(text: str) -> list[Found]:
    """Return what `to_text` was given."""
    return [from_json(each) for each in json.loads(text)]


def found_by(read: Callable[[], list[Declaration]]) -> Found:
    """Return what a plugin declares, or the error with which reading it ended."""
    try:
        return read()
    except PluginError as error:
        return error


# --- in a process of its own ---------------------------------------------------------


def read_apart(plugins: Sequence[str]) -> list[Found]:
    """Read plugins, each in a process of its own, all at the same time.

    Args:
        plugins: Plugin files, or "distribution:NAME" for all that one declares.
    """
    reading = [_Reading(plugin) for plugin in plugins]
    return [found for each in reading for found in each.found()]


OF_DISTRIBUTION = "distribution:"
"""Begins the name of all that a distribution declares; a plugin file has its path."""

_PROGRAM = "harness.read_plugin"
_MOST_BYTES = 2**24


class _Reading:
    """A process that reads one plugin."""

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin
        self._source, target = os.pipe()
        # What a plugin prints is not the answer of a command, so it goes to stderr.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _PROGRAM, plugin, str(target)],
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=(target,),
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        os.close(target)

    def found(self) -> list[Found]:
        """Wait; return what the plugin declares, or why it cannot be read."""
        try:
            with os.fdopen(self._source, "rb") as source:
                line = source.readline(_MOST_BYTES)
            code = self._process.wait()
        finally:
            with contextlib.suppress(OSError):  # ends what it has started, too
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        try:
            return from_text(line.decode())
        except (ValueError, TypeError, KeyError, RecursionError):
            how = (
                f"ends with {signal_name(-code)}" if code < 0 else f"exits with {code}"
            )
            reason = f"{how} when its declarations are read"
            return [PluginError(Path(self._plugin).name, reason)]
