"""`rnn-harness show`, `report` and `export`: read a run folder."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

import click

from harness.cli.exits import DONE
from harness.cli.options import FileName, fail, json_option, plugin_option, stdout
from harness.errors import MisuseError, NothingMeasuredError
from harness.files.opening import OddFileError, replace_file
from harness.files.paths import absolute_path
from harness.printing import echo, echo_lines
from harness.report.exports import EXPORTS

if TYPE_CHECKING:
    from harness.analysis.run import JudgedRun
    from harness.store import RunFolder


def read_run(folder: Path) -> tuple[RunFolder, JudgedRun]:
    """Read a run; print a warning for each trial that is left out."""
    from harness.analysis.run import JudgedRun
    from harness.store import RunFolder

    store = RunFolder.open(folder)
    records, left_out = store.contents()
    for name, why in left_out.items():
        fail(f"trial {name} is left out: {why.what}; {why.advice}")
    run = JudgedRun(records, store.info())
    if not run.records:
        raise NothingMeasuredError(
            f"{folder} has no finished trial; run its suite first"
        )
    return store, run


run_argument = click.argument("folder", metavar="RUN", type=FileName(path_type=Path))


@click.command()
@run_argument
@json_option
@plugin_option
def show(folder: Path, as_json: bool, plugins: tuple[Path, ...]) -> int:
    """Show the summary tables of RUN, a run folder."""
    from harness.analysis.summary import summarize
    from harness.report.terminal import all_tables
    from harness.store import to_json

    _, run = read_run(folder)
    summary = summarize(run)
    if as_json:
        echo_lines(to_json(summary.to_json()))
    else:
        stdout().print(all_tables(summary))
    return DONE


@click.command()
@run_argument
@plugin_option
def report(folder: Path, plugins: tuple[Path, ...]) -> int:
    """Write report.html, summary.md and the figures of RUN, a run folder."""
    from harness.analysis.summary import summarize
    from harness.report.page import write_report

    store, run = read_run(folder)
    try:
        page = write_report(store, summarize(run), fail)
    except OSError as error:
        raise MisuseError(
            f"{error.filename or folder} cannot be written ({error.strerror}); copy "
            "the run to a folder of your own, or `rnn-harness show` it"
        ) from error
    echo(f"report: {page}")
    return DONE


@click.command()
@run_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(list(EXPORTS)),
    default="csv",
    show_default=True,
    help="How the values are written.",
)
@click.option(
    "-o",
    "--output",
    type=FileName(path_type=Path, dir_okay=False),
    help="The file to write  [default: standard output]",
)
@plugin_option
def export(
    folder: Path, form: str, output: Path | None, plugins: tuple[Path, ...]
) -> int:
    """Write every value of RUN, one row each, to standard output or a file."""
    _, run = read_run(folder)
    if output is None:
        EXPORTS[form](run, sys.stdout)
        return DONE
    try:
        _write(output, lambda target: EXPORTS[form](run, target))
    except OSError as error:
        raise MisuseError(
            f"{output} cannot be written: {error.strerror or error}"
        ) from error
    return DONE


def _write(file: Path, write: Callable[[Path | TextIO], None]) -> None:
    """Write a file completely or not at all; a pipe or a device is written to.

    A link is refused, because it may come with the run folder of a stranger.
    """
    link = file.is_symlink()
    if link and Path("/dev") not in absolute_path(file).parents:
        raise OddFileError(file, "is a link; give the file that it leads to")
    if link or (file.exists() and not file.is_file()):
        write(file)  # standard output, for example
        return

    def encoded(stream: IO[bytes]) -> None:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        write(text)
        text.flush()
        text.detach()

    replace_file(file, encoded)
