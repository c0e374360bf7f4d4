"""The command line: one function per verb; the only place that prints or exits."""

from __future__ import annotations

import errno
import importlib.util
import json
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from harness.errors import (
    HarnessError,
    MisuseError,
    NothingMeasuredError,
    PluginError,
    describe_error,
)
from harness.registry import Registry

if TYPE_CHECKING:
    from rich.console import Console

    from harness.measure.task_contract import TaskCheck
    from harness.run.certify import Request
    from harness.run.execution import Execution
    from harness.store import RunFolder, TrialRecord

DONE, INTERNAL, MISUSE, NO, NOT_ALL_OK, NOTHING = 0, 1, 2, 3, 4, 5
INTERRUPTED, TERMINATED = 130, 143
MOST_SEEDS = 1000

F = TypeVar("F", bound=Callable[..., Any])


def plugin_option(command: F) -> F:
    """Add `--plugin FILE.py`, which every verb takes."""
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE.py",
        help="Read a plugin file; may be given several times.",
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rnn-harness", prog_name="rnn-harness")
def cli() -> None:
    """What recurrent networks learn over long gaps, why, and how fast.

    Exit codes: 0 done; 1 internal error; 2 misuse; 3 the answer is no (a certificate
    is broken); 4 some trials did not end ok; 5 nothing was measured; 130 and 143
    interrupted, with everything finished so far kept.
    """


def main() -> NoReturn:
    """Run the command and exit as documented."""
    try:
        _check_own_packages()
        code = cli.main(standalone_mode=False)
    except HarnessError as error:
        _fail(str(error))
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = MISUSE
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        code = DONE
    sys.exit(code if isinstance(code, int) else DONE)


def _fail(message: str) -> None:
    click.echo(f"rnn-harness: {message}", err=True)


def _check_own_packages() -> None:
    """Stop if `tasks` or `implementations` on the path is somebody else's."""
    own = Path(__file__).resolve().parent.parent
    for name in ("implementations", "tasks"):
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec is not None else None
        if origin is None or Path(origin).resolve().parent.parent != own:
            raise MisuseError(
                f"the package '{name}' on Python's path is {origin or 'missing'}, not "
                "rnn-harness's own; run from another folder or rename it"
            )


def _registry(plugins: Sequence[Path]) -> Registry:
    """Read all plugins; those that cannot be used are told and stop nothing else."""
    registry = Registry.discover(plugins)
    for problem in registry.problems:
        _fail(f"plugin {problem}")
    return registry


# --- list ----------------------------------------------------------------------------


@cli.command("list")
@json_option
@plugin_option
def list_plugins(as_json: bool, plugins: tuple[Path, ...]) -> int:
    """Name cells, tasks and implementations, and what is unavailable here, and why."""
    registry = _registry(plugins)
    if as_json:
        click.echo(json.dumps(_listing(registry), indent=1))
        return MISUSE if registry.problems else DONE
    for title, table in (("cells", registry.cells), ("tasks", registry.tasks)):
        click.echo(title)
        for name, declared in table.items():
            click.echo(f"  {name:<18} {declared.summary}{_from(declared.origin)}")
        click.echo()
    click.echo("implementations")
    for name, implementation in registry.implementations.items():
        cells = ", ".join(implementation.cells)
        click.echo(
            f"  {name:<18} {implementation.summary}{_from(implementation.origin)}"
        )
        devices = ", ".join(implementation.devices)
        click.echo(f"  {'':<18} {implementation.framework}; {cells}; on {devices}")
        reason = registry.unavailable(name)
        if reason is not None:
            click.echo(f"  {'':<18} {reason}")
    if registry.problems:
        click.echo("\nnot usable")
        for problem in registry.problems:
            click.echo(f"  {problem}")
    return MISUSE if registry.problems else DONE


def _from(origin: str) -> str:
    return "" if origin == "built in" else f" (from {origin})"


def _listing(registry: Registry) -> dict[str, Any]:
    return {
        "cells": [
            {"name": d.name, "summary": d.summary, "origin": d.origin}
            for d in registry.cells.values()
        ],
        "tasks": [
            {"name": d.name, "summary": d.summary, "origin": d.origin}
            for d in registry.tasks.values()
        ],
        "implementations": [
            {
                "name": d.name,
                "summary": d.summary,
                "origin": d.origin,
                "framework": d.framework,
                "cells": list(d.cells),
                "devices": list(d.devices),
                "trains": d.trains,
                "unavailable": registry.unavailable(d.name),
            }
            for d in registry.implementations.values()
        ],
        "not_usable": [
            {"plugin": problem.plugin, "reason": problem.reason}
            for problem in registry.problems
        ],
    }


# --- run -----------------------------------------------------------------------------


