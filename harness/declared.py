"""Declarations of plugins as JSON, and how they are read in a process of their own.

Reading a declaration runs the plugin's file or module. Another plugin's code must not
run in a process that judges or analyses, so each is read in a process of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.declarations import (
    CellDeclaration,
    Declaration,
    FrameworkDeclaration,
    ImplementationDeclaration,
    TaskDeclaration,
)
from harness.errors import (
    MOST_REASON,
    PluginError,
    UnavailableError,
    error_text,
    shortened,
    signal_name,
)
from harness.messages.channel import Channel
from harness.messages.pipe import Message, MessageError
from harness.messages.process import start
from harness.printing import echo

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
        plugin, reason = values["plugin"], values["reason"]
        if not isinstance(plugin, str) or not isinstance(reason, str):
            raise TypeError("a reason is not text")
        return kind(shortened(plugin), shortened(reason, MOST_REASON))
    return [_declaration(dict(each)) for each in values["declares"]]


def _declaration(values: dict[str, Any]) -> Declaration:
    kind: Any = _KINDS[values.pop("kind")]
    file = values.pop("file")
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    made: Declaration = kind(**given, file=None if file is None else Path(file))
    if not isinstance(made.origin, str):
        raise TypeError("an origin is not text")
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


# --- in processes of their own -------------------------------------------------------

OF_DISTRIBUTION = "distribution:"

MOST_S = 180.0
"""How long the code of a plugin file may take; a framework is imported in 60 s even
beside many other processes."""

MOST_ANSWER_BYTES = 1 << 22
"""Room for a thousand declarations, a thousand times what a plugin file declares."""

MOST_PRINTED = 10_000
"""The most characters that are shown of what a plugin prints."""

_AT_ONCE = 8
"""Plugins that are read at the same time; the two processes of each take 100 MB."""

_GRACE_S = 20.0
"""How long the process that reads a plugin may take to end everything in it."""

_END_S = 0.5
"""How long it may take to end by itself after its answer."""

_ONLY_DECLARES = "; a plugin file declares, and does everything else in its functions"


def read_apart(plugins: Sequence[str]) -> list[Found]:
    """Read plugins, each in processes of its own; show what they print.

    Args:
        plugins: Plugin files, or "distribution:NAME" for all that one declares.
    """
    found: list[Found] = []
    waiting = deque(plugins)
    reading: deque[_Reading] = deque()
    try:
        while waiting or reading:
            while waiting and len(reading) < _AT_ONCE:
                reading.append(_Reading(waiting.popleft()))
            found += reading[0].found()
            reading.popleft()
    finally:
        for each in reading:
            each.end()
    return found


class _Reading:
    """A process that reads one plugin."""

    def __init__(self, plugin: str) -> None:
        self._plugin, self._request = plugin, secrets.token_hex(8)
        late_s = time.monotonic() + MOST_S + _GRACE_S
        self._process, self._channel = start(
            "harness.read_plugin",
            lambda: time.monotonic() > late_s,
            stdout=2,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        asked = {"request": self._request, "plugin": plugin, "most_s": MOST_S}
        with contextlib.suppress(OSError):  # it has ended, and `found` reports it
            self._channel.send(Message(asked))

    def found(self) -> list[Found]:
        """Wait; return what the plugin declares, or why it cannot be read."""
        try:
            answer = answer_to(self._request, self._channel)
        finally:
            self.end()
        name = name_of(self._plugin)
        if answer is None:
            return [PluginError(name, ended(self._process.returncode))]
        for line in str(answer.get("printed", "")).splitlines():
            echo(f"{name}: {line}", err=True)
        found = found_in(answer, name)
        return [
            [replace(d, file=Path(self._plugin)) for d in each]
            if isinstance(each, list) and not self._plugin.startswith(OF_DISTRIBUTION)
            else each
            for each in found
        ]

    def end(self) -> None:
        """End the process and everything that the plugin has started."""
        self._channel.close()
        try:
            self._process.wait(_END_S)  # it has answered, or is asked to end
        except subprocess.TimeoutExpired:
            self._process.terminate()  # it ends its descendants
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def answer_to(request: str, channel: Channel) -> Mapping[str, Any] | None:
    """Return the answer to a request, or None if the other side has closed.

    What is not an answer to it was written by somebody else; then the answer says so.
    """
    try:
        message = channel.receive(MOST_ANSWER_BYTES)
        if message is None:
            return None
        if message.values.get("request") == request:
            return message.values
    except MessageError:
        pass
    return _refusal(
        "writes into an open file that is not its own when its declarations are read; "
        "write only into files that it has opened"
    )


def _refusal(reason: str) -> Mapping[str, Any]:
    return {"found": [{"plugin": None, "reason": reason, "available": True}]}


def found_in(answer: Mapping[str, Any], name: str) -> list[Found]:
    """Return what an answer says that a plugin declares.

    Args:
        answer: The values of a message.
        name: What the plugin is called if the answer is not one.
    """
    try:
        found = [{**each} for each in answer["found"]]
        for each in found:
            if "reason" in each and each["plugin"] is None:
                each["plugin"] = name
        return [from_json(each) for each in found]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"what it declares cannot be read ({error_text(error)})"
        return [PluginError(name, f"{reason}; call only the declare_…() functions")]


def name_of(plugin: str) -> str:
    """Return what messages call a plugin that cannot be read."""
    return Path(plugin.removeprefix(OF_DISTRIBUTION)).name


def ended(code: int) -> str:
    """Return how a process has ended that should have read a plugin."""
    how = f"ends with {signal_name(-code)}" if code < 0 else f"exits with {code}"
    return f"{how} when its declarations are read{_ONLY_DECLARES}"


def late(most_s: float) -> str:
    """Return that a plugin takes too long."""
    how = f"takes longer than {most_s:g} s when its declarations are read"
    return f"{how}{_ONLY_DECLARES}"
