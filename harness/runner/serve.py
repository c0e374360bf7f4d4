"""The runner: it runs code of implementations and answers another process.

It is started with the numbers of two open descriptors, from which requests come and on
which answers go. All that a plugin prints goes to the log.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import sys
from dataclasses import dataclass
from typing import Any

from harness.contract import Handle
from harness.errors import (
    MOST_REASON,
    HarnessError,
    PluginError,
    describe_error,
    is_out_of_memory,
    made_safely,
    shortened,
)
from harness.machine.orphans import end_with_parent
from harness.messages.channel import Channel
from harness.messages.pipe import Message, MessageError
from harness.registry import Registry
from harness.runner.codec import ObjectId, decode, encode
from harness.runner.runner import InProcess


class Server:
    """Answers requests with a runner and the objects that it has made."""

    def __init__(self, runner: InProcess) -> None:
        self._runner = runner
        self._objects: dict[int, Any] = {}

    def answer(self, request: Message) -> Message:
        """Do what a request asks; an error is an answer too."""
        asked = decode(request)
        name, method = asked["request"], asked["method"]
        for number in asked["freed"]:
            self._objects.pop(number, None)
        try:
            found = self._call(asked["of"], method, asked["given"])
        except BaseException as error:  # no user interrupts this process
            return self.error(name, error)
        if asked["made"] is not None:
            self._objects[asked["made"].number] = found
            found = None
        try:
            return encode({"request": name, "found": found, "written": self._written()})
        except TypeError as error:  # a value that no network may return
            return self.error(name, TypeError(f"`{method}` returned {error}"))

    def _call(self, of: ObjectId | None, method: str, given: tuple[Any, ...]) -> Any:
        target = self._runner if of is None else self._objects[of.number]
        found = getattr(target, method)(*map(self._resolved, given))
        return found.read() if isinstance(found, Handle) else found

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, ObjectId):
            return self._objects[value.number]
        if isinstance(value, tuple):
            return tuple(map(self._resolved, value))
        return value

    def _written(self) -> list[str]:
        written = list(self._runner.written)
        self._runner.written.clear()
        return written

    def error(self, request: str, error: BaseException) -> Message:
        """Return the answer that a request has raised an exception of any kind."""
        try:
            described = _described(error)
        except BaseException:  # its class is a plugin's, and so are its attributes
            described = _Described(type(error).__name__[:MOST_REASON])
        error_values = dataclasses.asdict(described)
        return encode(
            {"request": request, "error": error_values, "written": self._written()}
        )


@dataclass(frozen=True)
class _Described:
    """What `harness.runner.process` makes an exception from."""

    text: str
    type: str = ""
    plugin: str = ""
    out_of_memory: bool = False


def _described(error: BaseException) -> _Described:
    text, kind, plugin = describe_error(error), "", ""
    if isinstance(error, PluginError):
        text = made_safely(lambda: error.reason, text)
        plugin = made_safely(lambda: error.plugin, "")
    elif isinstance(error, HarnessError):
        text = made_safely(lambda: str(error), text)
    if isinstance(error, HarnessError):
        kind = type(error).__name__
    missing = is_out_of_memory(error)
    return _Described(shortened(text, MOST_REASON), kind, plugin, missing)


def serve(server: Server, channel: Channel, request: Message) -> None:
    """Answer a request; what cannot be sent is an error of the one who returned it."""
    answer = server.answer(request)
    try:
        channel.send(answer)
    except MessageError as error:
        reason = f"`{request.values['method']}` returned what cannot be sent: {error}"
        channel.send(server.error(request.values["request"], TypeError(reason)))
    except MemoryError as error:
        channel.send(server.error(request.values["request"], error))


def main() -> None:
    """Answer requests until the other side closes."""
    faulthandler.enable()  # a crash in C then writes its Python stack to the log
    end_with_parent()
    channel = Channel.of(*map(int, sys.argv[1:]))
    first = channel.receive()
    if first is None:
        return
    server = Server(InProcess(Registry.given(first.values["declared"])))
    while (request := channel.receive()) is not None:
        serve(server, channel, request)


if __name__ == "__main__":
    main()
