"""Execute a suite in a run folder, as `rnn-harness run` does."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from pydantic import ValidationError
from rich.console import Console

from harness.errors import MisuseError
from harness.measure import most_updates
from harness.registry import Registry
from harness.run.engine.local import LocalEngine
from harness.run.estimate.cost import Estimate
from harness.run.estimate.history import user_file
from harness.run.estimate.model import CostModel
from harness.run.executor import Executor
from harness.run.info import RunInfo
from harness.run.job import DEFAULT_OPTIONS, Engine, Options, StoppedError
from harness.run.plan.certificate_cache import CertificateCache
from harness.run.plan.derived import gradients_trial
from harness.run.plan.fingerprint import not_compared
from harness.run.plan.plan import Plan, make_plan, without_certificates
from harness.run.plan.todo import OTHER_ID, Planned, planned
from harness.run.progress import Progress
from harness.run.worker.log import append_to
from harness.store import RunFolder
from harness.suite import Suite
from harness.trial import Trial

_MAY_DIFFER = ("why", "seeds", "implementations")
"""Keys of a suite that change no trial; runs of one folder may differ in them."""

_SAME = "the same compared files, libraries and processor"
"""What an earlier certificate was made with; docs/plugins.md says which files."""


class Preview(NamedTuple):
    """A trial, and whether it would run; the label names every possible implementation.

    Learning runs on one of several implementations, which is chosen later.
    """

    label: str
    todo: Planned


@dataclass
class Execution:
    """A suite about to be run in a folder.

    Attributes:
        device: `cpu` or `cuda:N`, for every trial.
        stopped: Whether the run was asked to stop.
    """

    suite: Suite
    registry: Registry
    run: RunFolder
    device: str
    options: Options = DEFAULT_OPTIONS
    stopped: bool = False
    _executor: Executor | None = None
    _known: dict[str, Planned] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Return the trials by stage.

        Raises:
            MisuseError: If the filter matches nothing, or the folder holds another
                suite.
        """
        info = self.run.info()
        self._check_same_suite(info)
        plan = make_plan(
            self.suite,
            self.registry,
            self.device,
            expression=self.options.expression,
            choices=info.get("choices", {}),
        )
        return plan if self.options.certify else without_certificates(plan)

    def preview(self) -> list[tuple[str, list[Preview]]]:
        """Return every stage with its trials and why each would run or not."""
        plan = self.plan()
        stages = [("parity", [self._preview(t) for t in plan.certificates])]
        independent = {
            measure: [self._preview(t) for t in trials]
            for measure, trials in plan.independent.items()
        }
        gradients = independent.pop("gradients", [])
        stages += independent.items()
        for name, trials in plan.speed.items():
            session = [self._preview(t) for t in trials]
            stages.append((f"speed, {name}", _together(session)))
        learning = []
        for group in plan.learning:
            trial, names = group.candidates[0], group.implementations
            learning.append(self._preview(trial, names))
            if group.follow_gradients:
                follower = gradients_trial(trial, learning[-1].todo.id)
                gradients.append(self._preview(follower, names))
        stages += [("learning", learning), ("gradients", gradients)]
        return [(name, previews) for name, previews in stages if previews]

    def notes(self) -> list[str]:
        """Return what a user should know before the trials run."""
        found = [preview.todo for _, stage in self.preview() for preview in stage]
        count = sum(todo.why == OTHER_ID for todo in found)
        notes = [*self.plan().notes]
        notes += not_compared(self.registry, [todo.trial for todo in found])
        if count:
            notes.append(
                f"trials that this folder holds under ids of an earlier version of "
                f"rnn-harness, and that are measured again: {count}"
            )
        return notes

    def _preview(self, trial: Trial, names: Sequence[str] = ()) -> Preview:
        every = " or ".join(names or [trial.implementation])
        label = trial.label.replace(trial.implementation, every, 1)
        return Preview(label, self._planned(trial))

    def _planned(self, trial: Trial) -> Planned:
        """Plan a trial, or skip its certificate if cached; its files are read once."""
        key = trial.key()
        if key not in self._known:
            todo = self._planned_anew(trial)
            wanted = todo.runs and not self.options.force
            if wanted and (cached := self._certificates.find(todo)):
                why = f"certified {cached.made}, with {_SAME}"
                todo = replace(todo, runs=False, why=why)
            self._known[key] = todo
        return self._known[key]

    def _planned_anew(self, trial: Trial) -> Planned:
        return planned(trial, self.registry, self.run, self.options)

    @cached_property
    def _certificates(self) -> CertificateCache:
        return CertificateCache(self.registry)

    @cached_property
    def _model(self) -> CostModel:
        """Predicts the cost of a trial, from this folder and from earlier runs."""
        return CostModel(self.registry, self.run.records(), user_file())

    def estimate(self) -> Estimate:
        """Return what the trials that are not done will take."""
        return self._estimate(self.options.jobs)[0]

    def _estimate(self, jobs: int) -> tuple[Estimate, list[Trial], dict[str, float]]:
        """Return the estimate, its trials, and what `_begun` says about them."""
        plan = self.plan()

        def to_run(trials: Iterable[Trial]) -> list[Trial]:
            return [trial for trial in trials if self._planned(trial).runs]

        first = to_run(plan.first)
        # A session is measured again as a whole.
        sessions = [s for s in plan.speed.values() if to_run(s)]
        timed = [trial for session in sessions for trial in session]
        learning = []
        for group in plan.learning:
            todo = self._planned(self._model.cheapest(group.likely))
            learning += [todo.trial] if todo.runs else []
            follower = gradients_trial(todo.trial, todo.id)
            if group.follow_gradients and (todo.runs or to_run([follower])):
                learning.append(follower)
        stages = [first, timed, learning]
        begun = self._begun(learning)
        estimate = self._model.estimate(stages, jobs, begun)
        return estimate, [*first, *timed, *learning], begun

    def _begun(self, learning: Iterable[Trial]) -> dict[str, float]:
        """Return the part of its updates that each learning trial has done, by key."""
        if self.options.force:
            return {}
        begun = {}
        for trial in learning:
            most = most_updates(trial)
            found = self.run.checkpoint(self._planned(trial).id) if most else None
            if found is not None:
                begun[trial.key()] = int(found.state.get("updates", 0)) / most
        return begun

    def execute(self, console: Console) -> None:
        """Run the trials that are not done, and commit each as it ends.

        Raises:
            MisuseError: As `plan` does, or if another process holds the folder.
        """
        with self.run.locked():
            self._known.clear()  # another command may have run meanwhile
            plan, options = self.plan(), self.options
            info = RunInfo(
                self.run, self.suite, self.registry, self.device, options.jobs
            )
            info.write()
            for note in (*self._bring(plan), *self.notes()):
                console.print(note, soft_wrap=True)
            try:
                engine = self._engine()
            except StoppedError:
                return
            with closing(engine):
                self._run(plan, engine, info, console)
            for note in engine.notes:
                console.print(note, soft_wrap=True)

    def _run(self, plan: Plan, engine: Engine, info: RunInfo, console: Console) -> None:
        """Run the plan; print and store the estimate and what it took."""
        began = time.time()
        estimate, to_run, begun = self._estimate(engine.slots)
        if estimate.trials:
            console.print(estimate.sentence(), soft_wrap=True)
        with Progress(console, engine.slots, self._model) as progress:
            progress.expect(plan, to_run, begun)
            self._executor = Executor(
                self.run,
                self._planned_anew,
                engine,
                progress,
                info.values["choices"],
                on_choice=info.write,
                options=self.options,
            )
            try:
                if not self.stopped:
                    self._executor.execute(plan)
            finally:
                info.write()
                certified = map(self._planned, plan.certificates)
                self._certificates.keep(certified, self.run, since=began)
            took = progress.took()
        if estimate.trials and not self.stopped:
            console.print(
                f"took {took.sentence()}; estimated before: "
                f"{estimate.totals.sentence()}",
                soft_wrap=True,
            )
            known = {"estimated": asdict(estimate.totals), "took": asdict(took)}
            info.values.setdefault("estimates", []).append(known)
            info.write()

    def _bring(self, plan: Plan) -> list[str]:
        """Copy certificates of earlier runs into the folder; return a note on them."""
        if self.options.force:
            return []
        count = self._certificates.bring(
            map(self._planned_anew, plan.certificates), self.run
        )
        note = f"certificates from earlier runs with {_SAME}: {count}"
        return [f"{note}; --force makes them again"] if count else []

    def _engine(self) -> Engine:
        if self.options.executor == "dask":
            from harness.run.engine.cluster import DaskEngine

            return DaskEngine(self.registry, self.options, lambda: self.stopped)
        log = append_to(self.run.path / "workers.log")
        return LocalEngine(self.registry, self.options.jobs, self.options.limits, log)

    def stop(self) -> None:
        """Start no more trials; running ones finish or write a checkpoint."""
        self.stopped = True
        if self._executor is not None:
            self._executor.stop(now=False)

    def _check_same_suite(self, info: dict[str, Any]) -> None:
        """Refuse a folder with results of another suite, device or other values."""
        if not info:
            return
        here = _flat(self.suite.model_dump(mode="json"))
        there = _flat(_with_new_keys(info.get("suite", {})))
        differing = [k for k in {**there, **here} if here.get(k) != there.get(k)]
        if differing:
            key = differing[0]
            more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
            name = there.get("name", "nothing")
            raise MisuseError(
                f"{self.run.path} holds a run of suite '{name}' with {key} = "
                f"{there.get(key, 'nothing')}, now {here.get(key, 'nothing')}{more}; "
                "give another folder with -o"
            )
        device = info.get("device", "nothing")
        if device != self.device:
            raise MisuseError(
                f"{self.run.path} was run on {device}, now {self.device}; give another "
                "folder with -o"
            )


def _together(previews: list[Preview]) -> list[Preview]:
    """Return the previews of a session, whose trials all run if one of them does."""
    if not any(preview.todo.runs for preview in previews):
        return previews
    why = "is timed again beside the trials of its session that run"
    return [
        p
        if p.todo.runs or p.todo.is_newer
        else p._replace(todo=replace(p.todo, runs=True, why=why))
        for p in previews
    ]


def _with_new_keys(suite: dict[str, Any]) -> dict[str, Any]:
    """Return a stored suite with the keys that it lacks, at their defaults."""
    try:
        return Suite.model_validate(suite).model_dump(mode="json")
    except ValidationError:
        return suite


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return {"learning[0].updates": 3000, …}, without the `_MAY_DIFFER` keys."""
    if isinstance(value, dict):
        items = [
            (f"{path}.{key}" if path else str(key), item)
            for key, item in value.items()
            if key not in _MAY_DIFFER
        ]
    elif isinstance(value, list):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {path: value}
    return {k: v for name, item in items for k, v in _flat(item, name).items()}
