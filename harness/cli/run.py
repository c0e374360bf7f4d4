"""`rnn-harness run`: run a suite, or go on with it, and show what was found."""

from __future__ import annotations

import contextlib
import errno
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from harness.cli.exits import (
    DONE,
    INTERRUPTED,
    MISUSE,
    NOTHING,
    TERMINATED,
    verdict,
    worst,
)
from harness.cli.options import (
    default_jobs,
    device_option,
    fail,
    finite,
    memory_limit_option,
    plugin_option,
    read_plugins,
    settings_option,
    stdout,
    timeout_option,
)
from harness.errors import HarnessError, MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from harness.run.execution import Execution
    from harness.store import RunFolder

MOST_SEEDS = 1000

STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
STORAGE |= {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ESTALE}
"""What the file system says when a run folder can be written no more."""

IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY}
"""What it says where something else lies in a file's place."""


@click.command()
@click.argument("suite")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Run folder [default: results/runs/SUITE].",
)
@click.option("-k", "expression", metavar="EXPR", help="As 'adding and not lstm'.")
@settings_option
@click.option("--seeds", metavar="0-4", help="Replace the suite's seeds: 0-4 or 0,2.")
@device_option
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1), help="[default: cores, up to 2]"
)
@click.option(
    "--no-certify", is_flag=True, help="Measure without certificates; all is marked."
)
@timeout_option
@memory_limit_option
@click.option(
    "--checkpoint-every",
    metavar="S",
    type=click.FloatRange(min=0),
    callback=finite,
    default=30.0,
    show_default=True,
    help="Seconds between two checkpoints of a learning trial.",
)
@click.option("--retry-failed", is_flag=True, help="Run again what did not end ok.")
@click.option("--force", is_flag=True, help="Run everything again.")
@click.option(
    "--executor",
    type=click.Choice(["local", "dask"]),
    default="local",
    show_default=True,
    help="Where trials run: this machine's processes, or a dask cluster's.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS|FILE",
    help="A dask cluster to join [default: one started here].",
)
@click.option("--dry-run", is_flag=True, help="Show the trials and run none.")
@click.option("--why", is_flag=True, help="As --dry-run, with the reason for each.")
@plugin_option
def run(
    suite: str,
    output: Path | None,
    expression: str | None,
    settings: tuple[str, ...],
    seeds: str | None,
    device: str,
    jobs: int | None,
    no_certify: bool,
    timeout: float | None,
    memory_limit: int | None,
    checkpoint_every: float,
    retry_failed: bool,
    force: bool,
    executor: str,
    scheduler: str | None,
    dry_run: bool,
    why: bool,
    plugins: tuple[Path, ...],
) -> int:
    """Run SUITE, a built-in name or a TOML file; go on where it was interrupted."""
    from rich.console import Console

    from harness.interpreters import choose as environments
    from harness.machine.devices import resolve_device
    from harness.run.execution import Execution
    from harness.run.job import Limits, Options
    from harness.store import RunFolder
    from harness.suite import load_suite

    if scheduler is not None and executor != "dask":
        raise MisuseError("--scheduler joins a dask cluster; add --executor dask")
    registry = read_plugins(plugins)
    loaded = load_suite(suite, registry, settings, _seeds(seeds))
    registry.use_environments(environments.load(loaded.environments, registry))
    device = resolve_device(device, elsewhere=scheduler is not None)
    folder = output or Path("results/runs") / loaded.name
    store = RunFolder(folder)
    execution = Execution(
        loaded,
        registry,
        store,
        device,
        Options(
            expression=expression,
            jobs=jobs or default_jobs(),
            certify=not no_certify,
            retry_failed=retry_failed,
            force=force,
            limits=Limits(timeout, memory_limit, checkpoint_every),
            executor=executor,
            scheduler=scheduler,
        ),
    )
    if dry_run or why:
        store.check()
        _show_preview(execution, why=why)
        return MISUSE if registry.problems else DONE
    execution.plan()  # what is wrong with it is told before a folder is made
    RunFolder.create(folder)
    console = Console(stderr=True)
    code = _execute(execution, console)
    if code == DONE:
        with _told_if_full(folder):
            code = finish(store)
    return worst([MISUSE if registry.problems else DONE, code])


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
                f"--seeds {text}: give a range or a list, as 0-4 or 0,2,5, of at most "
                f"{MOST_SEEDS} seeds"
            )
        seeds += span
    return seeds


def _show_preview(execution: Execution, *, why: bool) -> None:
    to_run = done = 0
    for stage, trials in execution.preview():
        click.echo(f"{stage}: {len(trials)}")
        for preview in trials:
            todo = preview.todo
            to_run += todo.runs
            done += not todo.runs
            text = f"  {preview.label}"
            if why or not todo.runs:
                text += f": {'runs' if todo.runs else 'stays'}, {todo.why}"
            click.echo(text)
    for note in execution.notes():
        click.echo(note)
    if to_run:
        click.echo(execution.estimate().sentence())
    click.echo(f"{to_run} would run, {done} are done; nothing was run")


class _StoppedError(BaseException):
    """The user asked for an end at once."""


@contextlib.contextmanager
def _told_if_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in IN_THE_WAY:
            place = error.filename2 or error.filename or folder
            raise HarnessError(
                f"{place} is in the way ({error.strerror}); move it, and the same "
                "command goes on: every finished trial is kept"
            ) from error
        if error.errno not in STORAGE:
            raise
        raise HarnessError(
            f"{folder} cannot be written any more ({error.strerror}); "
            "every finished trial is kept, and the same command goes on once it can"
        ) from error


def _execute(execution: Execution, console: Console) -> int:
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise _StoppedError
        fail(
            "stopping: what runs finishes or leaves a checkpoint; once more to stop at "
            "once"
        )
        execution.stop()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in signals]
    where = execution.run.path
    try:
        with _told_if_full(where):
            execution.execute(console)
    except _StoppedError:
        pass
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    if not asked:
        return DONE
    fail(
        f"interrupted; every finished trial is kept in {where}, and the same "
        f"command goes on from there; `rnn-harness report {where}` shows them"
    )
    return INTERRUPTED if asked[0] == signal.SIGINT else TERMINATED


def finish(store: RunFolder) -> int:
    """Write the report of what there is, show its first screen, judge the trials."""
    records = store.records()
    if not records:
        fail(f"no trial was finished in {store.path}")
        return NOTHING
    from harness.analysis.run import JudgedRun
    from harness.analysis.summary import summarize
    from harness.report.page import write_report
    from harness.report.terminal import end_of_run

    summary = summarize(JudgedRun(records, store.info()))
    page = write_report(store, summary)
    stdout().print(end_of_run(summary, page))
    return verdict(records)
