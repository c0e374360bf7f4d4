"""The command line; it turns every error into a sentence and an exit code."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path
from typing import NoReturn

import click

from harness.cli.check import check
from harness.cli.compare import compare
from harness.cli.doctor import doctor
from harness.cli.exits import DONE, INTERRUPTED, MISUSE
from harness.cli.gate import gate
from harness.cli.listing import list_plugins
from harness.cli.new import new
from harness.cli.options import fail
from harness.cli.read import export, report, show
from harness.cli.run import run
from harness.errors import HarnessError, MisuseError, bounded
from harness.printing import echo_lines, guard_streams, output_error
from rnn_harness import hidden

_VERBS = (check, compare, doctor, export, gate, list_plugins, new, report, run, show)


@click.group(commands=_VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rnn-harness", prog_name="rnn-harness")
def cli() -> None:
    """What recurrent networks learn over long gaps, why, and how fast.

    Exit codes: 0 done; 1 internal error; 2 misuse, or the message names what hinders,
    such as a full disk; 3 the answer is no (a certificate is broken, a timing is
    slower); 4 some trials did not end ok; 5 nothing was
    measured, or too noisily to say; 130 and 143 interrupted, with everything finished
    so far kept.
    """


def main() -> NoReturn:
    """Run the command and exit as documented."""
    guard_streams()
    try:
        _check_own_packages()
        code = cli.main(standalone_mode=False)
    except HarnessError as error:
        fail(*error.lines)
        code = error.exit_code
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        echo_lines(bounded(said.getvalue().rstrip()), err=True)
        code = MISUSE
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    sys.exit(_and_printed(code if isinstance(code, int) else DONE))


def _and_printed(code: int) -> int:
    """Return an exit code, or that of misuse if standard output could not be written.

    A program that stops reading, such as `head`, is no error.
    """
    error = output_error()
    if error is None or error.errno == errno.EPIPE:
        return code
    fail(f"standard output cannot be written: {error.strerror}")
    return MISUSE


def _check_own_packages() -> None:
    """Stop if Python would import `tasks` or `implementations` of another project."""
    root = Path(__file__).resolve().parents[2]
    for name in ("implementations", "tasks"):
        if what := hidden(name, root):
            raise MisuseError(what)
