"""The text and the JSON of the check of a task, which `check` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from harness.measure.task_contract import PROBLEMS, TaskCheck
from harness.printing import one_line


def task_json(found: TaskCheck) -> dict[str, Any]:
    """Return the check as JSON values; the problem of a satisfied clause is null."""
    return asdict(found)


def task_text(found: TaskCheck) -> str:
    """Return a first line, each clause with its problem, and the verdict."""
    drawn = f"{PROBLEMS} problems of length {found.length}"
    lines = [f"{one_line(found.task)} · task · {drawn}"]
    for name, problem in found.clauses.items():
        lines.append(f"  {one_line(name):<26} {'ok' if problem is None else 'BROKEN'}")
        if problem is not None:
            lines.append(f"  {'':<26} {one_line(problem)}")
    count = len(found.clauses)
    if found.broken:
        lines.append(f"the contract is broken: {found.broken} of {count} checks")
    else:
        lines.append(f"the contract holds: {count} checks")
    return "\n".join([*lines, ""])
