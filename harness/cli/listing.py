"""`rnn-harness list`: cells, tasks, implementations, and why one is unavailable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from harness.cli.exits import DONE, MISUSE
from harness.cli.options import json_option, plugin_option, read_plugins
from harness.registry import Registry


@click.command("list")
@json_option
@click.option(
    "--probe", is_flag=True, help="Import every framework to see whether it works."
)
@plugin_option
def list_plugins(as_json: bool, probe: bool, plugins: tuple[Path, ...]) -> int:
    """List cells, tasks and implementations, and why one is unavailable here."""
    registry = read_plugins(plugins)
    reasons = _probed(registry) if probe else _looked_at(registry)
    if as_json:
        click.echo(json.dumps(_listing(registry, reasons), indent=1))
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
        if reasons[name] is not None:
            click.echo(f"  {'':<18} {reasons[name]}")
    if registry.problems:
        click.echo("\nnot usable")
        for problem in registry.problems:
            click.echo(f"  {problem}")
    return MISUSE if registry.problems else DONE


def _from(origin: str) -> str:
    return "" if origin == "built in" else f" (from {origin})"


def _looked_at(registry: Registry) -> dict[str, str | None]:
    return {name: registry.unavailable(name) for name in registry.implementations}


def _probed(registry: Registry) -> dict[str, str | None]:
    from harness.run.availability import build_each

    return dict(build_each(registry))


def _listing(registry: Registry, reasons: Mapping[str, str | None]) -> dict[str, Any]:
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
                "unavailable": reasons[d.name],
            }
            for d in registry.implementations.values()
        ],
        "not_usable": [
            {"plugin": problem.plugin, "reason": problem.reason}
            for problem in registry.problems
        ],
    }
