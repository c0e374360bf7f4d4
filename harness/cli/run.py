"""`rnn-harness run`: run a suite, or go on with it, and show what was found."""

from __future__ import annotations

import errno
import re
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from harness.cli.exits import (
    DONE,
    INTERNAL,
    INTERRUPTED,
    MISUSE,
    NOTHING,
    TERMINATED,
    verdict,
    worst,
)
from harness.cli.options import (
    default_jobs,
    fail,
    plugin_option,
    read_plugins,
    stdout,
)
from harness.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from harness.run.execution import Execution
    from harness.store import RunFolder

MOST_SEEDS = 1000


@click.command()
@click.argument("suite")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Run folder [default: results/runs/SUITE].",
)
@click.option("-k", "expression", metavar="EXPR", help="As 'adding and not lstm'.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE")
@click.option("--seeds", metavar="0-4", help="Replace the suite's seeds: 0-4 or 0,2.")
@click.option("--device", default="cpu", show_default=True, help="auto|cpu|cuda|cuda:N")
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1), help="[default: cores, up to 2]"
)
@click.option(
    "--no-certify", is_flag=True, help="Measure without certificates; all is marked."
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
    dry_run: bool,
    why: bool,
    plugins: tuple[Path, ...],
) -> int:
    """Run SUITE, a built-in name or a TOML file; go on where it was interrupted."""
    from rich.console import Console

    from harness.environment import resolve_device
    from harness.run.execution import Execution
    from harness.store import RunFolder
    from harness.suite import load_suite

    registry = read_plugins(plugins)
    loaded = load_suite(suite, registry, settings, _seeds(seeds))
    device = resolve_device(device)
    folder = output or Path("results/runs") / loaded.name
    store = RunFolder(folder)
    execution = Execution(
        loaded,
        registry,
        store,
        device,
        expression,
        jobs or default_jobs(),
        certify=not no_certify,
    )
    if dry_run or why:
        _show_preview(execution, why=why)
        return MISUSE if registry.problems else DONE
    execution.plan()  # what is wrong with it is told before a folder is made
    RunFolder.create(folder)
    console = Console(stderr=True)
    code = _execute(execution, console)
    if code == DONE:
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
            if why:
                text += f": {'runs' if todo.runs else 'stays'}, {todo.why}"
            click.echo(text)
    for note in execution.plan().notes:
        click.echo(note)
    click.echo(f"{to_run} would run, {done} are done; nothing was run")


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _execute(execution: Execution, console: Console) -> int:
    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        execution.execute(console)
    except (KeyboardInterrupt, _Terminated) as stopped:
        where = execution.run.path
        fail(
            f"interrupted; every finished trial is kept in {where}, and the same "
            f"command goes on from there; `rnn-harness report {where}` shows them"
        )
        return INTERRUPTED if isinstance(stopped, KeyboardInterrupt) else TERMINATED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        fail(
            f"{execution.run.path} cannot be written any more ({error.strerror}); "
            "every finished trial is kept, and the same command goes on once it can"
        )
        return INTERNAL
    finally:
        signal.signal(signal.SIGTERM, before)
    return DONE


def finish(store: RunFolder) -> int:
    """Write the report of what there is, show its first screen, judge the trials."""
    records = store.records()
    if not records:
        fail(f"no trial was finished in {store.path}")
        return NOTHING
    from harness.analysis.summary import summarize
    from harness.report.page import write_report
    from harness.report.terminal import end_of_run

    page = write_report(store, records)
    stdout().print(end_of_run(summarize(records, store.info()), page))
    return verdict(records)
