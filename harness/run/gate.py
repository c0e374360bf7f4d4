"""Time a commit (the base) and the working tree in one session.

Each side has its own workers. This harness measures both; only the measured code
differs: the modules of the repository and its plugin files.
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
from harness.files.paths import real_path
from harness.interpreters.choose import load_interpreters
from harness.registry import Registry
from harness.run.engine.local import LocalEngine
from harness.run.engine.session import PoolTrials, run_session
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
class GateRequest:
    """What to gate.

    Attributes:
        suite: The suite, read with the working tree's plugins; only its speed trials
            run.
        files: The plugin files of the working tree.
        folder: The folder of both run folders.
        options: The options of the run; only the filter and the limits matter.
        only: The keys of the trials to time, or None for all.
        certified: The folder of an earlier gate whose certificates are used, or None.
    """

    suite: Suite
    files: tuple[Path, ...]
    device: str
    folder: Path
    options: Options
    only: frozenset[str] | None = None
    certified: Path | None = None


class _Console(Console):
    """A side's view of a shared console: each line begins with the name of the side."""

    def __init__(self, side: str, console: Console) -> None:
        super().__init__(force_terminal=False)
        self._side, self._shared = side, console

    def print(self, *objects: Any, **options: Any) -> None:
        self._shared.print(f"{self._side}:", *objects, **options)


@dataclass(frozen=True)
class _Side:
    """One side: its plugins, its trials, its run folder and its workers.

    Attributes:
        commit: The commit of the base, or None for the working tree.
    """

    name: str
    registry: Registry
    plan: Plan
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
        """Runs the certificates and commits the sessions."""
        return Executor(self.run, self.planned, self.engine, self.progress)

    def certify(self) -> None:
        """Run the certificates alone."""
        self.executor.execute(replace(self.plan, speed={}))

    def copy_certificates(self, gate: Path) -> None:
        """Copy the certificates from the folder of an earlier gate."""
        for trial in self.plan.certificates:
            trial_id = self.planned(trial).id
            found = gate / self.name / "trials" / trial_id
            if (found / "result.json").exists():
                shutil.copytree(found, self.run.trials / trial_id)

    def shown(self) -> RenderableType:
        """Return the name of the side and how far it is."""
        return Columns([f"{self.name}:", self.progress.shown()])


def gate(asked: GateRequest, checkout: Checkout, console: Console) -> tuple[Path, Path]:
    """Time base and working tree taking turns; return the two run folders.

    Raises:
        MisuseError: If the suite times nothing, nothing of the repository would be
            measured, or the folder is in use.
    """
    registries = _registries(asked, checkout)
    sessions = _sessions(asked, registries[NEW])
    _refuse_without_own(asked, checkout)
    folders = {name: asked.folder / name for name in (BASE, NEW)}
    for folder in folders.values():
        if folder.exists():
            raise MisuseError(
                f"{folder} exists; a gate is measured whole, so give a new folder with "
                "-o"
            )
    same = _same_sources(registries, sessions)
    if same and asked.certified is None:  # else it was printed before
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
            info = RunInfo(run, asked.suite, registry, asked.device, jobs=1, gate=gate)
            info.write()
            stack.callback(info.write)
            log = append_to(run.path / "workers.log")
            engine = LocalEngine(registry, 1, asked.options.limits, log)
            stack.callback(engine.close)
            progress = Progress(_Console(name, console), 1, CostModel(registry))
            plan = _plan_of(registry, sessions)
            of_base = commit if name == BASE else None
            sides.append(_Side(name, registry, plan, run, of_base, engine, progress))
        _measure(sides, asked.certified, console)
    return folders[BASE], folders[NEW]


def _sessions(asked: GateRequest, registry: Registry) -> dict[str, tuple[Trial, ...]]:
    """Return the trials to time, by session."""
    plan = make_plan(
        asked.suite,
        registry,
        asked.device,
        expression=asked.options.expression,
        choices={},
    )
    wanted = {
        name: tuple(t for t in trials if not asked.only or t.key() in asked.only)
        for name, trials in plan.speed.items()
    }
    sessions = {name: trials for name, trials in wanted.items() if trials}
    if not sessions:
        raise MisuseError(
            f"suite '{asked.suite.name}' times nothing that is asked for; give one "
            "with a [[speed]] section, or another -k"
        )
    return sessions


def _refuse_without_own(asked: GateRequest, checkout: Checkout) -> None:
    """Raise MisuseError if both sides would be the same installed code."""
    root = checkout.root
    own = [file for file in asked.files if real_path(file).is_relative_to(root)]
    if not own and not counterparts(checkout):
        raise MisuseError(
            f"nothing of the repository {root} would be measured, as no module that "
            f"Python finds lies in it and in its commit {checkout.commit[:12]}, and no "
            f"--plugin file does; `pip install -e {root}` if it is a package, or give "
            "--plugin FILE.py"
        )