@cli.command()
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

    registry = _registry(plugins)
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
        jobs or _default_jobs(),
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
        code = _finish(store)
    return _worst([MISUSE if registry.problems else DONE, code])


def _default_jobs() -> int:
    import psutil

    return min(2, psutil.cpu_count(logical=False) or 1)


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
        _fail(
            f"interrupted; every finished trial is kept in {where}, and the same "
            f"command goes on from there; `rnn-harness report {where}` shows them"
        )
        return INTERRUPTED if isinstance(stopped, KeyboardInterrupt) else TERMINATED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        _fail(
            f"{execution.run.path} cannot be written any more ({error.strerror}); "
            "every finished trial is kept, and the same command goes on once it can"
        )
        return INTERNAL
    finally:
        signal.signal(signal.SIGTERM, before)
    return DONE


def _finish(store: RunFolder) -> int:
    """Write the report of what there is, show its first screen, judge the trials."""
    records = store.records()
    if not records:
        _fail(f"no trial was finished in {store.path}")
        return NOTHING
    from harness.analysis.summary import summarize
    from harness.report.page import write_report
    from harness.report.terminal import end_of_run

    page = write_report(store, records)
    _stdout().print(end_of_run(summarize(records, store.info()), page))
    return _verdict(records)


def _stdout() -> Console:
    """Return standard output; where it is no terminal, wide enough to fold nothing."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def _verdict(records: Sequence[TrialRecord]) -> int:
    codes = [DONE]
    if not any(record.outcome in ("ok", "diverged") for record in records):
        codes.append(NOTHING)
    if any(record.outcome != "ok" for record in records):
        codes.append(NOT_ALL_OK)
    if any(_is_broken(record) for record in records):
        codes.append(NO)
    return _worst(codes)


def _is_broken(record: TrialRecord) -> bool:
    return (
        record.trial.measure == "parity"
        and record.outcome == "ok"
        and not record.value("certificate", "certified")
    )


def _worst(codes: Sequence[int]) -> int:
    """Return the code that counts when several apply."""
    order = [MISUSE, INTERRUPTED, TERMINATED, INTERNAL, NOTHING, NO, NOT_ALL_OK, DONE]
    return min(codes, key=order.index)


# --- check ---------------------------------------------------------------------------


@cli.command()
@click.argument("targets", nargs=-1, metavar="[IMPLEMENTATION|FILE.py]...")
@click.option("--device", default="cpu", show_default=True, help="auto|cpu|cuda|cuda:N")
@click.option("--dtype", default="float32", show_default=True, help="float32|float64")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=["highest"],
    show_default=True,
    help="highest|tf32|bf16; may be given several times.",
)
@click.option("--full", is_flag=True, help="Every combination of sizes, not 8 shapes.")
@click.option("-k", "expression", metavar="EXPR", help="As 'torch-loop and not lstm'.")
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1), help="[default: cores, up to 2]"
)
@json_option
@plugin_option
def check(
    targets: tuple[str, ...],
    device: str,
    dtype: str,
    precisions: tuple[str, ...],
    full: bool,
    expression: str | None,
    jobs: int | None,
    as_json: bool,
    plugins: tuple[Path, ...],
) -> int:
    """Certify implementations against the float64 reference; small sizes, no timing.

    Of a FILE: its implementations; its cells, on whatever computes them; its tasks.
    """
    from harness.environment import resolve_device
    from harness.report.certificate import certificate_json, certificate_text
    from harness.report.task_check import task_json, task_text
    from harness.run.certify import Request, cells_of, implementations_of

    for what, asked, allowed in (
        ("dtype", (dtype,), ("float32", "float64")),
        ("precision", precisions, ("highest", "tf32", "bf16")),
    ):
        for word in asked:
            if word not in allowed:
                raise MisuseError(
                    f"unknown {what} '{word}'; allowed: {', '.join(allowed)}"
                )
    files = [Path(target).resolve() for target in targets if target.endswith(".py")]
    registry = _registry([*plugins, *files])
    names = [target for target in targets if not target.endswith(".py")]
    names = [registry.implementation(name).name for name in names]
    names += implementations_of(registry, files)
    if not targets:
        declared = registry.implementations
        names = [name for name in declared if registry.unavailable(name) is None]
    request = Request(
        tuple(names),
        resolve_device(device),
        dtype,
        precisions,
        full,
        cells_of(registry, files),
        expression,
    )
    tasks = _check_tasks(registry, files)
    records = _certify(registry, request, jobs, nothing_else=not tasks)
    if as_json:
        found = [task_json(task) for task in tasks]
        found += [certificate_json(record) for record in records]
        click.echo(json.dumps(found, indent=1))
    else:
        for text in (*map(task_text, tasks), *map(certificate_text, records)):
            click.echo(text)
    codes = [MISUSE] if registry.problems else [DONE]
    codes += [NO for task in tasks if task.broken]
    return _worst([*codes, _verdict(records) if records else DONE])


def _certify(
    registry: Registry, request: Request, jobs: int | None, *, nothing_else: bool
) -> list[TrialRecord]:
    from rich.console import Console

    from harness.run.certify import certify

    if not request.trials(registry):
        if nothing_else and not registry.problems:
            raise NothingMeasuredError(_nothing_to_certify(request))
        return []
    with tempfile.TemporaryDirectory() as folder:
        console = Console(stderr=True)
        jobs = jobs or _default_jobs()
        return certify(registry, request, jobs, Path(folder) / "check", console)


def _nothing_to_certify(request: Request) -> str:
    if request.expression is not None:
        return f"-k '{request.expression}' leaves nothing to certify"
    if request.cells:
        return (
            f"no implementation that is available here computes "
            f"{', '.join(request.cells)}; `rnn-harness list` says what to install"
        )
    return (
        "there is no implementation to certify; give the name of one, or a file that "
        "declares one"
    )


def _check_tasks(registry: Registry, files: Sequence[Path]) -> list[TaskCheck]:
    """Check the tasks of plugin files, here: they are numpy alone."""
    names = [task.name for task in registry.tasks.values() if task.file in files]
    if not names:
        return []
    from harness.measure.task_contract import check_task

    found = []
    for name in names:
        try:
            found.append(check_task(registry.load_task(name, {})))
        except HarnessError:
            raise
        except Exception as error:  # whatever a task's own code may raise
            raise PluginError(name, describe_error(error)) from error
    return found


# --- new -----------------------------------------------------------------------------


@cli.command()
@click.argument("kind", metavar="implementation|cell|task")
@click.argument("name")
@click.option(
    "--framework", help="Of an implementation: torch|tensorflow|jax|keras-jax|numpy."
)
@click.option("--cell", help="What an implementation computes.  [default: gru]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.py",
    help="[default: NAME, with underscores, in this folder]",
)
@plugin_option
def new(
    kind: str,
    name: str,
    framework: str | None,
    cell: str | None,
    output: Path | None,
    plugins: tuple[Path, ...],
) -> int:
    """Write a plugin file to start from; it passes `check` as it stands."""
    from harness.scaffold import NewPlugin, write_plugin

    registry = _registry(plugins)
    file = write_plugin(NewPlugin(kind, name, framework, cell, output), registry)
    click.echo(file)
    click.echo(f"next: rnn-harness check {shlex.quote(str(file))}")
    if kind == "implementation":
        reason = Registry.discover([file]).unavailable(name)
        if reason is not None:
            _fail(f"'{name}' is {reason}")
    return MISUSE if registry.problems else DONE


# --- show, report, export ------------------------------------------------------------


def _records(folder: Path) -> tuple[RunFolder, list[TrialRecord]]:
    """Read a run; damaged trials are told, not shown."""
    from harness.store import RunFolder

    store = RunFolder.open(folder)
    for name, what in store.damaged().items():
        _fail(f"trial {name} is left out: {what}; `rnn-harness run` measures it again")
    records = store.records()
    if not records:
        raise NothingMeasuredError(f"{folder} holds no finished trial")
    return store, records


run_argument = click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))


@cli.command()
@run_argument
@json_option
@plugin_option
def show(folder: Path, as_json: bool, plugins: tuple[Path, ...]) -> int:
    """Show the summary tables of RUN, a run folder."""
    from harness.analysis.summary import summarize
    from harness.report.terminal import all_tables
    from harness.store import to_json

    store, records = _records(folder)
    summary = summarize(records, store.info())
    if as_json:
        click.echo(to_json(summary.to_json()))
    else:
        _stdout().print(all_tables(summary))
    return DONE


@cli.command()
@run_argument
@plugin_option
def report(folder: Path, plugins: tuple[Path, ...]) -> int:
    """Write report.html, summary.md and the figures of RUN, a run folder."""
    from harness.report.page import write_report

    store, records = _records(folder)
    click.echo(f"report: {write_report(store, records)}")
    return DONE


@cli.command()
@run_argument
@click.option("--format", "form", type=click.Choice(["csv"]), default="csv")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False))
@plugin_option
def export(
    folder: Path, form: str, output: Path | None, plugins: tuple[Path, ...]
) -> int:
    """Write every value of RUN, one row each, to standard output or a file."""
    from harness.analysis.frame import frame

    _, records = _records(folder)
    try:
        frame(records).to_csv(output or sys.stdout, index=False)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise MisuseError(
            f"{output} cannot be written: {error.strerror or error}"
        ) from error
    return DONE
