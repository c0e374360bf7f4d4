"""The errors that are shown to users, and the exit code of each kind."""

from __future__ import annotations

import difflib
import re
import signal
import sysconfig
import traceback
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from pathlib import Path


class HarnessError(Exception):
    """A failure whose message is written for the user: no traceback is shown.

    It is expected, so its exit code is not that of a mistake of this program. Each
    argument is a line of the message; a line break inside of one, as may be in a name,
    is printed as a space.
    """

    exit_code = 2

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of the message."""
        return tuple(map(str, self.args))

    def __str__(self) -> str:
        return "\n".join(self.lines)


class MisuseError(HarnessError):
    """The user asked for something impossible: a bad file, an unknown name."""


class NothingMeasuredError(HarnessError):
    """No trial ran, or no trial has a result."""

    exit_code = 5


class PluginError(MisuseError):
    """A plugin cannot be used; `plugin` is its name.

    Its file is broken, its framework is missing, or a signature is wrong.
    """

    def __init__(self, plugin: str, reason: str) -> None:
        super().__init__(f"{plugin}: {reason}")
        self.plugin = plugin
        self.reason = reason


class UnavailableError(PluginError):
    """A plugin needs something that this machine does not have."""


class RefusedError(HarnessError):
    """A plugin does not offer what a trial needs."""


class InputError(HarnessError, ValueError):
    """The input of a network has a wrong shape, dtype or value."""


MOST_SHOWN = 100
"""The most characters of a user's own text or value in a message."""

_MOST_NAMES = 60
"""The most names that a message lists."""


def shortened(text: str, most: int = MOST_SHOWN) -> str:
    """Return a text whose middle is left out if it is longer than `most`."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 1]}…{text[-end:]}"


def bounded(message: str) -> str:
    """Return a message whose long words are shortened, as may be names in it."""
    words = re.sub(r"\S{301,}", lambda word: shortened(word[0], 200), message)
    return shortened(words, 20_000)


def shown(value: object) -> str:
    """Return a value of any type as a message shows it."""
    return shortened(made_safely(lambda: repr(value), f"a {type(value).__name__}"))


def made_safely(make: Callable[[], object], otherwise: str) -> str:
    """Return a text that code of a plugin makes, such as a `__repr__` or `__str__`.

    Args:
        make: Makes the text.
        otherwise: Is returned if that raises anything, or makes no text.
    """
    try:
        made = make()
        # A text of a plugin's own class would run its code again, where it is used.
        return str.__str__(made) if isinstance(made, str) else otherwise
    except KeyboardInterrupt:  # by the user
        raise
    except BaseException:
        return otherwise


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'gru'?" for a near miss, else the known names."""
    names = sorted(known)
    near = difflib.get_close_matches(shortened(name), names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {_listed(names)}" if names else "; none is known"


def _listed(names: Collection[str]) -> str:
    more = len(names) - _MOST_NAMES
    end = f" and {more} more" if more > 0 else ""
    return f"{', '.join(islice(names, _MOST_NAMES))}{end}"


def suggestion_and_names(name: str, known: Collection[str], what: str) -> str:
    """Return "; did you mean 'gru'? Allowed: gru, lstm", or "; allowed: gru, lstm".

    Args:
        name: The unknown name.
        known: All names.
        what: What they are, such as "allowed".
    """
    names = _listed(known)
    near = suggestion(name, known)
    if near.endswith("?"):
        return f"{near} {what.capitalize()}: {names}"
    return f"; {what}: {names}"


def error_text(error: BaseException) -> str:
    """Return "ValueError: text", or "ValueError" if it has no text."""
    name = shortened(type(error).__name__)
    text = made_safely(
        lambda: shortened(str(error), MOST_REASON), "its text cannot be read"
    )
    return f"{name}: {text}" if text else name


MOST_REASON = 2000
"""Most characters of a reason: a plugin's exception may hold a whole array as text."""


def signal_name(number: int) -> str:
    """Return "SIGSEGV", or "signal 64" for a number without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that memory was missing."""
    # Every framework has its own class for this on CUDA; the names all contain this.
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__


def describe_error(error: BaseException) -> str:
    """Return "ValueError: text (file.py:12)", with the line of the plugin that raised.

    This is the innermost frame outside installed packages and the harness; a syntax
    error names its own line.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return made_safely(lambda: _of_syntax(error), "SyntaxError")
    # The source of a line is asked of the plugin's module, which may answer anything.
    return f"{error_text(error)}{made_safely(lambda: _line(error), '')}"


def _of_syntax(error: SyntaxError) -> str:
    file = Path(str(error.filename)).name
    return shortened(f"SyntaxError: {error.msg} ({file}:{error.lineno})", MOST_REASON)


def _line(error: BaseException) -> str:
    own = Path(__file__).resolve().parent
    line = ""
    for frame in traceback.extract_tb(error.__traceback__):
        file = Path(frame.filename)
        if file.is_file() and not _is_installed(file) and own not in file.parents:
            line = f" ({file.name}:{frame.lineno})"
    return line


def _is_installed(file: Path) -> bool:
    if "site-packages" in file.parts:
        return True
    return Path(sysconfig.get_path("stdlib")) in file.parents
