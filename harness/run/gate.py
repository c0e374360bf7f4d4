"""Base against working tree in one session: two sides, each with workers of its own.

Both are measured by this harness. Only what is measured differs: the modules of the
repository and its plugin files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType

from harness.errors import MisuseError
from harness.interpreters import choose as environments
from harness.machine.facts import describe_environment
from harness.machine.lock import measuring
from harness.machine.peak import Peak
from harness.registry import Registry
from harness.run.engine.peaks import PeakKey
from harness.run.engine.pool import Crew
from harness.run.engine.session import Ask, Stands, fitness_before, time_in_turns
from harness.run.estimate.model import CostModel
from harness.run.executor import Executor, session_name
from harness.run.job import Answer, Job, Limits, Options, Sink
from harness.run.plan.derived import certificate_trial
from harness.run.plan.plan import Plan, make_plan
from harness.run.plan.todo import Planned
from harness.run.progress import Progress, live
from harness.run.worktree import Checkout, counterparts, overlay
from harness.store import Attempt, RunFolder
from harness.suite import Suite
from harness.trial import Trial

BASE, NEW = "base", "new"

_WAITS = "trials of another rnn-harness command on this machine"


@dataclass(frozen=True)
class Request:
    """What to gate.

    Attributes:
        suite: As the working tree's plugins understand it; only its timings count.
        files: Plugin files of the working tree.
        folder: Takes a run folder for each side.
        options: Its filter and limits count.
        only: Slots of the trials to time, or None for all.
        certified: Folder of a gate whose certificates hold here too, or None.
    """

    suite: Suite
    files: tuple[Path, ...]
    device: str
    folder: Path
    options: Options
    only: frozenset[str] | None = None
    certified: Path | None = None


class _Console(Console):
    """A console that both sides share, each line with the side it is about."""

    def __init__(self, side: str, console: Console) -> None:
        super().__init__(force_terminal=False)
        self._side, self._shared = side, console

    def print(self, *objects: Any, **options: Any) -> None:
        self._shared.print(f"{self._side}:", *objects, **options)


class _Engine:
    """Runs jobs on one crew, which outlives the stages."""

    slots = quiet_slots = 1

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.notes: list[str] = []

    def run(self, job: Job, slot: int, sink: Sink) -> Mapping[str, Answer]:
        return self._crew.run(job, sink)

    def stop(self, *, now: bool) -> None:
        self._crew.stop(now=now)

    def close(self) -> None: ...


class _Side(Executor):
    """One side: its plugins, its workers and its run folder."""

    def __init__(
        self,
        name: str,
        registry: Registry,
        run: RunFolder,
        commit: str | None,
        limits: Limits,
        console: Console,
    ) -> None:
        self.name, self._commit_hash, self.limits = name, commit, limits
        self.crew = Crew(registry, limits, self._write)
        model = CostModel(registry)
        progress = Progress(_Console(name, console), 1, model)
        engine = _Engine(self.crew)
        super().__init__(run, registry, engine, progress, {}, lambda: None)

    def _write(self, data: bytes) -> None:
        with (self.run.path / "workers.log").open("ab") as log:
            log.write(data)

    def _planned(self, trial: Trial) -> Planned:
        """Plan a trial; the source of the base is its commit, whatever lies here."""
        todo = super()._planned(trial)
        if self._commit_hash is None:
            return todo
        sources = {"commit": self._commit_hash}
        return replace(todo, sources=sources, id=trial.identity(sources), runs=True)

    def bring(self, certificates: Iterable[Trial], folder: Path) -> None:
        """Bring certificates that an earlier gate took into this run folder."""
        for trial in certificates:
            todo = self._planned(trial)
            found = folder / self.name / "trials" / todo.id
            if (found / "result.json").exists():
                shutil.copytree(found, self.run.trials / todo.id)

    def expect(self, plan: Plan) -> None:
        """Take in what is to come."""
        self.progress.expect(plan)
        self.progress.shown()  # which times numpy once, now that no session runs

    def begin(self, trials: Iterable[Trial]) -> dict[str, tuple[Planned, Attempt]]:
        """Begin an attempt at each trial of a session."""
        todo = [self._planned(trial) for trial in trials]
        return {each.id: (each, self._begin(each)) for each in todo}

    def end(
        self,
        attempts: Mapping[str, tuple[Planned, Attempt]],
        answers: Mapping[str, Answer],
        facts: Mapping[str, Any],
        peaks: Mapping[PeakKey, Peak],
    ) -> None:
        """Commit what a session found."""
        for trial_id, (todo, attempt) in attempts.items():
            answer = answers[f"{self.name}/{trial_id}"]
            peak = peaks.get(PeakKey.of(todo.trial))
            known = {"peak": peak.to_json()} if peak else {}
            told = {**answer.facts, **facts, **known}
            self._commit(todo, attempt, replace(answer, facts=told))

    def close(self) -> None:
        """Let every worker end."""
        self.crew.close()


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
    runs = {name: RunFolder.create(folder) for name, folder in folders.items()}
    info = {name: _info(request, registries[name]) for name in runs}
    same = _same_sources(paths, registries, plan)
    facts = {"same_sources": same}
    info[BASE]["gate"] = {"side": BASE, "commit": checkout.commit, **facts}
    info[NEW]["gate"] = {"side": NEW, "against": checkout.commit, **facts}
    if same and request.certified is None:  # else it was said
        console.print(SAME_SOURCES, soft_wrap=True)
    start_s = time.monotonic()
    with ExitStack() as stack:
        sides = []
        for name, run in runs.items():
            stack.enter_context(run.locked())
            run.write_info(info[name])
            commit = checkout.commit if name == BASE else None
            sides.append(
                _Side(
                    name, registries[name], run, commit, request.options.limits, console
                )
            )
            stack.callback(sides[-1].close)
        try:
            _measure(sides, plan, console, request.certified)
        finally:
            for name, run in runs.items():
                info[name]["wall_time_s"] = time.monotonic() - start_s
                run.write_info(info[name])
    return folders[BASE], folders[NEW]


def _refuse_without_own(request: Request, checkout: Checkout) -> None:
    """Raise MisuseError where both sides would be the same installed code."""
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
    """Return the path of each side, which shows its state of the repository first."""
    # Of its own each time: a gate may measure twice.
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
    for name in (NEW, BASE):  # where both read a neighbour, the working tree's is read
        registry = Registry.discover(files[name])
        registry.use_environments(
            environments.load(request.suite.environments, registry)
        )
        path = {"PYTHONPATH": paths[name]}
        registry.frameworks = {
            key: replace(framework, environment={**framework.environment, **path})
            for key, framework in registry.frameworks.items()
        }
        found[name] = registry
    return found


SAME_SOURCES = (
    "base and working tree have the same sources: of the plugins that are timed no "
    "Python file differs; to time what has changed, see to -k and --plugin"
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

    Each side is asked in a process of its own: a module once found is found there for
    good.
    """
    trials = [t.to_json() for session in plan.speed.values() for t in session]
    told = {}
    for name, path in paths.items():
        done = subprocess.run(
            [sys.executable, "-P", "-c", _HASHES, *map(str, registries[name].files)],
            input=json.dumps(trials),
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        # What a plugin prints is not of interest, and none that cannot be read is.
        lines = [line for line in done.stdout.splitlines() if line[:9] == "sources ["]
        told[name] = name if done.returncode or not lines else lines[-1]
    return told[BASE] == told[NEW]


def _info(request: Request, registry: Registry) -> dict[str, Any]:
    libraries = [n for f in registry.frameworks.values() for n in f.distributions]
    return {
        "choices": {},
        "started_at": time.time(),
        "wall_time_s": 0.0,
        "suite": request.suite.model_dump(mode="json"),
        "device": request.device,
        "jobs": 1,
        "plugins": [file.name for file in registry.files],
        "environment": describe_environment([*libraries, "numpy", "rnn-harness"]),
    }


def _narrowed(plan: Plan, only: frozenset[str] | None) -> Plan:
    """Return a plan of some trials alone, sessions without any left out."""
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
        side.expect(plans[side.name])
    with live(console, lambda: Group(*map(_shown, sides))):
        if certified is None:
            console.print("certificates of both sides first")
            for side in sides:
                side.execute(replace(plans[side.name], speed={}))
        for number, (name, trials) in enumerate(plan.speed.items(), 1):
            console.print(
                f"session {number} of {len(plan.speed)}: {name}, {len(trials)} a side",
                soft_wrap=True,
            )
            of_side = {side.name: plans[side.name].speed[name] for side in sides}
            _session(name, sides, of_side)


def _shown(side: _Side) -> RenderableType:
    return Columns([f"{side.name}:", side.progress.shown()])


def _plan_of(registry: Registry, plan: Plan) -> Plan:
    """Return what a side can be asked for, after the certificates that it rests on."""
    speed = {name: tuple(_known(registry, t)) for name, t in plan.speed.items()}
    timed = [certificate_trial(t) for trials in speed.values() for t in trials]
    parity = {trial.key(): trial for trial in timed}
    return Plan(tuple(parity.values()), speed, ())


def _known(registry: Registry, trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials that a side can be asked for; it lacks what came later."""
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
    session = session_name(name)
    attempts = {side.name: side.begin(of_side[side.name]) for side in sides}
    sinks = {s.name: s.sink(attempts[s.name]) for s in sides}
    trials = {
        f"{side}/{trial_id}": todo.trial
        for side, begun in attempts.items()
        for trial_id, (todo, _) in begun.items()
    }

    def waits() -> None:
        sinks[NEW].waits(_WAITS)

    try:
        with measuring(alone=True, waits=waits, check=lambda: None):
            for sink in sinks.values():
                sink.waits(None)
            fitness = fitness_before(trials.values())
            with _asked(sides, attempts, sinks) as (ask, stands):
                answers = time_in_turns(trials, ask, _Both(sinks.values()), stands)
            peaks = _peaks(sides, trials, answers, fitness["verdict"])
    except BaseException:
        for side in sides:
            side.crew.stop(now=True)
        for begun in attempts.values():
            for _, attempt in begun.values():
                attempt.abandon()
        raise
    for side in sides:
        side.end(
            attempts[side.name],
            answers,
            {"session": session, "fitness": fitness},
            peaks,
        )


def _peaks(
    sides: Sequence[_Side],
    trials: Mapping[str, Trial],
    answers: Mapping[str, Answer],
    machine: str,
) -> Mapping[PeakKey, Peak]:
    """Return what the libraries reach, which both sides share.

    The working tree's are asked: it is what measures. Not under a memory limit, which
    large arrays of no trial might break.
    """
    (new,) = [side for side in sides if side.name == NEW]
    if new.limits.memory_bytes is not None:
        return {}
    ok = [trial for key, trial in trials.items() if answers[key].outcome == "ok"]
    return new.crew._peaks.best(_known(new.registry, ok), machine)


class _Both:
    """Tells both sides of rounds."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks = tuple(sinks)

    def round(self, number: int, rounds: int) -> None:
        for sink in self._sinks:
            sink.round(number, rounds)


@contextmanager
def _asked(
    sides: Sequence[_Side],
    attempts: Mapping[str, Mapping[str, tuple[Planned, Attempt]]],
    sinks: Mapping[str, Sink],
) -> Iterator[tuple[Ask, Stands]]:
    """Give what asks the crew of the side that a trial id begins with."""
    with ExitStack() as stack:
        of_side = {}
        for side in sides:
            todo = {id: each.trial for id, (each, _) in attempts[side.name].items()}
            asker = side.crew.asker(Job(todo, session=True), sinks[side.name])
            of_side[side.name] = stack.enter_context(asker)

        def ask(
            key: str, trial: Trial, command: str, phase: str | None, number: int = 0, /
        ) -> Answer | tuple[Any, ...] | None:
            side, _, trial_id = key.partition("/")
            return of_side[side][0](trial_id, trial, command, phase, number)

        def stands(key: str, answer: Answer, /) -> bool:
            side, _, trial_id = key.partition("/")
            return of_side[side][1](trial_id, answer)

        yield ask, stands
