"""A run of ten thousand trials: listed, resumed, loaded; `make benchmark` prints it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.frame import frame
from harness.analysis.summary import summarize
from harness.registry import Registry
from harness.run.execution import Execution
from harness.run.standing import planned
from harness.store import Reading, RunFolder
from harness.suite import load_suite
from tests import helpers

SUITE = helpers.suite(
    helpers.learning(
        length=[*range(10, 101, 10)], updates=200, evaluate_every=100, seeds=[0]
    )
)
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
    """A suite of so many learning trials, not one of them done."""
    file = helpers.write(folder / "many.toml", SUITE)
    registry = Registry.discover()
    suite = load_suite(str(file), registry, [], [*range(trials // 10)])
    run = RunFolder.create(folder / "out")
    return Execution(suite, registry, run, "cpu", "learning", 2)


def finish(execution: Execution) -> None:
    """Commit what every trial of it could have found: 400 values of a curve each."""
    suite = execution.suite.model_dump(mode="json")
    execution.run.write_info({"suite": suite, "device": "cpu"})
    for group in execution.plan().learning:
        todo = planned(group.candidates[0], execution.registry, execution.run)
        attempt = execution.run.begin(todo.trial, todo.id, todo.sources)
        for event in EVENTS:
            attempt.write(event)
        outcome = Reading("outcome", {"solved": 0, "updates": 200, "budget": 200})
        attempt.commit({"outcome": "ok", "reason": None}, [outcome])


@pytest.fixture(scope="module", params=[1000, 3000, 10_000])
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Execution]:
    execution = study(tmp_path_factory.mktemp("many"), request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        finish(execution)
    return execution


def again(execution: Execution) -> Execution:
    """The same command, started anew: nothing is remembered."""
    run = RunFolder(execution.run.path)
    return Execution(execution.suite, execution.registry, run, "cpu", "learning", 2)


def measure(benchmark: Any, call: Any) -> Any:
    return benchmark.pedantic(call, rounds=3)


def test_plan_of_a_new_run(benchmark: Any, done: Execution, tmp_path: Path) -> None:
    new = study(tmp_path, 10 * len(done.suite.learning[0].seeds))
    stages = measure(benchmark, lambda: again(new).preview())
    assert all(preview.todo.runs for _, stage in stages for preview in stage)


def test_resume(benchmark: Any, done: Execution) -> None:
    stages = measure(benchmark, lambda: again(done).preview())
    ((_, previews),) = [s for s in stages if s[0] == "learning"]
    assert not any(preview.todo.runs for preview in previews)


def test_load(benchmark: Any, done: Execution) -> None:
    records = measure(benchmark, lambda: again(done).run.records())
    assert len(records) == 10 * len(done.suite.learning[0].seeds)


def test_list(benchmark: Any, done: Execution) -> None:
    records, info = again(done).run.records(), done.run.info()
    found = measure(benchmark, lambda: summarize(records, info))
    assert len(found.learned) == 10


def test_pandas(benchmark: Any, done: Execution) -> None:
    records = again(done).run.records()
    table = measure(benchmark, lambda: frame(records))
    assert len(table) == len(records) * (3 + 2 * 200)
