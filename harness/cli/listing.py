"""`rnn-harness list`: list cells, tasks, implementations, and what is unavailable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from harness.cli.exits import exit_code
from harness.cli.options import json_option, plugin_option, read_plugins
from harness.declarations import BUILT_IN, Declaration
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
    reasons = {name: registry.unavailable(name) for name in registry.implementations}
    if probe:
        from harness.run.availability import build_each

        reasons = dict(build_each(registry))
    if as_json:
        click.echo(json.dumps(_listing(registry, reasons), indent=1))
        return exit_code(registry)
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
    return exit_code(registry)


def _from(origin: str) -> str:
    return "" if origin == BUILT_IN else f" (from {origin})"


def _listing(registry: Registry, reasons: Mapping[str, str | None]) -> dict[str, Any]:
    def described(plugin: Declaration) -> dict[str, Any]:
        names = ("name", "summary", "origin")
        return {name: getattr(plugin, name) for name in names}

    return {
        "cells": [described(d) for d in registry.cells.values()],
        "tasks": [described(d) for d in registry.tasks.values()],
        "implementations": [
            {
                **described(d),
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
