"""The process of a runner: how it is started, asked and ended."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import InputError, PluginError, RefusedError, UnavailableError
from harness.messages.channel import Channel
from harness.messages.pipe import Message, MessageError
from harness.messages.process import start
from harness.runner.codec import ObjectId, decode, encode

MOST_WAITING = 64
"""Most requests whose answers are not read yet: the pipe holds these answers."""

_END_S = 5.0
"""How long a runner may take to end by itself."""


class RunnerError(Exception):
    """Code of an implementation raised; the text is what a user reads.

    Attributes:
        out_of_memory: Whether memory was missing.
    """

    def __init__(self, text: str, out_of_memory: bool) -> None:
        super().__init__(text)
        self.out_of_memory = out_of_memory


class RunnerDiedError(Exception):
    """The runner ended, or answered with what is not an answer.

    Attributes:
        returncode: Its exit code; negative for a signal.
        answered: What is wrong with its answer, or None if there was none.
    """

    def __init__(self, returncode: int, answered: str | None = None) -> None:
        super().__init__(answered or f"the runner ended with {returncode}")
        self.returncode = returncode
        self.answered = answered


class RunnerProcess:
    """A runner in a process of its own, which is started when it is first needed.

    Args:
        declared: The declarations of plugins that do not belong to this project.

    Attributes:
        written: A sentence for each array that a network was given and wrote into.
    """

    def __init__(self, declared: str) -> None:
        self._declared = declared
        self.written: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._waiting: deque[str] = deque()
        self._freed: list[int] = []

    # --- requests --------------------------------------------------------------------

    def ask(self, of: ObjectId | None, method: str, *given: Any) -> Any:
        """Call a method there and return its result.

        Args:
            of: The object, or None for the runner itself.
            method: The method.
            given: Its arguments.

        Raises:
            RunnerError: If the method raises.
            RunnerDiedError: If the process ends.
        """
        self._request(of, method, given, None)
        while len(self._waiting) > 1:
            self._answer()
        return self._answer()

    def make(
        self, of: ObjectId | None, method: str, *given: Any, wait: bool = True
    ) -> ObjectId:
        """Call a method there whose result stays there.

        Args:
            of: The object, or None for the runner itself.
            method: The method.
            given: Its arguments.
            wait: False to return at once; a later call raises if this one has raised.
        """
        made = ObjectId(next(self._numbers))
        self._request(of, method, given, made)
        while len(self._waiting) > (0 if wait else MOST_WAITING):
            self._answer()
        return made

    def free(self, id: ObjectId) -> None:
        """Forget an object there, with the next request."""
        self._freed.append(id.number)

    def forget(self) -> None:
        """Forget what is left of earlier trials: arrays written into, and mistakes."""
        with contextlib.suppress(RunnerDiedError):  # the next request reports it
            while self._waiting:
                with contextlib.suppress(*_MISTAKES):
                    self._answer()
        self.written.clear()

    def _request(
        self,
        of: ObjectId | None,
        method: str,
        given: Sequence[Any],
        made: ObjectId | None,
    ) -> None:
        channel = self.start()
        name = f"{self._name}-{next(self._numbers)}"
        freed, self._freed = self._freed, []
        asked = {
            "request": name,
            "of": of,
            "method": method,
            "given": tuple(given),
            "made": made,
            "freed": freed,
        }
        try:
            channel.send(encode(asked))
        except OSError:
            raise self._death() from None
        self._waiting.append(name)

    def _answer(self) -> Any:
        """Receive the answer to the request that waits longest."""
        try:
            answer = self._received()
            self.written += map(str, answer["written"])
            error = answer.get("error")
            found = answer["found"] if error is None else _raised(error)
        except (MessageError, ValueError, KeyError, TypeError) as wrong:
            self.kill()
            raise RunnerDiedError(0, f"sent {wrong}") from None
        self._waiting.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    def _received(self) -> dict[str, Any]:
        """Return the next message that answers the request that waits longest."""
        assert self._channel is not None
        while (message := self._channel.receive()) is not None:
            # A copy of the process may answer an earlier request once more.
            if message.values.get("request") == self._waiting[0]:
                return decode(message)
        raise self._death()

    # --- the process -----------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether it was ever needed."""
        return self._process is not None

    def start(self) -> Channel:
        """Start the process unless it runs; return the channel to it."""
        if self._channel is not None:
            return self._channel
        self._process, self._channel = start("harness.runner.serve")
        self._channel.send(Message({"declared": self._declared}))
        return self._channel

    def _death(self) -> RunnerDiedError:
        assert self._process is not None
        try:
            return RunnerDiedError(self._process.wait(_END_S))
        except subprocess.TimeoutExpired:
            self.kill()
        return RunnerDiedError(
            0,
            "closed the pipe on which its process answers; close only files of its own",
        )

    def close(self) -> None:
        """Let the process end by itself; kill it if it does not."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        self.kill()

    def kill(self) -> None:
        """Kill the process; what it started is left to its parent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


_MISTAKES = (PluginError, RefusedError, InputError, RunnerError)


def _raised(error: Mapping[str, Any]) -> Exception:
    """Return the exception that a runner described."""
    text = str(error["text"])
    match error["type"]:
        case "UnavailableError":
            return UnavailableError(str(error["plugin"]), text)
        case "PluginError":
            return PluginError(str(error["plugin"]), text)
        case "RefusedError":
            return RefusedError(text)
        case "InputError":
            return InputError(text)
    return RunnerError(text, bool(error["out_of_memory"]))
