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
from harness.printing import echo, echo_lines, one_line
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
        echo_lines(json.dumps(_listing(registry, reasons), indent=1))
        return exit_code(registry)
    for title, table in (("cells", registry.cells), ("tasks", registry.tasks)):
        echo(title)
        for name, declared in table.items():
            echo(_first_line(name, declared))
        echo()
    echo("implementations")
    for name, implementation in registry.implementations.items():
        cells = ", ".join(implementation.cells)
        echo(_first_line(name, implementation))
        devices = ", ".join(implementation.devices)
        facts = f"{implementation.framework}; {cells}; on {devices}"
        for words in filter(None, (facts, reasons[name])):
            echo(f"  {'':<18} {one_line(words)}")
    if registry.problems:
        echo()
        echo("not usable")
        for problem in registry.problems:
            echo(f"  {one_line(problem)}")
    return exit_code(registry)


def _first_line(name: str, declared: Declaration) -> str:
    origin = "" if declared.origin == BUILT_IN else f" (from {declared.origin})"
    return f"  {one_line(name):<18} {one_line(declared.summary + origin)}"


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
