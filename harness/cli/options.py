"""Options and functions that several commands share."""

from __future__ import annotations

import errno
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.errors import MisuseError, bounded, shortened
from harness.printing import echo
from harness.registry import Registry

if TYPE_CHECKING:
    from harness.console import Console


class FileName(click.Path):
    """A path that a file system can have, whether it exists or not."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        context: click.Context | None,
    ) -> Any:
        """Return a `Path`."""
        return super().convert(path_of(value), param, context)


def path_of(text: str | os.PathLike[str]) -> Path:
    """Return a path, or raise `MisuseError` if no file can have such a name."""
    try:
        os.lstat(text)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            named = shortened(os.fspath(text))
            raise MisuseError(f"{named} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise MisuseError(f"{os.fspath(text)!r} is not the name of a file") from error
    return Path(text)


F = TypeVar("F", bound=Callable[..., Any])


def plugin_option(command: F) -> F:
    """Add `--plugin FILE.py`, which every command has."""
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=FileName(path_type=Path),
        metavar="FILE.py",
        help="Read a plugin file; may be given several times.",
    )(command)


def finite(
    context: click.Context, option: click.Parameter, value: float | None
) -> float | None:
    """Refuse infinity and NaN as a number of seconds."""
    if value is not None and not math.isfinite(value):
        raise MisuseError(f"{option.opts[0]} {value}: give a number of seconds")
    return value


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30}


_SIZE = r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMG]?I?)B?\s*"


def size_bytes(
    context: click.Context, option: click.Parameter, value: str | None
) -> int | None:
    """Read a size such as 4GiB or 500MB."""
    if value is None:
        return None
    found = re.fullmatch(_SIZE, value.upper())
    size = float(found[1]) * _UNITS.get(found[2], 0) if found else 0
    if size < 1:
        raise MisuseError(f"{option.opts[0]} {value}: give a size, e.g. 4GiB or 500MB")
    return int(size)


def expression_option(example: str) -> Callable[[F], F]:
    """Return the option `-k`, explained by an example."""
    return click.option(
        "-k", "expression", metavar="EXPR", help=f"Only some trials, e.g. '{example}'."
    )


def output_option(what: str) -> Callable[[F], F]:
    """Return the option `-o` of a run folder."""
    return click.option("-o", "--output", type=FileName(path_type=Path), help=what)


def limits_options(command: F) -> F:
    """Add `--timeout` and `--memory-limit`, the limits of every trial."""
    timeout = click.option(
        "--timeout",
        metavar="S",
        type=click.FloatRange(min=0, min_open=True),
        callback=finite,
        help="End a trial that takes longer than S seconds.",
    )
    memory_limit = click.option(
        "--memory-limit",
        metavar="SIZE",
        callback=size_bytes,
        help="End a trial that takes more memory, e.g. 4GiB.",
    )
    return timeout(memory_limit(command))


def default_jobs() -> int:
    """Return how many trials run side by side by default."""
    import psutil

    return min(2, psutil.cpu_count(logical=False) or 1)


MOST_JOBS = 10_000
"""More than any machine or cluster runs side by side: a larger number is a mistake."""

MayRun = Callable[[Mapping[str, str]], bool]
"""Says whether programs may run that a suite file names, by framework."""


def _may_run(context: click.Context, option: click.Parameter, value: bool) -> MayRun:
    """Return a function that asks, if the user has not allowed all, at a terminal."""

    def may_run(programs: Mapping[str, str]) -> bool:
        asked = (sys.stdin, sys.stderr)
        if value or not all(each is not None and each.isatty() for each in asked):
            return value
        fail("the suite file names programs, which would run with all your rights:")
        for name, path in programs.items():
            echo(f"  environments.{name} = {path!r}", err=True)
        return click.confirm("run them?", err=True)

    return may_run


allow_option = click.option(
    "--allow-environments",
    "may_run",
    is_flag=True,
    callback=_may_run,
    help="Run the interpreters that the suite file names in [environments].",
)
settings_option = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE")
device_option = click.option(
    "--device", default="cpu", show_default=True, help="auto|cpu|cuda|cuda:N"
)
jobs_option = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, MOST_JOBS),
    default=default_jobs,
    help="Trials side by side  [default: cores, up to 2]",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document."
)


def read_plugins(plugins: Sequence[Path]) -> Registry:
    """Read all plugins; report those that cannot be used."""
    registry = Registry.discover(plugins)
    for problem in registry.problems:
        fail(f"plugin {problem}")
    return registry


def fail(message: str, *further: str) -> None:
    """Print on standard error what went wrong, each argument as a line.

    Further lines are indented, so that text in them does not pass for another message.
    """
    echo(f"rnn-harness: {bounded(message)}", err=True)
    for line in further:
        echo(f"  {bounded(line)}", err=True)


def stdout() -> Console:
    """Return standard output; in a file or pipe it is wide, so that no line breaks."""
    from harness.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)
