"""Certificates without a suite: what `rnn-harness check` does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.registry import Registry
from harness.run.local import Executor
from harness.run.plan import Plan
from harness.run.progress import Progress
from harness.store import RunFolder, TrialRecord
from harness.trial import Trial


@dataclass(frozen=True)
class Request:
    """What to certify.

    Attributes:
        names: Implementations, each for every cell it computes.
        full: Every combination of sizes instead of a pairwise set.
    """

    names: tuple[str, ...]
    device: str = "cpu"
    dtype: Any = "float32"
    precisions: tuple[str, ...] = ("highest",)
    full: bool = False

    def trials(self, registry: Registry) -> Iterator[Trial]:
        """Yield one trial for each implementation, cell and precision."""
        for name in self.names:
            for cell in registry.implementation(name).cells:
                for precision in self.precisions:
                    yield Trial(
                        "parity",
                        name,
                        cell,
                        device=self.device,
                        dtype=self.dtype,
                        precision=precision,
                        settings={"shapes": "full"} if self.full else {},
                    )


def certify(
    registry: Registry, request: Request, jobs: int, folder: Path, console: Console
) -> list[TrialRecord]:
    """Certify what is requested, `jobs` trials side by side.

    Returns:
        One record for each implementation, cell and precision, in that order.
    """
    trials = list(request.trials(registry))
    run = RunFolder.create(folder)
    plan = Plan(tuple(trials), {}, ())
    with Progress(console, jobs) as progress:
        progress.expect(plan)
        Executor(run, registry, jobs, progress, {}, lambda: None).execute(plan)
    order = [trial.slot() for trial in trials]
    return sorted(run.records(), key=lambda r: order.index(r.trial.slot()))
