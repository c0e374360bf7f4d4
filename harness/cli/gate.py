"""`rnn-harness gate`: a commit against the working tree, in one session."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from harness.cli.compare import effect_option, print_comparison
from harness.cli.exits import TERMINATED
from harness.cli.options import (
    MayRun,
    allow_option,
    device_option,
    expression_option,
    fail,
    json_option,
    limits_options,
    output_option,
    plugin_option,
    read_plugins,
    settings_option,
)
from harness.cli.storage import storage_errors_explained
from harness.errors import MisuseError
from harness.printing import output_error
from harness.run.signals import handled

if TYPE_CHECKING:
    from harness.analysis.comparison.compare import Comparison


@click.command()
@click.argument("suite", default="gate")
@click.option("--base", required=True, metavar="REF", help="A branch, a tag or a hash.")
@output_option("For the run folders base and new  [default: results/runs/gate-TIME]")
@expression_option("gru and not torch-loop")
@settings_option
@allow_option
@device_option
@limits_options
@effect_option
@json_option
@plugin_option
def gate(
    suite: str,
    base: str,
    output: Path | None,
    expression: str | None,
    settings: tuple[str, ...],
    may_run: MayRun,
    device: str,
    timeout: float | None,
    memory_limit: int | None,
    effect: float | None,
    as_json: bool,
    plugins: tuple[Path, ...],
) -> int:
    """Time REF and the working tree in one session; say what is slower.

    SUITE is a built-in name or a TOML file. A slower or faster key is timed once more
    in fresh processes, and counts only if it is slower or faster again. Exit codes: 0
    no key is slower; 3 a key is slower or failed; 5 too many keys are undecided.
    """
    from harness.analysis.comparison.compare import EFFECT, compare, confirmed
    from harness.analysis.run import JudgedRun
    from harness.console import Console
    from harness.machine.devices import resolve_device
    from harness.run.gate import SAME_SOURCES, GateRequest
    from harness.run.gate import gate as run_gate
    from harness.run.job import Limits, Options
    from harness.run.worktree import checked_out
    from harness.store import RunFolder
    from harness.suite import load_suite

    registry = read_plugins(plugins)
    if registry.problems:
        raise MisuseError("a plugin of the working tree cannot be read; see above")
    loaded = load_suite(suite, registry, settings, may_run=may_run)
    now = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    request = GateRequest(
        loaded,
        registry.files,
        resolve_device(device),
        output or Path("results/runs") / f"gate-{now}",
        Options(expression=expression, limits=Limits(timeout, memory_limit)),
    )
    console = Console(stderr=True)

    def compared(asked: GateRequest) -> Comparison:
        folders = run_gate(asked, checkout, console)
        runs = [JudgedRun.read(RunFolder.open(folder)) for folder in folders]
        found = compare(*runs, effect=effect or EFFECT)
        same = runs[0].info["gate"]["same_sources"]
        return replace(found, notes=(*found.notes, SAME_SOURCES)) if same else found

    measured_whole = "a new folder with -o takes the whole gate"
    try:
        with (
            storage_errors_explained(request.folder, measured_whole),
            handled(_terminate, signal.SIGTERM),
            checked_out(base) as checkout,
        ):
            found = compared(request)
            apart = found.of("slower", "faster")
            if apart:
                console.print("slower and faster keys once more, in fresh processes")
                again = replace(
                    request,
                    folder=request.folder / "again",
                    only=frozenset(row.trial.key() for row in apart),
                    certified=request.folder,
                )
                found = confirmed(found, compared(again))
    except _TerminatedError:
        return TERMINATED
    code = print_comparison(found, as_json=as_json)
    if output_error() is not None:
        fail(
            "not everything could be printed; `rnn-harness compare` reads the folders "
            f"base and new of {request.folder}"
        )
    return code


class _TerminatedError(BaseException):
    """SIGTERM came; the command cleans up as it does after Ctrl-C, and ends."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError
