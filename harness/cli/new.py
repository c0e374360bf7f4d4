"""`rnn-harness new`: write a plugin file to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from harness.cli.exits import exit_code
from harness.cli.options import FileName, fail, plugin_option, read_plugins
from harness.printing import echo
from harness.registry import Registry


@click.command()
@click.argument("kind", metavar="implementation|cell|task")
@click.argument("name")
@click.option(
    "--framework", help="For an implementation: torch|tensorflow|jax|keras-jax|numpy."
)
@click.option(
    "--cell", help="The cell that an implementation computes.  [default: gru]"
)
@click.option(
    "-o",
    "--output",
    type=FileName(path_type=Path),
    metavar="FILE.py",
    help="The file to write  [default: NAME with underscores, in this folder]",
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
    """Write a plugin file to start from; it passes `check` unchanged."""
    from harness.scaffold import NewPlugin, write_plugin

    registry = read_plugins(plugins)
    file = write_plugin(NewPlugin(kind, name, framework, cell, output), registry)
    echo(file)
    echo(f"next: rnn-harness check {shlex.quote(str(file))}")
    if kind == "implementation":
        reason = Registry.discover([file]).unavailable(name)
        if reason is not None:
            fail(f"'{name}' is {reason}")
    return exit_code(registry)