def _registries(asked: GateRequest, checkout: Checkout) -> dict[str, Registry]:
    """Read the plugins of both sides; the workers of each have their own Python path.

    The path begins with the modules of the side.
    """
    # A new folder each time: a gate may measure twice.
    parent = Path(tempfile.mkdtemp(dir=checkout.tree.parent))
    there = [checkout.counterpart(file) for file in asked.files]
    found = {}
    for name, files, shown in (
        # First, because a module that both import is then that of the working tree.
        (NEW, asked.files, None),
        (BASE, [file for file in there if file.exists()], checkout),
    ):
        registry = Registry.discover(files)
        chosen = asked.suite.environments
        registry.interpreters = load_interpreters(chosen, registry)
        paths = [str(overlay(parent / name, shown)), os.environ.get(_PATH)]
        path = {_PATH: os.pathsep.join(filter(None, paths))}
        registry.frameworks = {
            key: replace(framework, environment={**framework.environment, **path})
            for key, framework in registry.frameworks.items()
        }
        found[name] = registry
    return found


_PATH = "PYTHONPATH"

SAME_SOURCES = (
    "base and working tree differ in no file that is compared: the modules of the "
    "timed plugins and what these name; to time what has changed, check -k and --plugin"
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
    registries: Mapping[str, Registry], sessions: Mapping[str, Sequence[Trial]]
) -> bool:
    """Say whether the sources of all trials have the same hash on both sides.

    Each side is asked in a process of its own, because a process that has found a
    module once does not find another one of that name.
    """
    trials = [trial.to_json() for session in sessions.values() for trial in session]
    found = {}
    for name, registry in registries.items():
        path = registry.frameworks["numpy"].environment[_PATH]
        done = subprocess.run(
            [sys.executable, "-P", "-c", _HASHES, *map(str, registry.files)],
            input=json.dumps(trials),
            env={**os.environ, _PATH: path},
            capture_output=True,
            text=True,
        )
        # Lines that a plugin prints are skipped.
        lines = [line for line in done.stdout.splitlines() if line[:9] == "sources ["]
        found[name] = name if done.returncode or not lines else lines[-1]
    return found[BASE] == found[NEW]


def _plan_of(registry: Registry, sessions: Mapping[str, Sequence[Trial]]) -> Plan:
    """Return the trials that a side has, and the certificates that they need."""
    speed = {name: tuple(_known(registry, t)) for name, t in sessions.items()}
    timed = [certificate_trial(t) for trials in speed.values() for t in trials]
    certificates = {trial.key(): trial for trial in timed}
    return Plan(tuple(certificates.values()), speed, ())


def _known(registry: Registry, trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials whose implementation, cell and task a side has."""
    return [
        trial
        for trial in trials
        if trial.implementation in registry.implementations
        and trial.cell in registry.implementations[trial.implementation].cells
        and (trial.task is None or trial.task in registry.tasks)
    ]


def _measure(sides: Sequence[_Side], certified: Path | None, console: Console) -> None:
    """Certify both sides, or copy earlier certificates; then time every session."""
    for side in sides:
        if certified is not None:
            side.copy_certificates(certified)
        left = () if certified is not None else side.plan.certificates
        side.progress.expect(replace(side.plan, certificates=left))
        side.progress.shown()  # which times numpy once, now that no session runs
    with live(console, lambda: Group(*(side.shown() for side in sides))):
        if certified is None:
            console.print("certificates of both sides first")
            for side in sides:
                side.certify()
        names = list(sides[-1].plan.speed)
        for number, name in enumerate(names, 1):
            count = len(sides[-1].plan.speed[name])
            console.print(
                f"session {number} of {len(names)}: {name}, {count} a side",
                soft_wrap=True,
            )
            _session(name, sides)


def _session(name: str, sides: Sequence[_Side]) -> None:
    """Time the trials of both sides taking turns, and commit them."""
    with ExitStack() as stack:
        begun, groups = [], []
        for side in sides:
            todo = map(side.planned, side.plan.speed[name])
            attempts = stack.enter_context(side.executor.begin(todo))
            pool = stack.enter_context(side.engine.lend())
            begun.append((side, attempts))
            groups.append(PoolTrials(pool, attempts.trials, attempts))
        try:
            answers = run_session(groups)
        except BaseException:
            for side in sides:
                side.engine.stop(now=True)
            raise
    facts = {"session": session_name(name)}
    for side, attempts in begun:
        side.executor.commit(attempts, answers, facts)
