"""Certificates without a suite: what `rnn-harness check` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.registry import Registry
from harness.run.local import Executor
from harness.run.plan import Plan
from harness.run.progress import Progress
from harness.store import RunFolder, TrialRecord
from harness.trial import Trial


def certify(
    registry: Registry,
    names: Sequence[str],
    device: str,
    dtype: Any,
    jobs: int,
    folder: Path,
    console: Console,
) -> list[TrialRecord]:
    """Certify implementations for every cell they compute.

    Returns:
        One record for each implementation and cell, in that order.
    """
    trials = [
        Trial("parity", name, cell, device=device, dtype=dtype)
        for name in names
        for cell in registry.implementation(name).cells
    ]
    run = RunFolder.create(folder)
    plan = Plan(tuple(trials), {}, ())
    with Progress(console, jobs) as progress:
        progress.expect(plan)
        Executor(run, registry, jobs, progress, {}, lambda: None).execute(plan)
    order = [trial.slot() for trial in trials]
    return sorted(run.records(), key=lambda r: order.index(r.trial.slot()))
