"""The text and the JSON of the check of a task, which `check` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from harness.measure.task_contract import PROBLEMS, TaskCheck


def task_json(found: TaskCheck) -> dict[str, Any]:
    """Return the check as JSON values; the problem of a satisfied clause is null."""
    return asdict(found)


def task_text(found: TaskCheck) -> str:
    """Return a first line, each clause with its problem, and the verdict."""
    lines = [f"{found.task} · task · {PROBLEMS} problems of length {found.length}"]
    for name, problem in found.clauses.items():
        lines.append(f"  {name:<26} {'ok' if problem is None else 'BROKEN'}")
        if problem is not None:
            lines.append(f"  {'':<26} {problem}")
    count = len(found.clauses)
    if found.broken:
        lines.append(f"the contract is broken: {found.broken} of {count} checks")
    else:
        lines.append(f"the contract holds: {count} checks")
    return "\n".join([*lines, ""])
