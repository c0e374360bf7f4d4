"""What trials will cost, from what trials like them did cost on this machine."""

from __future__ import annotations

import heapq
import math
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from statistics import fmean
from typing import Any

from harness.machine.facts import processor
from harness.measure.problem import by_reference
from harness.registry import Registry
from harness.run.estimate.fitting import Point, fit
from harness.run.estimate.history import History, Observation
from harness.run.estimate.work import Calibration, Work, update_work, work_of
from harness.store import TrialRecord
from harness.trial import FOLLOWS, QUESTION, SEEDS, SESSION, START, Trial

_GUESS = "a guess"
_NEWEST = 200
"""Observations that one fit uses, at most."""

_PACES = 20
"""Trials by which the pace of this run is known, at most."""

_HERE = 5.0
"""Weight of what this run saw, against what earlier runs did."""

# What is believed before anything was seen: seconds to begin, with a framework's import
# and compilation; and seconds for each second that numpy spends on empty time steps,
# and on arithmetic.
_BELIEVED = {
    "parity": (2.0, 2.0, 2.0),
    "learning": (0.5, 4.0, 1.5),
    "gradients": (0.05, 3.0, 3.0),
    "speed": (1.0, 2.0, 2.0),
    "memory": (3.0, 2.0, 2.0),
}
_OF_UPDATES = (0.5, 1.3)
"""Likewise of learning whose updates were timed: data, evaluations, events."""

_PROCESS_BYTES = 400 * 2**20


@dataclass(frozen=True)
class Cost:
    """What one trial will take.

    Attributes:
        memory_bytes: Peak of its worker's processes.
        basis: What it is known from: "the same shape", …, "a guess".
        at_most: Whether learning may end earlier, once it is solved.
    """

    wall_time_s: float
    memory_bytes: int
    disk_bytes: int
    basis: str
    at_most: bool = False


