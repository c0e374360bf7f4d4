"""Predict the cost of trials from the cost of similar trials on this machine."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, geometric_mean

from harness.machine.facts import processor
from harness.measure import MEASURES, by_reference, most_updates
from harness.measure.learning.training import update_work
from harness.measure.work import Work
from harness.registry import Registry
from harness.run.estimate import history
from harness.run.estimate.calibration import Calibration, calibrate
from harness.run.estimate.cost import Cost, Estimate, Totals, stage_s
from harness.run.estimate.history import Observation
from harness.store import TrialRecord
from harness.trial import FOLLOWS, QUESTION, SEEDS, SESSION, START, Trial

_SAME_SHAPE = ("the same shape in this run", "the same shape")
_TIMED, _GUESS = "its timed updates", "a guess"
_RUNGS = (
    *_SAME_SHAPE,
    "the same implementation and cell",
    "the same framework",
    "the same measure",
)
_BESIDE_UPDATES = 1.3
"""Seconds of learning for each second of timed updates: it also draws batches."""

_NEWEST = 30
"""The most observations that one prediction uses."""

_PROCESS_BYTES = 400 * 2**20
"""The memory of a worker if none has been observed."""


class CostModel:
    """Predicts a trial from the most similar trials, and learns during a run.

    The work of a trial gives an expected time. It is multiplied by the ratio of real to
    expected time of the most similar finished trials: those of the same shape, or else
    of the same implementation and cell, of the same framework, of the same measure. For
    learning of a new shape, a timed update gives the ratio.

    Args:
        registry: Knows each implementation's framework and each cell's operations.
        records: The finished trials of this run.
        file: The file with observations of earlier runs, or None.
        calibration: Measures how fast numpy is here; called when it is needed.
    """

    def __init__(
        self,
        registry: Registry,
        records: Sequence[TrialRecord] = (),
        file: Path | None = None,
        calibration: Callable[[], Calibration] = calibrate,
    ) -> None:
        self._registry, self._file = registry, file
        self._calibrate = calibration
        self._works: dict[str, Work] = {}
        self._costs: dict[str, Cost] = {}
        self._seen: defaultdict[str, list[Observation]] = defaultdict(list)
        self._paces: defaultdict[str, list[float]] = defaultdict(list)
        seen = [] if file is None else history.observations(file)
        sessions = Counter(record.result.get("session") for record in records)
        for record in records:
            session = record.result.get("session")
            seen += self._observed(record, sessions[session] if session else 1)
        self._take_in(o for o in seen if o.machine == processor())

    # --- predicting ------------------------------------------------------------------

    def predict(self, trial: Trial) -> Cost:
        """Return what a trial will take."""
        key = alike(trial)
        if key not in self._costs:
            self._costs[key] = self._predict(trial)
        return self._costs[key]

    def _predict(self, trial: Trial) -> Cost:
        work, (basis, seen) = self._work(trial), self._nearest(trial)
        share = fmean(o.share for o in seen) if basis in _SAME_SHAPE else 1.0
        expected_s = self._calibrate().expected_s(work, share)
        return Cost(
            expected_s * self._ratio(seen) * self._pace(basis),
            _memory_bytes(seen, work),
            _disk_bytes(seen, work),
            basis,
            share,
            at_most=most_updates(trial) > 0 and basis not in _SAME_SHAPE,
        )

    def _nearest(self, trial: Trial) -> tuple[str, Sequence[Observation]]:
        """Return what the most similar trials share with it, and what they took."""
        keys = self._keys(trial)
        rungs = list(zip(_RUNGS, (_here(keys[0]), *keys), strict=True))
        if most_updates(trial):
            rungs.insert(len(_SAME_SHAPE), (_TIMED, _update_key(trial)))
        for basis, key in rungs:
            if self._seen[key]:
                return basis, self._seen[key][-_NEWEST:]
        return _GUESS, []

    def _keys(self, trial: Trial) -> tuple[str, ...]:
        """Return the keys that similar trials share, the narrowest first."""
        measure, where = trial.measure, f"{trial.device.split(':')[0]} {trial.threads}"
        return (
            f"{measure} {shape(trial)}",
            f"{measure} {trial.implementation} {trial.cell} {where}",
            f"{measure} {self._framework(trial)} {where}",
            measure,
        )

    def _framework(self, trial: Trial) -> str:
        declared = self._registry.implementations.get(trial.implementation)
        if trial.cell in self._registry.cells and by_reference(self._registry, trial):
            return "numpy"
        return declared.framework if declared is not None else "unknown"

    def _work(self, trial: Trial, *, one_update: bool = False) -> Work:
        """Return the work of a trial, or of one update of its network.

        A plugin may load only in its framework's own interpreter. The work of a
        certificate then stands in for it.
        """
        key = f"{one_update} {alike(trial)}"
        if key not in self._works:
            work = update_work if one_update else MEASURES[trial.measure].work
            try:
                self._works[key] = work(self._registry, trial)
            except Exception:
                self._works[key] = MEASURES["parity"].work(self._registry, trial)
        return self._works[key]

    def _ratio(self, seen: Sequence[Observation]) -> float:
        """Return the mean ratio of real to expected time; 1 without observations."""
        expected_s = self._calibrate().expected_s
        ratios = [max(o.wall_time_s, 1e-3) / expected_s(o.work, o.share) for o in seen]
        return fmean(ratios or [1.0])

    def _pace(self, basis: str) -> float:
        """Return the mean ratio of real to predicted time in this run.

        A shared machine is slower on one day than on another.
        """
        return geometric_mean(self._paces[basis][-_NEWEST:] or [1.0])

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

        Args:
            stages: The trials to run.
            jobs: Trials side by side.
            begun: The part of its updates that a trial has done, by key.
        """
        begun = begun or {}

        def left(trial: Trial) -> tuple[Trial, float]:
            return trial, self.predict(trial).left_s(begun.get(trial.key(), 0.0))

        every = [(trial, self.predict(trial)) for stage in stages for trial in stage]
        wall_time_s = sum(stage_s(map(left, stage), jobs) for stage in stages)
        return Estimate(
            self.totals(wall_time_s, every, jobs),
            trials=len(every),
            jobs=jobs,
            known=self.known if every else 0,
            guessed=sum(cost.basis == _GUESS for _, cost in every),
            at_most=any(cost.at_most for _, cost in every),
        )

    def totals(
        self, wall_time_s: float, every: Iterable[tuple[Trial, Cost]], jobs: int
    ) -> Totals:
        """Add up what trials take; each job keeps a worker of each framework."""
        workers = defaultdict(list)
        disk_bytes = 0
        for trial, cost in every:
            kind = (self._framework(trial), trial.device, trial.threads)
            workers[*kind, trial.precision].append(cost.memory_bytes)
            disk_bytes += cost.disk_bytes
        memory_bytes = sum(sum(heapq.nlargest(jobs, p)) for p in workers.values())
        return Totals(wall_time_s, memory_bytes, disk_bytes)

    # --- what trials took -------------------------------------------------------------

    @property
    def known(self) -> int:
        """Number of finished trials that were observed."""
        return sum(len(self._seen[measure]) for measure in MEASURES)

    def _take_in(self, observations: Iterable[Observation]) -> None:
        for observation in observations:
            for key in observation.alike:
                self._seen[key].append(observation)

    def _observed(self, record: TrialRecord, turns: int) -> list[Observation]:
        """Return what a trial took that ended `ok`, and the update that it timed."""
        trial, result = record.trial, record.result
        if record.outcome != "ok" or trial.measure not in MEASURES:
            return []  # a later version may have measures of its own
        updates, most = (record.value("outcome", n) for n in ("updates", "budget"))
        one = Observation(
            result.get("processor", processor()),
            self._keys(trial),
            self._work(trial),
            updates / most if updates and most else 1.0,
            float(result["wall_time_s"]) / turns,
            result.get("worker_memory_bytes"),
            result.get("disk_bytes"),
        )
        update_s = record.value("train_step", "time_s")
        if update_s is None:
            return [one]
        timed = replace(
            one,
            alike=(_update_key(trial),),
            work=self._work(trial, one_update=True),
            wall_time_s=_BESIDE_UPDATES * update_s,
            disk_bytes=None,
        )
        return [one, timed]

    def learn(self, record: TrialRecord, turns: int = 1) -> None:
        """Take note of what a finished trial of this run took.

        Args:
            record: The trial; it is ignored if it did not end `ok`.
            turns: Number of trials that shared its time by taking turns.
        """
        basis, seen = self._nearest(record.trial)
        found = self._observed(record, turns)
        if found:
            pace = self._ratio(found[:1]) / self._ratio(seen)
            self._paces[basis].append(pace)
            self._seen[_here(found[0].alike[0])].append(found[0])
            self._costs.clear()
        self._take_in(found)
        if self._file is not None:
            history.append(self._file, found)


def shape(trial: Trial) -> str:
    """Return a key; trials with the same key have equally long updates."""
    return trial.key(QUESTION, SEEDS, START)


def alike(trial: Trial) -> str:
    """Return a key; trials with the same key have the same predicted cost."""
    follows = trial.follows is not None
    return f"{trial.key(SESSION, SEEDS, START, FOLLOWS)} {follows}"


def _here(key: str) -> str:
    return f"this run: {key}"


def _update_key(trial: Trial) -> str:
    return f"update {shape(trial)}"


def _memory_bytes(seen: Sequence[Observation], work: Work) -> int:
    """Return the highest peak, plus what this trial keeps beyond the observed one."""
    peaks = [
        o.memory_bytes + max(0, work.activation_bytes - o.work.activation_bytes)
        for o in seen
        if o.memory_bytes is not None
    ]
    return round(max(peaks, default=_PROCESS_BYTES + work.activation_bytes))


def _disk_bytes(seen: Sequence[Observation], work: Work) -> int:
    ratios = [o.disk_bytes / o.work.file_bytes for o in seen if o.disk_bytes]
    return round(work.file_bytes * fmean(ratios or [1.0]))
