"""The process that reads what one plugin declares; `harness.declared` starts it.

The code of the plugin runs in a child. This process bounds its time and what it prints,
and ends everything that it has started. The child answers as a runner does: on a
channel that no copy of it can use.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from harness.declared import (
    MOST_ANSWER_BYTES,
    MOST_PRINTED,
    OF_DISTRIBUTION,
    Found,
    answer_to,
    ended,
    found_by,
    late,
    name_of,
    to_json,
)
from harness.errors import PluginError, describe_error, shortened
from harness.machine.orphans import adopt_orphans, end_descendants, end_with_parent
from harness.messages.channel import Channel
from harness.messages.pipe import EndingPipe, Message
from harness.registry import Registry, read_entry_points

_CLOSED = 117
"""The exit code of a child whose channel the plugin has closed."""

_LOOK_S = 0.01
_WAIT_S = 5.0
"""How long what was printed is waited for, after everything has ended."""


def main() -> NoReturn:
    """Read a plugin for the process that has started this one."""
    channel = Channel.of(*map(int, sys.argv[1:]))
    adopt_orphans()
    signal.signal(signal.SIGTERM, _end)
    end_with_parent(signal.SIGTERM)
    if (asked := channel.receive()) is None:
        os._exit(1)
    plugin, request, most_s = (asked.values[n] for n in ("plugin", "request", "most_s"))
    child = _Child(plugin, request)
    answer = child.answer(most_s)
    end_descendants(os.getpid())
    with contextlib.suppress(OSError):
        printed = child.printed.text()
        channel.send(Message({**answer, "request": request, "printed": printed}))
    os._exit(0)


def _end(number: int, frame: Any) -> None:
    end_descendants(os.getpid())
    os._exit(1)


class _Child:
    """A child that runs the code of a plugin."""

    def __init__(self, plugin: str, request: str) -> None:
        self._name, self._request = name_of(plugin), request
        self._answers, answering = os.pipe()
        source, printing = os.pipe()
        self._code: int | None = None
        self._id = os.fork()
        if self._id == 0:
            _run(plugin, request, answering, printing)
        os.close(answering)
        os.close(printing)
        self.printed = _Printed(source)

    def answer(self, most_s: float) -> dict[str, Any]:
        """Wait for the answer of the child, or make one that says why there is none."""
        until_s = time.monotonic() + most_s

        def is_late() -> bool:
            return time.monotonic() > until_s

        source = EndingPipe(self._answers, lambda: is_late() or self._has_ended())
        channel = Channel(io.BufferedReader(source), io.BytesIO())
        found = answer_to(self._request, channel)
        if found is not None:
            return {"found": found.get("found")}
        while not self._has_ended() and not is_late():
            time.sleep(_LOOK_S)  # it may have closed the pipe before it ends
        if self._code is not None:
            reason = ended(self._code)
            if self._code == _CLOSED:
                reason = (
                    "closes an open file that is not its own when its declarations are "
                    "read; close only files that it has opened"
                )
        else:
            reason = late(most_s)
        return {"found": [to_json(PluginError(self._name, reason))]}

    def _has_ended(self) -> bool:
        if self._code is None:
            found, status = os.waitpid(self._id, os.WNOHANG)
            if found:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is not None


class _Printed:
    """What the child prints: its beginning and its end, however much it is."""

    def __init__(self, source: int) -> None:
        self._source, self._kept, self._dropped = source, bytearray(), 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._source, 1 << 16):
                self._kept += data
                if (more := len(self._kept) - 4 * MOST_PRINTED) > 0:
                    # Of UTF-8, a character may take four bytes.
                    del self._kept[2 * MOST_PRINTED : 2 * MOST_PRINTED + more]
                    self._dropped += more

    def text(self) -> str:
        """Return what was printed, after the child has ended."""
        self._thread.join(_WAIT_S)
        return shortened(self._kept.decode(errors="replace"), MOST_PRINTED)


# --- in the child --------------------------------------------------------------------


def _run(plugin: str, request: str, answering: int, printing: int) -> NoReturn:
    """Run the code of a plugin, answer, and end; a thread of it may still run."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in (1, 2):
            os.dup2(printing, number)
        os.close(printing)
        channel = Channel(io.BytesIO(), os.fdopen(answering, "wb"))
        message = _answer(plugin, request)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # it may be the plugin's own
                stream.flush()
        try:
            channel.send(message)
            code = 0
        except (OSError, ValueError):
            code = _CLOSED
    finally:
        os._exit(code)


def _answer(plugin: str, request: str) -> Message:
    found = _in_words(lambda: _read(plugin), plugin)
    message = _message(found, request, plugin)
    if message is None:
        reason = f"declares more than {MOST_ANSWER_BYTES >> 20} MiB; declare less"
        message = _message([PluginError(name_of(plugin), reason)], request, plugin)
    assert message is not None
    return message


def _read(plugin: str) -> list[Found]:
    if plugin.startswith(OF_DISTRIBUTION):
        return read_entry_points(plugin.removeprefix(OF_DISTRIBUTION))
    return [found_by(partial(Registry.given("[]").read_file, Path(plugin)))]


def _in_words(read: Callable[[], list[Found]], plugin: str) -> list[Found]:
    try:
        return read()
    except BaseException as error:  # whatever the plugin raises
        return [PluginError(name_of(plugin), describe_error(error))]


def _message(found: list[Found], request: str, plugin: str) -> Message | None:
    """Return the answer, or None if it is too long."""
    try:
        values = {"request": request, "found": [to_json(each) for each in found]}
        text = json.dumps(values)
    except Exception as error:  # a value may be of any class of the plugin
        reason = f"what it declares cannot be stored: {describe_error(error)}"
        return _message([PluginError(name_of(plugin), reason)], request, plugin)
    # The line of a message is a little longer; it also holds what is printed.
    room = MOST_ANSWER_BYTES - 16 * MOST_PRINTED
    return Message(json.loads(text)) if len(text) < room else None


if __name__ == "__main__":
    main()