@dataclass(frozen=True)
class Totals:
    """What trials take together: all workers' memory, at its peak."""

    wall_time_s: float
    memory_bytes: int
    disk_bytes: int

    def sentence(self) -> str:
        """Return "4 min 30 s, 1.2 GiB of memory, 3.4 MiB of disk for …"."""
        return (
            f"{duration(self.wall_time_s)}, {size(self.memory_bytes)} of memory, "
            f"{size(self.disk_bytes)} of disk for curves, weights and logs"
        )


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        trials: Those it is of.
        jobs: Trials side by side.
        known: Finished trials it rests on.
        guessed: Trials unlike any of them.
        at_most: Whether some learning may end earlier.
    """

    totals: Totals
    trials: int
    jobs: int
    known: int
    guessed: int
    at_most: bool

    def sentence(self) -> str:
        """Return "60 trials with 2 jobs: about 4 min 30 s, … (from 90 past trials)"."""
        sources = [f"from {self.known} past trials"] if self.known else []
        sources += [f"{self.guessed} guessed"] if self.guessed else []
        known = f" ({'; '.join(sources)})" if sources else ""
        trials = "1 trial" if self.trials == 1 else f"{self.trials} trials"
        jobs = "1 job" if self.jobs == 1 else f"{self.jobs} jobs"
        sooner = ", sooner where learning is solved early" if self.at_most else ""
        return f"{trials} with {jobs}: about {self.totals.sentence()}{known}{sooner}"


class _Seen:
    """Observations by what a trial may be like, the oldest first."""

    def __init__(self) -> None:
        self.count = 0
        self.update_s: dict[str, float] = {}
        self._like: dict[tuple[str, ...], list[tuple[float, Observation]]] = (
            defaultdict(list)
        )

    def add(self, weight: float, o: Observation) -> None:
        """Take in an observation, with a weight."""
        device = f"{o.device} {o.threads}"
        rungs = _rungs(
            o.measure, o.framework, o.implementation, o.cell, device, o.shape
        )
        for key, _ in rungs:
            self._like[key].append((weight, o))
        if o.update_s is not None:
            self.update_s[o.shape] = o.update_s
        self.count += 1

    def like(self, key: tuple[str, ...]) -> Sequence[tuple[float, Observation]]:
        """Return the newest observations of what shares a key."""
        return self._like.get(key, [])[-_NEWEST:]


class CostModel:
    """Predicts trials by the nearest that were seen, and learns while a run goes on.

    Time is something to begin with, plus time steps and arithmetic by a rate each,
    fitted to the trials of the same shape; else of the same implementation and cell,
    then framework, then measure. Learning whose updates were timed is known by those.

    Args:
        registry: Knows each implementation's framework and each cell's operations.
        records: Finished trials of this run.
        history: Finished trials of earlier runs; what is learned is added to it.
        calibration: Tells how fast numpy is here; asked when that is needed.
    """

    def __init__(
        self,
        registry: Registry,
        records: Iterable[TrialRecord],
        history: History,
        calibration: Callable[[], Calibration],
    ) -> None:
        self._registry, self._history = registry, history
        self._calibrate = calibration
        self._lock = threading.RLock()
        self._costs: dict[str, Cost] = {}
        self._works: dict[tuple[str, int | None], Work] = {}
        self._paces: list[float] = []
        self._past = self._of_records(list(records))

    @cached_property
    def _seen(self) -> _Seen:
        """What was seen, taken in at first need: that of learning needs numpy timed."""
        seen = _Seen()
        for observation in self._history.observations(processor()):
            seen.add(1.0, observation)
        for observe in self._past:
            seen.add(_HERE, observe())
        return seen

    @cached_property
    def _calibration(self) -> Calibration:
        return self._calibrate()

    @property
    def known(self) -> int:
        """Finished trials that were seen."""
        return self._seen.count

    # --- predicting ------------------------------------------------------------------

    def predict(self, trial: Trial) -> Cost:
        """Return what a trial will take."""
        key = alike(trial)
        with self._lock:
            if key not in self._costs:
                self._costs[key] = self._predict(trial)
            return self._costs[key]

    def left(self, trial: Trial, done: float) -> Cost:
        """Return what is left of a trial that has done a part of its budget."""
        cost = self.predict(trial)
        if not done:
            return cost
        share = self.share(trial)
        left = (expected_end(share, done) - done) / share
        return replace(cost, wall_time_s=left * cost.wall_time_s)

    def cheapest(self, trials: Sequence[Trial]) -> Trial:
        """Return the trial that will take the least time."""
        if len(trials) == 1:
            return trials[0]
        return min(trials, key=lambda trial: self.predict(trial).wall_time_s)

    def estimate(
        self,
        stages: Sequence[Sequence[Trial]],
        jobs: int,
        begun: Mapping[str, float] | None = None,
    ) -> Estimate:
        """Return what stages of trials will take, one stage after the other.

        Speed sessions run one after the other, other trials `jobs` side by side. A
        worker of each framework stays with each job.

        Args:
            stages: The trials to run.
            jobs: Trials side by side.
            begun: By key, the part of its budget from which a trial goes on.
        """
        begun = begun or {}
        costs = [
            [(trial, self.left(trial, begun.get(trial.key(), 0.0))) for trial in s]
            for s in stages
        ]
        every = [pair for stage in costs for pair in stage]
        return Estimate(
            self.totals(sum(stage_s(s, jobs) for s in costs), every, jobs),
            trials=len(every),
            jobs=jobs,
            known=self.known if every else 0,
            guessed=sum(cost.basis == _GUESS for _, cost in every),
            at_most=any(cost.at_most for _, cost in every),
        )

    def totals(
        self, wall_time_s: float, every: Sequence[tuple[Trial, Cost]], jobs: int
    ) -> Totals:
        """Return what trials take, or took, in a time."""
        memory_bytes = self._together(every, jobs)
        disk_bytes = sum(cost.disk_bytes for _, cost in every)
        return Totals(wall_time_s, memory_bytes, disk_bytes)

    def _together(self, every: Sequence[tuple[Trial, Cost]], jobs: int) -> int:
        workers: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for trial, cost in every:
            kind = (self._framework(trial), trial.device, trial.threads)
            workers[*kind, trial.precision].append(cost.memory_bytes)
        return sum(sum(heapq.nlargest(jobs, peaks)) for peaks in workers.values())

    def _predict(self, trial: Trial) -> Cost:
        share = self._share(trial)
        updates = None
        if share is not None:
            updates = round(share * int(trial.settings["updates"]))
        work = self._work(trial, updates)
        seen, basis = self._nearest(trial)
        wall_time_s = self._by_work(trial.measure, seen, work)
        if basis == _SAME_SHAPE and not _of_this_run(seen):
            wall_time_s *= self._pace()
        if trial.measure == "learning" and basis != _SAME_SHAPE:
            update_s = self._seen.update_s.get(shape(trial))
            if update_s is not None:
                wall_time_s = self._by_updates(trial, work, update_s)
                basis = "its timed updates"
        return Cost(
            wall_time_s,
            _memory_bytes(seen, work),
            _disk_bytes(seen, work),
            basis,
            at_most=trial.measure == "learning" and share is None,
        )

    def _pace(self) -> float:
        """Return what this run takes of the time that the same shapes took before.

        A shared machine is slower on one day than on another.
        """
        return math.exp(fmean(self._paces[-_PACES:])) if self._paces else 1.0

    def _nearest(self, trial: Trial) -> tuple[Sequence[tuple[float, Observation]], str]:
        for key, basis in self._rungs(trial):
            seen = self._seen.like(key)
            if seen:
                return seen, basis
        return [], _GUESS

    def _rungs(self, trial: Trial) -> list[tuple[tuple[str, ...], str]]:
        return _rungs(
            trial.measure,
            self._framework(trial),
            trial.implementation,
            trial.cell,
            f"{_kind(trial.device)} {trial.threads}",
            shape(trial),
        )

    def _framework(self, trial: Trial) -> str:
        declared = self._registry.implementations.get(trial.implementation)
        if trial.cell in self._registry.cells and by_reference(self._registry, trial):
            return "numpy"
        return declared.framework if declared is not None else "unknown"

    def _by_work(
        self, measure: str, seen: Sequence[tuple[float, Observation]], work: Work
    ) -> float:
        """Return the time of so much work, as others took for theirs."""
        points = [
            Point(weight, (1.0, *self._calibration.parts_s(o.work)), o.wall_time_s)
            for weight, o in seen
        ]
        factors = fit(points, _BELIEVED[measure])
        return sum(
            factor * part
            for factor, part in zip(
                factors, (1.0, *self._calibration.parts_s(work)), strict=True
            )
        )

    def _by_updates(self, trial: Trial, work: Work, update_s: float) -> float:
        """Return learning time from one timed update, as others kept to theirs."""
        timed = self._seen.update_s
        points = [
            Point(weight, (1.0, o.updates * timed[o.shape]), o.wall_time_s)
            for weight, o in self._seen.like(("learning",))
            if o.updates is not None and o.shape in timed
        ]
        fixed_s, rate = fit(points, _OF_UPDATES)
        return fixed_s + rate * update_s * self._in_updates(trial, work)

    def _in_updates(self, trial: Trial, work: Work) -> float:
        one = self._calibration.time_s(update_work(self._registry, trial))
        return self._calibration.time_s(work) / one

    def _work(self, trial: Trial, updates: int | None) -> Work:
        key = alike(trial), updates
        if key not in self._works:
            self._works[key] = work_of(self._registry, trial, updates)
        return self._works[key]

    def share(self, trial: Trial) -> float:
        """Return the part of its budget that a trial will use, as others did."""
        with self._lock:
            found = self._share(trial)
        return 1.0 if found is None else found

    def _share(self, trial: Trial) -> float | None:
        """Return the mean part of its budget that learning of this shape used."""
        if trial.measure != "learning":
            return None
        seen = self._seen.like(("learning", shape(trial)))
        if not seen:
            return None
        return sum(w * o.share for w, o in seen) / sum(w for w, _ in seen)

    # --- learning --------------------------------------------------------------------

    def learn(
        self,
        trial: Trial,
        wall_time_s: float,
        memory_bytes: int | None = None,
        disk_bytes: int | None = None,
        *,
        updates: int | None = None,
        update_s: float | None = None,
        machine: str | None = None,
    ) -> None:
        """Take in what a trial took that ended well.

        Args:
            trial: The finished trial.
            wall_time_s: Its own share, where trials took turns.
            memory_bytes: Peak of its worker's processes.
            disk_bytes: What it stored.
            updates: What learning did of its budget.
            update_s: What one update took, where that was timed.
            machine: Of the worker, where that is another than this.
        """
        observation = self._observe(
            trial, wall_time_s, memory_bytes, disk_bytes, updates, update_s, machine
        )
        with self._lock:
            seen, basis = self._nearest(trial)
            if basis == _SAME_SHAPE and not _of_this_run(seen):
                before_s = self._by_work(trial.measure, seen, observation.work)
                self._paces.append(math.log(max(wall_time_s, 1e-3) / before_s))
            self._seen.add(_HERE, observation)
            self._costs.clear()
        self._history.add(observation)

    def _observe(
        self,
        trial: Trial,
        wall_time_s: float,
        memory_bytes: int | None,
        disk_bytes: int | None,
        updates: int | None,
        update_s: float | None,
        machine: str | None,
    ) -> Observation:
        share = 1.0
        if updates is not None and trial.measure == "learning":
            share = updates / max(1, int(trial.settings["updates"]))
        work = self._work(trial, updates)
        return Observation(
            machine or processor(),
            trial.measure,
            self._framework(trial),
            trial.implementation,
            trial.cell,
            _kind(trial.device),
            trial.threads,
            shape(trial),
            work,
            wall_time_s,
            memory_bytes,
            disk_bytes,
            update_s,
            self._in_updates(trial, work) if trial.measure == "learning" else None,
            share,
        )

    def _of_records(
        self, records: Sequence[TrialRecord]
    ) -> list[Callable[[], Observation]]:
        """Return what observes each finished trial, without its curve."""
        together = Counter(r.result.get("session") for r in records)
        found: list[Callable[[], Observation]] = []
        for record in records:
            result, trial = record.result, record.trial
            machine = result.get("processor", processor())
            if record.outcome != "ok" or machine != processor():
                continue
            session = result.get("session")
            shared = together[session] if session is not None else 1
            observe = partial(
                self._observe,
                trial,
                float(result["wall_time_s"]) / shared,
                result.get("worker_memory_bytes"),
                result.get("disk_bytes"),
                record.value("outcome", "updates"),
                record.value("train_step", "time_s"),
                machine,
            )
            found.append(observe)
        return found


_SAME_SHAPE = "the same shape"


def _of_this_run(seen: Sequence[tuple[float, Observation]]) -> bool:
    return any(weight == _HERE for weight, _ in seen)


def _rungs(
    measure: str,
    framework: str,
    implementation: str,
    cell: str,
    device: str,
    of_shape: str,
) -> list[tuple[tuple[str, ...], str]]:
    """Return what a trial is like, the nearest first, and that in words."""
    return [
        ((measure, of_shape), _SAME_SHAPE),
        ((measure, implementation, cell, device), "the same implementation and cell"),
        ((measure, framework, device), "the same framework"),
        ((measure,), "the same measure"),
    ]


def shape(trial: Trial) -> str:
    """Return a hash of what the time of one update depends on."""
    return trial.key(QUESTION, SEEDS, START)


def alike(trial: Trial) -> str:
    """Return a key that trials share which are predicted to cost the same."""
    follows = "follows" in trial.settings
    return f"{trial.key(SESSION, SEEDS, START, FOLLOWS)} {follows}"


def _kind(device: str) -> str:
    return device.partition(":")[0]


# --- memory, disk, stages -----------------------------------------------------------


def _memory_bytes(seen: Sequence[tuple[float, Observation]], work: Work) -> int:
    """Return the most that any took, and what this trial keeps beyond that one."""
    peaks = [
        o.memory_bytes + max(0.0, work.activation_bytes - o.work.activation_bytes)
        for _, o in seen
        if o.memory_bytes is not None
    ]
    return round(max(peaks, default=_PROCESS_BYTES + work.activation_bytes))


def _disk_bytes(seen: Sequence[tuple[float, Observation]], work: Work) -> int:
    ratios = [
        o.disk_bytes / o.work.file_bytes
        for _, o in seen
        if o.disk_bytes is not None and o.work.file_bytes
    ]
    ratio = sum(ratios) / len(ratios) if ratios else 1.0
    return round(ratio * work.file_bytes)


def expected_end(share: float, done: float) -> float:
    """Return the part of its budget that a trial will have used when it ends.

    One that did not end where others did is expected to use it all.
    """
    return share if done < share else 1.0


def stage_s(stage: Sequence[tuple[Trial, Cost]], jobs: int) -> float:
    """Return the time of a stage: each job takes the next trial when it is free."""
    free = [0.0] * jobs
    alone_s = 0.0
    for trial, cost in stage:
        if trial.measure == "speed":
            alone_s += cost.wall_time_s
        else:
            heapq.heapreplace(free, free[0] + cost.wall_time_s)
    return max(free) + alone_s


# --- for people ----------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Return "4 min 30 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Return "1.2 GiB"."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 2**10:.0f} KiB"
