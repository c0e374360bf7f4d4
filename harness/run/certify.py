"""Certify implementations without a suite, as `rnn-harness check` does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.registry import Registry
from harness.run.engine.local import LocalEngine
from harness.run.estimate.history import user_file
from harness.run.estimate.model import CostModel
from harness.run.executor import Executor
from harness.run.job import Limits
from harness.run.plan.certificate_cache import CertificateCache
from harness.run.plan.filter import compile_filter
from harness.run.plan.fingerprint import not_compared
from harness.run.plan.plan import Plan
from harness.run.plan.todo import planned
from harness.run.progress import Progress
from harness.run.worker.log import append_to
from harness.store import RunFolder, TrialRecord
from harness.trial import CertificateSettings, Settings, Trial


@dataclass(frozen=True)
class CheckRequest:
    """What to certify.

    Attributes:
        names: Implementations; each is certified for every cell that it computes.
        full: True for every combination of sizes instead of a pairwise set.
        cells: Cells; each is certified on every available implementation.
        expression: A filter, such as "torch-loop and not lstm"; None for all.
    """

    names: tuple[str, ...]
    device: str = "cpu"
    dtype: Any = "float32"
    precisions: tuple[str, ...] = ("highest",)
    full: bool = False
    cells: tuple[str, ...] = ()
    expression: str | None = None

    def trials(self, registry: Registry) -> list[Trial]:
        """Return one trial for each implementation, cell and precision.

        Raises:
            MisuseError: If the expression is malformed or has an unknown word.
        """
        pairs = [
            (name, cell)
            for name in self.names
            for cell in registry.implementation(name).cells
        ]
        pairs += [
            (name, cell)
            for cell in self.cells
            for name, declared in registry.implementations.items()
            if cell in declared.cells and registry.unavailable(name) is None
        ]
        trials = [
            Trial(
                "parity",
                name,
                cell,
                device=self.device,
                dtype=self.dtype,
                precision=precision,
                settings=CertificateSettings("full") if self.full else Settings(),
            )
            for name, cell in dict.fromkeys(pairs)
            for precision in self.precisions
        ]
        known = {word for trial in trials for word in trial.words}
        wanted = compile_filter(self.expression, known)
        return [trial for trial in trials if wanted(trial.words)]


def implementations_of(registry: Registry, files: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of the implementations that files declare."""
    declared = registry.implementations.values()
    return tuple(d.name for d in declared if d.file in files)


def cells_of(registry: Registry, files: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of the cells that files declare without an implementation."""
    computed = {
        cell
        for name in implementations_of(registry, files)
        for cell in registry.implementation(name).cells
    }
    declared = registry.cells.values()
    return tuple(d.name for d in declared if d.file in files and d.name not in computed)


def certify(
    registry: Registry, request: CheckRequest, jobs: int, folder: Path, console: Console
) -> list[TrialRecord]:
    """Certify the requested implementations, `jobs` trials side by side.

    Returns:
        One record for each implementation, cell and precision, in that order.
    """
    trials = request.trials(registry)
    run = RunFolder.create(folder)
    plan = Plan(tuple(trials), {}, ())
    plan_trial = partial(planned, registry=registry, run=run)
    for note in not_compared(registry, trials):
        console.print(note, soft_wrap=True)
    model = CostModel(registry, file=user_file())
    with Progress(console, jobs, model) as progress:
        progress.expect(plan)
        log = append_to(folder / "workers.log")
        with closing(LocalEngine(registry, jobs, Limits(), log)) as engine:
            Executor(run, plan_trial, engine, progress).execute(plan)
    CertificateCache(registry).keep(map(plan_trial, trials), run, since=0.0)
    order = [trial.key() for trial in trials]
    return sorted(run.records(), key=lambda r: order.index(r.trial.key()))
