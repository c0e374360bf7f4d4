"""A commit (the base) and the working tree in one session, each with its own workers.

This harness measures both. Only the measured code differs: the modules of the
repository and its plugin files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType

from harness.errors import MisuseError
from harness.interpreters import choose as environments
from harness.registry import Registry
from harness.run.engine.local import LocalEngine
from harness.run.engine.session import Part, run_session
from harness.run.estimate.model import CostModel
from harness.run.executor import Executor, session_name
from harness.run.info import RunInfo
from harness.run.job import Options
from harness.run.plan.derived import certificate_trial
from harness.run.plan.plan import Plan, make_plan
from harness.run.plan.todo import Planned, planned
from harness.run.progress import Progress, live
from harness.run.worker.log import append_to
from harness.run.worktree import Checkout, counterparts, overlay
from harness.store import RunFolder
from harness.suite import Suite
from harness.trial import Trial

BASE, NEW = "base", "new"


@dataclass(frozen=True)
class Request:
    """What to gate.

    Attributes:
        suite: Read with the working tree's plugins; only its speed trials run.
        files: Plugin files of the working tree.
        folder: The run folders of both sides are made in it.
        options: Only the filter and the limits matter.
        only: Keys of the trials to time, or None for all.
        certified: Folder of an earlier gate whose certificates are used, or None.
    """

    suite: Suite
    files: tuple[Path, ...]
    device: str
    folder: Path
    options: Options
    only: frozenset[str] | None = None
    certified: Path | None = None


class _Console(Console):
    """A console that both sides share; each line begins with its side."""

    def __init__(self, side: str, console: Console) -> None:
        super().__init__(force_terminal=False)
        self._side, self._shared = side, console

    def print(self, *objects: Any, **options: Any) -> None:
        self._shared.print(f"{self._side}:", *objects, **options)


@dataclass(frozen=True)
class _Side:
    """One side: its plugins, its run folder and its workers.

    Attributes:
        commit: The commit that the base is, or None for the working tree.
    """

    name: str
    registry: Registry
    run: RunFolder
    commit: str | None
    engine: LocalEngine
    progress: Progress

    def planned(self, trial: Trial) -> Planned:
        """Plan a trial; the source of the base is its commit, not the working tree."""
        todo = planned(trial, self.registry, self.run)
        if self.commit is None:
            return todo
        sources = {"commit": self.commit}
        return replace(todo, sources=sources, id=trial.identity(sources), runs=True)

    @cached_property
    def executor(self) -> Executor:
        """Runs its certificates and commits its sessions."""
        return Executor(self.run, self.planned, self.engine, self.progress)

    def bring(self, certificates: Iterable[Trial], folder: Path) -> None:
        """Copy certificates of an earlier gate into this run folder."""
        for trial in certificates:
            todo = self.planned(trial)
            found = folder / self.name / "trials" / todo.id
            if (found / "result.json").exists():
                shutil.copytree(found, self.run.trials / todo.id)

    def shown(self) -> RenderableType:
        """Return how far it is."""
        return Columns([f"{self.name}:", self.progress.shown()])


def gate(request: Request, checkout: Checkout, console: Console) -> tuple[Path, Path]:
    """Time base and working tree taking turns; return the two run folders.

    Raises:
        MisuseError: If the suite times nothing, nothing of the repository would be
            measured, or the folder is in use.
    """
    paths = _paths(checkout)
    registries = _registries(request, checkout, paths)
    plan = make_plan(
        request.suite,
        registries[NEW],
        request.device,
        expression=request.options.expression,
        choices={},
    )
    plan = _narrowed(plan, request.only)
    if not plan.speed:
        raise MisuseError(
            f"suite '{request.suite.name}' times nothing that is asked for; give one "
            "with a [[speed]] section, or another -k"
        )
    _refuse_without_own(request, checkout)
    folders = {name: request.folder / name for name in (BASE, NEW)}
    for folder in folders.values():
        if folder.exists():
            raise MisuseError(
                f"{folder} exists; a gate is measured whole, so give a new folder with "
                "-o"
            )
    same = _same_sources(paths, registries, plan)
    if same and request.certified is None:  # else it was printed before
        console.print(SAME_SOURCES, soft_wrap=True)
    commit = checkout.commit
    with ExitStack() as stack:
        sides = []
        for name, gate in (
            (BASE, {"side": BASE, "commit": commit, "same_sources": same}),
            (NEW, {"side": NEW, "against": commit, "same_sources": same}),
        ):
            registry, run = registries[name], RunFolder.create(folders[name])
            stack.enter_context(run.locked())
            info = RunInfo(
                run, request.suite, registry, request.device, jobs=1, gate=gate
            )
            info.write()
            stack.callback(info.write)
            log = append_to(run.path / "workers.log")
            engine = LocalEngine(registry, 1, request.options.limits, log)
            stack.callback(engine.close)
            model = CostModel(registry)
            progress = Progress(_Console(name, console), 1, model)
            of_base = commit if name == BASE else None
            sides.append(_Side(name, registry, run, of_base, engine, progress))
        _measure(sides, plan, console, request.certified)
    return folders[BASE], folders[NEW]


def _refuse_without_own(request: Request, checkout: Checkout) -> None:
    """Raise MisuseError if both sides would be the same installed code."""
    root = checkout.root
    own = [file for file in request.files if file.resolve().is_relative_to(root)]
    if not own and not counterparts(checkout):
        raise MisuseError(
            f"nothing of the repository {root} would be measured, as no module that "
            f"Python finds lies in it and in its commit {checkout.commit[:12]}, and no "
            f"--plugin file does; `pip install -e {root}` if it is a package, or give "
            "--plugin FILE.py"
        )


def _paths(checkout: Checkout) -> dict[str, str]:
    """Return Python's path for each side, whose modules come first."""
    # A new folder each time: a gate may measure twice.
    parent = Path(tempfile.mkdtemp(dir=checkout.tree.parent))
    first = {
        BASE: overlay(parent / "base-path", checkout),
        NEW: overlay(parent / "new-path", None),
    }
    earlier = os.environ.get("PYTHONPATH")
    return {
        name: os.pathsep.join(filter(None, (str(folder), earlier)))
        for name, folder in first.items()
    }


