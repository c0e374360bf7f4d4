"""`rnn-harness list`: what there is, and what is unavailable here, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness.cli.exits import DONE, MISUSE
from harness.cli.options import json_option, plugin_option, read_plugins
from harness.registry import Registry


@click.command("list")
@json_option
@plugin_option
def list_plugins(as_json: bool, plugins: tuple[Path, ...]) -> int:
    """Name cells, tasks and implementations, and what is unavailable here, and why."""
    registry = read_plugins(plugins)
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
