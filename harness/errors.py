"""What can go wrong, and the exit code each kind ends the command with."""

from __future__ import annotations

import difflib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path


class HarnessError(Exception):
    """A failure whose message is written for the user: no traceback is shown."""

    exit_code = 1


class MisuseError(HarnessError):
    """The user asked for something that cannot be: a bad file, an unknown name."""

    exit_code = 2


class NothingMeasuredError(HarnessError):
    """No trial ran, or none could say anything."""

    exit_code = 5


class PluginError(MisuseError):
    """A plugin cannot be used; `plugin` names the culprit.

    Raised for a broken file, a missing framework or a wrong signature.
    """

    def __init__(self, plugin: str, reason: str) -> None:
        super().__init__(f"{plugin}: {reason}")
        self.plugin = plugin
        self.reason = reason


class UnavailableError(PluginError):
    """A plugin is sound but something it needs is not on this machine."""


class RefusedError(HarnessError):
    """A plugin does not offer what a trial asks of it."""

    exit_code = 2


class InputError(HarnessError, ValueError):
    """What was given to a network does not fit it: a shape, a dtype, a value."""

    exit_code = 2


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'gru'?" for a near miss, else the known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(names)}" if names else "; none is known"


def describe_error(error: BaseException) -> str:
    """Return "ValueError: text (file.py:12)", the place being the plugin's own.

    The place is the innermost frame outside installed packages and the harness; a
    syntax error names its own.
    """
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} ({Path(error.filename).name}:{error.lineno})"
    own = Path(__file__).resolve().parent
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        file = Path(frame.filename)
        if file.is_file() and not _is_installed(file) and own not in file.parents:
            place = f" ({file.name}:{frame.lineno})"
    return f"{text}{place}"


def _is_installed(file: Path) -> bool:
    if "site-packages" in file.parts:
        return True
    return Path(sysconfig.get_path("stdlib")) in file.parents
