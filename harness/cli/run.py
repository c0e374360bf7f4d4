"""`rnn-harness run`: run a suite, or continue it, and show the results."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from harness.cli.exits import (
    DONE,
    INTERRUPTED,
    NOTHING,
    TERMINATED,
    exit_code,
    verdict,
)
from harness.cli.options import (
    MayRun,
    allow_option,
    device_option,
    expression_option,
    fail,
    finite,
    jobs_option,
    limits_options,
    output_option,
    plugin_option,
    read_plugins,
    settings_option,
    stdout,
)
from harness.cli.storage import storage_errors_explained
from harness.errors import MisuseError
from harness.printing import echo, one_line, output_error
from harness.run.signals import handled

if TYPE_CHECKING:
    from harness.console import Console
    from harness.run.execution import Execution
    from harness.store import RunFolder

MOST_SEEDS = 1000


@click.command()
@click.argument("suite")
@output_option("Run folder  [default: results/runs/SUITE]")
@expression_option("adding and not lstm")
@settings_option
@allow_option
@click.option("--seeds", metavar="0-4", help="Replace the suite's seeds: 0-4 or 0,2.")
@device_option
@jobs_option
@click.option(
    "--no-certify",
    is_flag=True,
    help="Measure without certificates; every number is marked.",
)
@limits_options
@click.option(
    "--checkpoint-every",
    metavar="S",
    type=click.FloatRange(min=0),
    callback=finite,
    default=30.0,
    show_default=True,
    help="Seconds between two checkpoints of a learning trial.",
)
@click.option("--retry-failed", is_flag=True, help="Run failed trials again.")
@click.option("--force", is_flag=True, help="Run every trial again.")
@click.option(
    "--executor",
    type=click.Choice(["local", "dask"]),
    default="local",
    show_default=True,
    help="Where trials run: on this machine, or on a dask cluster.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS|FILE",
    help="The dask cluster to join  [default: start one here]",
)
@click.option("--dry-run", is_flag=True, help="Show the trials and run none.")
@click.option("--why", is_flag=True, help="Like --dry-run, with a reason for each.")
@plugin_option
def run(
    suite: str,
    output: Path | None,
    settings: tuple[str, ...],
    may_run: MayRun,
    seeds: str | None,
    device: str,
    no_certify: bool,
    timeout: float | None,
    memory_limit: int | None,
    checkpoint_every: float,
    dry_run: bool,
    why: bool,
    plugins: tuple[Path, ...],
    **named: Any,
) -> int:
    """Run SUITE, a built-in name or a TOML file, or continue an interrupted run."""
    from harness.console import Console
    from harness.interpreters.choose import load_interpreters
    from harness.machine.devices import resolve_device
    from harness.run.execution import Execution
    from harness.run.job import Limits, Options
    from harness.store import RunFolder
    from harness.suite import load_suite

    limits = Limits(timeout, memory_limit, checkpoint_every)
    # The other options are named as the fields of `Options` that they set.
    options = Options(certify=not no_certify, limits=limits, **named)
    elsewhere = options.scheduler is not None
    if elsewhere and options.executor != "dask":
        raise MisuseError("--scheduler joins a dask cluster; add --executor dask")
    registry = read_plugins(plugins)
    loaded = load_suite(suite, registry, settings, _seeds(seeds), may_run=may_run)
    registry.interpreters = load_interpreters(loaded.environments, registry)
    device = resolve_device(device, elsewhere=elsewhere)
    folder = output or Path("results/runs") / loaded.name
    store = RunFolder(folder)
    execution = Execution(loaded, registry, store, device, options)
    if dry_run or why:
        store.check()
        _show_preview(execution, why=why)
        return exit_code(registry)
    execution.plan()  # its errors are reported before a folder is made
    RunFolder.create(folder)
    console = Console(stderr=True)
    code = _execute(execution, console)
    if code == DONE:
        with storage_errors_explained(folder):
            code = finish(store)
    return exit_code(registry, code)


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
        first, last = found.groups() if found else ("0", "-1")
        span = range(int(first), int(last or first) + 1)
        if not 0 < len(span) <= MOST_SEEDS:
            raise MisuseError(
                f"--seeds {text}: give a range or a list, e.g. 0-4 or 0,2,5, of at "
                f"most {MOST_SEEDS} seeds"
            )
        seeds += span
    return seeds


def _show_preview(execution: Execution, *, why: bool) -> None:
    to_run = done = 0
    for stage, trials in execution.preview():
        echo(one_line(f"{stage}: {len(trials)}"))
        for preview in trials:
            todo = preview.todo
            to_run += todo.runs
            done += not todo.runs
            text = f"  {preview.label}"
            if why or not todo.runs:
                text += f": {'runs' if todo.runs else 'stays'}, {todo.why}"
            echo(text)
    for note in execution.notes():
        echo(one_line(note))
    if to_run:
        echo(execution.estimate().sentence())
    echo(f"{to_run} would run, {done} are done; nothing was run")


class _StoppedError(BaseException):
    """The user asked a second time to stop."""


def _execute(execution: Execution, console: Console) -> int:
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise _StoppedError
        fail(
            "stopping: running trials finish or leave a checkpoint; press Ctrl-C again "
            "to stop at once"
        )
        execution.stop()

    where = execution.run.path
    with (
        handled(stop, signal.SIGINT, signal.SIGTERM),
        contextlib.suppress(_StoppedError),
        storage_errors_explained(where),
    ):
        execution.execute(console)
    if not asked:
        return DONE
    fail(
        f"interrupted; every finished trial is kept in {where}, and the same "
        f"command continues from there; `rnn-harness report {where}` shows them"
    )
    return INTERRUPTED if asked[0] == signal.SIGINT else TERMINATED


def finish(store: RunFolder) -> int:
    """Write the report, print its first screen, and return the exit code of trials."""
    records = store.records()
    if not records:
        fail(f"no trial was finished in {store.path}")
        return NOTHING
    from harness.analysis.run import JudgedRun
    from harness.analysis.summary import summarize
    from harness.report.page import write_report
    from harness.report.terminal import end_of_run

    summary = summarize(JudgedRun(records, store.info()))
    page = write_report(store, summary, fail)
    stdout().print(end_of_run(summary, page))
    if output_error() is not None:
        fail(f"not everything could be printed; the report has it: {page}")
    return verdict(records)