def _registries(
    request: Request, checkout: Checkout, paths: Mapping[str, str]
) -> dict[str, Registry]:
    """Read the plugins of both sides; their workers have a path each."""
    there = [checkout.counterpart(file) for file in request.files]
    files = {BASE: [f for f in there if f.exists()], NEW: list(request.files)}
    found = {}
    for name in (NEW, BASE):  # a module that both import is the working tree's
        registry = Registry.discover(files[name])
        chosen = request.suite.environments
        registry.environments = environments.load(chosen, registry)
        path = {"PYTHONPATH": paths[name]}
        registry.frameworks = {
            key: replace(framework, environment={**framework.environment, **path})
            for key, framework in registry.frameworks.items()
        }
        found[name] = registry
    return found


SAME_SOURCES = (
    "base and working tree have the same sources: no Python file of the timed plugins "
    "differs; to time what has changed, check -k and --plugin"
)

_HASHES = """
import json, sys
from harness.registry import Registry
from harness.run.plan.fingerprint import source_hashes
from harness.trial import Trial

registry = Registry.discover(sys.argv[1:])
trials = [Trial.from_json(values) for values in json.load(sys.stdin)]
print()
print("sources", json.dumps([dict(source_hashes(registry, trial)) for trial in trials]))
"""


def _same_sources(
    paths: Mapping[str, str], registries: Mapping[str, Registry], plan: Plan
) -> bool:
    """Say whether the sources of all trials have the same hash on both sides.

    Each side is asked in a process of its own: within one process a module, once
    found, stays the same.
    """
    trials = [t.to_json() for session in plan.speed.values() for t in session]
    found = {}
    for name, path in paths.items():
        done = subprocess.run(
            [sys.executable, "-P", "-c", _HASHES, *map(str, registries[name].files)],
            input=json.dumps(trials),
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        # Lines that a plugin prints are skipped.
        lines = [line for line in done.stdout.splitlines() if line[:9] == "sources ["]
        found[name] = name if done.returncode or not lines else lines[-1]
    return found[BASE] == found[NEW]


def _narrowed(plan: Plan, only: frozenset[str] | None) -> Plan:
    """Return a plan of some trials alone, without empty sessions."""
    if only is None:
        return plan
    speed = {
        name: tuple(trial for trial in trials if trial.key() in only)
        for name, trials in plan.speed.items()
    }
    return replace(plan, speed={name: left for name, left in speed.items() if left})


def _measure(
    sides: Sequence[_Side], plan: Plan, console: Console, certified: Path | None
) -> None:
    plans = {side.name: _plan_of(side.registry, plan) for side in sides}
    if certified is not None:
        for side in sides:
            side.bring(plans[side.name].parity, certified)
        plans = {name: replace(plan, parity=()) for name, plan in plans.items()}
    for side in sides:
        side.progress.expect(plans[side.name])
        side.progress.shown()  # which times numpy once, now that no session runs
    with live(console, lambda: Group(*(side.shown() for side in sides))):
        if certified is None:
            console.print("certificates of both sides first")
            for side in sides:
                side.executor.execute(replace(plans[side.name], speed={}))
        for number, (name, trials) in enumerate(plan.speed.items(), 1):
            console.print(
                f"session {number} of {len(plan.speed)}: {name}, {len(trials)} a side",
                soft_wrap=True,
            )
            of_side = {side.name: plans[side.name].speed[name] for side in sides}
            _session(name, sides, of_side)


def _plan_of(registry: Registry, plan: Plan) -> Plan:
    """Return the trials that a side has, and the certificates that they need."""
    speed = {name: tuple(_known(registry, t)) for name, t in plan.speed.items()}
    timed = [certificate_trial(t) for trials in speed.values() for t in trials]
    parity = {trial.key(): trial for trial in timed}
    return Plan(tuple(parity.values()), speed, ())


def _known(registry: Registry, trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials whose implementation, cell and task a side has."""
    return [
        trial
        for trial in trials
        if trial.implementation in registry.implementations
        and trial.cell in registry.implementations[trial.implementation].cells
        and (trial.task is None or trial.task in registry.tasks)
    ]


def _session(
    name: str, sides: Sequence[_Side], of_side: Mapping[str, Sequence[Trial]]
) -> None:
    """Time the trials of both sides taking turns, and commit them."""
    with ExitStack() as stack:
        begun, parts = [], []
        for side in sides:
            todo = map(side.planned, of_side[side.name])
            attempts = stack.enter_context(side.executor.begin(todo))
            pool = stack.enter_context(side.engine.lend())
            begun.append((side, attempts))
            parts.append(Part(pool, attempts.trials, attempts))
        try:
            answers = run_session(parts)
        except BaseException:
            for side in sides:
                side.engine.stop(now=True)
            raise
    facts = {"session": session_name(name)}
    for side, attempts in begun:
        side.executor.commit(attempts, answers, facts)
