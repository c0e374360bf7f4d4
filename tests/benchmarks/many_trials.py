"""Time planning, resuming, loading and summarising a run of ten thousand trials.

`python -m tests.benchmarks.many_trials [TRIALS …]` prints the median of three times of
each, for 1000, 3000 and 10 000 trials. This takes some minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest import mock

from harness.analysis.frame import frame
from harness.analysis.run import JudgedRun
from harness.analysis.summary import summarize
from harness.registry import Registry
from harness.run.execution import Execution
from harness.run.job import Options
from harness.run.plan.todo import planned
from harness.store import Reading, RunFolder
from harness.suite import load_suite
from tests import helpers

ROUNDS = 3
SUITE = helpers.suite(
    helpers.learning(
        length=[*range(10, 101, 10)], updates=200, evaluate_every=100, seeds=[0]
    )
)
OPTIONS = Options(expression="learning", jobs=2)

EVENTS = [
    Reading(
        "train",
        {"loss": [0.1234567] * 20, "gradient_norm": [0.7654321] * 20},
        [*range(first, first + 20)],
        "updates",
    )
    for first in range(1, 201, 20)
]


def study(folder: Path, trials: int) -> Execution:
    """Return a suite of so many learning trials, none of them done."""
    folder.mkdir()
    file = helpers.write(folder / "many.toml", SUITE)
    registry = Registry.discover()
    suite = load_suite(str(file), registry, [], [*range(trials // 10)])
    run = RunFolder.create(folder / "out")
    return Execution(suite, registry, run, "cpu", OPTIONS)


def finish(execution: Execution) -> None:
    """Commit a plausible result of every trial: a curve of 400 values each."""
    suite = execution.suite.model_dump(mode="json")
    execution.run.write_info({"suite": suite, "device": "cpu"})
    for group in execution.plan().learning:
        todo = planned(group.candidates[0], execution.registry, execution.run)
        attempt = execution.run.begin(todo.trial, todo.id, todo.sources)
        for event in EVENTS:
            attempt.write(event)
        outcome = Reading("outcome", {"solved": 0, "updates": 200, "budget": 200})
        attempt.commit({"outcome": "ok", "reason": None}, [outcome])


def again(execution: Execution) -> Execution:
    """Return the same command, started again without what the first one knew."""
    run = RunFolder(execution.run.path)
    return Execution(execution.suite, execution.registry, run, "cpu", OPTIONS)


def plan_of_a_new_run(new: Execution) -> Callable[[], None]:
    def call() -> None:
        stages = again(new).preview()
        assert all(preview.todo.runs for _, stage in stages for preview in stage)

    return call


def resume(done: Execution, trials: int) -> Callable[[], None]:
    def call() -> None:
        ((_, previews),) = [s for s in again(done).preview() if s[0] == "learning"]
        assert len(previews) == trials
        assert not any(preview.todo.runs for preview in previews)

    return call


def load(done: Execution, trials: int) -> Callable[[], None]:
    def call() -> None:
        assert len(again(done).run.records()) == trials

    return call


def summary(done: Execution, trials: int) -> Callable[[], None]:
    records, info = again(done).run.records(), done.run.info()

    def call() -> None:
        assert len(summarize(JudgedRun(records, info)).learned) == 10

    return call


def pandas(done: Execution, trials: int) -> Callable[[], None]:
    records = again(done).run.records()

    def call() -> None:
        assert len(frame(JudgedRun(records))) == trials * (3 + 2 * 200)

    return call


def main() -> None:
    """Print the median time of each, by the number of trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", nargs="*", type=int, default=[1000, 3000, 10_000])
    for trials in parser.parse_args().trials:
        trials = max(10, trials // 10 * 10)
        with tempfile.TemporaryDirectory() as folder:
            new = study(Path(folder) / "new", trials)
            done = study(Path(folder) / "done", trials)
            with mock.patch("os.fsync"):
                finish(done)
            show(trials, "plan of a new run", plan_of_a_new_run(new))
            for make in (resume, load, summary, pandas):
                show(trials, make.__name__, make(done, trials))


def show(trials: int, name: str, call: Callable[[], None]) -> None:
    times_s = []
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        call()
        times_s.append(time.perf_counter() - start_s)
    print(f"{trials:6} trials  {name:18} {median(times_s):7.2f} s", flush=True)


if __name__ == "__main__":
    main()
