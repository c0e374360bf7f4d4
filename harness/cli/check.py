"""`rnn-harness check`: certify implementations and check tasks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.exits import DONE, NO, exit_code, verdict
from harness.cli.options import (
    device_option,
    expression_option,
    jobs_option,
    json_option,
    path_of,
    plugin_option,
    read_plugins,
)
from harness.errors import (
    HarnessError,
    NothingMeasuredError,
    PluginError,
    describe_error,
    shortened,
)
from harness.files.paths import real_path
from harness.printing import echo_lines
from harness.registry import Registry

if TYPE_CHECKING:
    from harness.measure.task_contract import TaskCheck
    from harness.run.certify import CheckRequest
    from harness.store import TrialRecord


@click.command()
@click.argument("targets", nargs=-1, metavar="[IMPLEMENTATION|FILE.py]...")
@device_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["highest", "tf32", "bf16"]),
    multiple=True,
    default=["highest"],
    show_default=True,
    help="May be given several times.",
)
@click.option("--full", is_flag=True, help="Every combination of sizes, not 8 shapes.")
@expression_option("torch-loop and not lstm")
@jobs_option
@json_option
@plugin_option
def check(
    targets: tuple[str, ...],
    device: str,
    jobs: int,
    as_json: bool,
    plugins: tuple[Path, ...],
    **asked: Any,
) -> int:
    """Certify implementations against the float64 reference; small sizes, no timing.

    A FILE is checked whole: its implementations, its cells on every implementation
    that computes them, and its tasks.
    """
    from harness.interpreters.choose import load_interpreters
    from harness.machine.devices import resolve_device
    from harness.report.certificate import certificate_json, certificate_text
    from harness.report.task_check import task_json, task_text
    from harness.run.certify import CheckRequest, cells_of, implementations_of

    files = [real_path(path_of(t)) for t in targets if t.endswith(".py")]
    registry = read_plugins([*plugins, *files])
    registry.interpreters = load_interpreters({}, registry)
    names = [target for target in targets if not target.endswith(".py")]
    names = [registry.implementation(name).name for name in names]
    names += implementations_of(registry, files)
    if not targets:
        declared = registry.implementations
        names = [name for name in declared if registry.unavailable(name) is None]
    cells = cells_of(registry, files)
    # The other options are named as the fields of `CheckRequest` that they set.
    request = CheckRequest(tuple(names), resolve_device(device), cells=cells, **asked)
    tasks = _check_tasks(registry, files)
    records = _certify(registry, request, jobs, nothing_else=not tasks)
    if as_json:
        found = [task_json(task) for task in tasks]
        found += [certificate_json(record) for record in records]
        echo_lines(json.dumps(found, indent=1))
    else:
        for text in (*map(task_text, tasks), *map(certificate_text, records)):
            echo_lines(text)
    broken = any(task.broken for task in tasks)
    code = verdict(records) if records else DONE
    return exit_code(registry, code, NO if broken else DONE)


def _certify(
    registry: Registry, request: CheckRequest, jobs: int, *, nothing_else: bool
) -> list[TrialRecord]:
    from harness.console import Console
    from harness.run.certify import certify

    if not request.trials(registry):
        if nothing_else and not registry.problems:
            raise NothingMeasuredError(_nothing_to_certify(request))
        return []
    with tempfile.TemporaryDirectory() as folder:
        console = Console(stderr=True)
        return certify(registry, request, jobs, Path(folder) / "check", console)


def _nothing_to_certify(request: CheckRequest) -> str:
    if request.expression is not None:
        return f"-k '{shortened(request.expression)}' leaves nothing to certify"
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
    """Check the tasks of plugin files in this process, as they need only numpy."""
    names = [task.name for task in registry.tasks.values() if task.file in files]
    if not names:
        return []
    from harness.loading import load_task
    from harness.measure.task_contract import check_task

    found = []
    for name in names:
        try:
            found.append(check_task(load_task(registry, name, {})))
        except (HarnessError, KeyboardInterrupt):
            raise
        except BaseException as error:  # whatever a task's own code may raise
            raise PluginError(name, describe_error(error)) from error
    return found
