"""`rnn-harness check` of a task: each mistake breaks its clause of the contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.contract import Batch, Readout, Tally, Task
from harness.errors import InputError, PluginError
from harness.loading import load_task
from harness.measure.problem import Problem
from harness.measure.task_contract import check_task
from harness.registry import Registry
from harness.scaffold import NewPlugin, write_plugin
from tests import helpers

ROOT = helpers.ROOT
EXAMPLE = ROOT / "examples" / "next_value.py"
REGISTRY = Registry.discover([EXAMPLE])


@pytest.mark.parametrize("name", REGISTRY.tasks)
def test_every_built_in_task_keeps_its_contract(name: str) -> None:
    found = check_task(load_task(REGISTRY, name, {}))
    assert set(found.clauses.values()) == {None}
    assert len(found.clauses) == 9


def broken(name: str, changes: dict[str, Any]) -> dict[str, str]:
    """Return the broken clauses of a built-in task with some parts replaced."""
    task = load_task(REGISTRY, name, {})
    changed = type("Changed", (type(task),), {})
    other = changed.__new__(changed)
    other.__dict__.update(vars(task))
    for key, value in changes.items():
        setattr(other, key, value(task))
    found = check_task(other)
    return {name: problem for name, problem in found.clauses.items() if problem}


def sampling(change: Callable[[Batch], Batch]) -> Callable[[Task], Any]:
    return lambda task: (
        lambda rng, batch, length: change(task.sample(rng, batch=batch, length=length))
    )


def drawn_elsewhere(batch: Batch) -> Batch:
    noise = np.random.default_rng().uniform(size=batch.inputs.shape)
    return replace(batch, inputs=noise.astype(np.float32))


def means(task: Task) -> Any:
    def score(outputs: Any, batch: Batch) -> dict[str, Tally]:
        scores = task.score(outputs, batch)
        return {name: Tally(tally.mean, 1) for name, tally in scores.items()}

    return score


def unscored(which: Callable[[Batch], Any]) -> Callable[[Batch], Batch]:
    """Return a change that scores nothing in some sequences."""

    def change(batch: Batch) -> Batch:
        scored = batch.scored.copy()
        scored[which(batch)] = False
        return replace(batch, scored=scored)

    return change


def squeezed(batch: Batch) -> Batch:
    """Return a batch that loses the axis of its only sequence."""
    return Batch(
        *(np.squeeze(a, 0) if len(a) == 1 else a for a in vars(batch).values())
    )


def infinite(batch: Batch) -> Batch:
    """Return a batch with a number that float32 cannot hold, in padding."""
    inputs = batch.inputs.astype(np.float64)
    inputs[-1, -1] = 1e39
    return replace(batch, inputs=inputs)


MISTAKES: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "adding",
        {"sample": sampling(lambda b: replace(b, targets=b.targets[:, 0]))},
        "shapes and dtypes",
        "targets are float32 (10000, 1); expected float (10000, 1, 1)",
    ),
    (
        "adding",
        {"sample": sampling(lambda b: replace(b, scored=b.scored.astype(int)))},
        "shapes and dtypes",
        "expected bool (10000, 1)",
    ),
    (
        "adding",
        {"info": lambda t: replace(t.info, readout=Readout.EVERY)},
        "shapes and dtypes",
        "expected float (10000, 10, 1)",
    ),
    (
        "adding",
        {"sample": sampling(lambda b: replace(b, scored=b.scored & False))},
        "shapes and dtypes",
        "no position is scored",
    ),
    (
        "copy-memory",
        {"sample": sampling(lambda b: replace(b, inputs=b.inputs + 1))},
        "shapes and dtypes",
        "inputs are from 1 to 10; expected 0 to 9",
    ),
    (
        "adding",
        {"sample": sampling(unscored(lambda b: np.arange(b.size) % 2500 == 2400))},
        "shapes and dtypes",
        "no position of 4 of 10000 sequences is scored, the first of them at [2400]; "
        "a batch of such sequences alone has no loss",
    ),
    (
        "adding",
        {"sample": sampling(unscored(lambda b: slice(None, b.size < 3)))},
        "shapes and dtypes",
        "in a batch of 1, no position is scored",
    ),
    (
        "copy-memory",
        {"sample": sampling(unscored(lambda b: slice(0, b.size == 3)))},
        "shapes and dtypes",
        "in a batch of 3, no position of 1 of 3 sequences is scored",
    ),
    (
        "adding",
        {"sample": sampling(squeezed)},
        "shapes and dtypes",
        "in a batch of 1, inputs are float32 (10, 2); expected float (1, 10, 2)",
    ),
    (
        "adding",
        {"sample": sampling(infinite)},
        "shapes and dtypes",
        "inputs hold 1e+39 at [9999, 9, 0]; every number must be finite in float32",
    ),
    (
        "adding",
        {"sample": sampling(drawn_elsewhere)},
        "one seed, one batch",
        "inputs differ between two draws",
    ),
    (
        "adding",
        {"floor": lambda t: lambda length: {"loss": 1 / 6}},
        "names of scores",
        "floor gives loss; info.scores names",
    ),
    (
        "adding",
        {"info": lambda t: replace(t.info, headline="speed")},
        "names of scores",
        "info.scores lacks 'speed'",
    ),
    ("copy-memory", {"score": means}, "scores of parts add up", "give sums and counts"),
    (
        "adding",
        {"solved": lambda t: lambda loss, scores: False},
        "a perfect answer",
        "the targets themselves do not count as solved",
    ),
    (
        "next-value",
        {"score": lambda t: lambda o, b: t.score(o + 0.1, b)},
        "a perfect answer",
        "the targets themselves have a loss of 0.01",
    ),
    (
        "adding",
        {"floor": lambda t: lambda length: {**t.floor(length=length), "loss": 0.1767}},
        "floor",
        "floor says a loss of 0.1767; the best constant answer reaches 0.16",
    ),
    (
        "copy-memory",
        {"solved": lambda t: lambda loss, scores: True},
        "floor",
        "the floor counts as solved",
    ),
    (
        "copy-memory",
        {"first_recalled": lambda t: lambda length: 0},
        "first recalled",
        "readout 0 of 30 is not scored",
    ),
]


@pytest.mark.parametrize(("task", "changes", "clause", "message"), MISTAKES)
def test_a_mistake_breaks_its_clause_of_the_contract(
    task: str, changes: dict[str, Any], clause: str, message: str
) -> None:
    found = broken(task, changes)
    assert list(found) == [clause]
    assert message in found[clause]


EVERY_STEP = """
import numpy as np
from harness import declare_task
from harness.contract import Batch, Inputs, Quantity, Readout, Tally, Target, TaskInfo

declare_task("every-step", factory="every_step:Task")


class Task:
    info = TaskInfo(
        "every-step", Inputs("reals", 1), Target.REAL, 1, Readout.EVERY,
        {"loss": Quantity("squared error", "lower")}, "loss", "this file",
    )

    def time_steps(self, length):
        return length

    def sample(self, rng, *, batch, length):
        values = rng.uniform(size=(batch, length, 1)).astype(np.float32)
        scored = np.broadcast_to(np.arange(length) > 0, (batch, length)).copy()
        targets = values.copy()
        WRONG
        return Batch(values, np.full(batch, length), targets, scored)

    def score(self, outputs, batch):
        errors = (outputs.astype(np.float64) - batch.targets)[batch.scored] ** 2
        return {"loss": Tally(float(errors.sum()), errors.size)}

    def floor(self, *, length):
        return {"loss": 1 / 12}

    def solved(self, loss, scores):
        return loss <= 1 / 1200

    def first_recalled(self, *, length):
        return 1
"""


IGNORED = (
    "inputs and targets of 48 sequences of length 10 are the same for two seeds, so "
    "training and held-out data would be the same; sample must draw all that is random "
    "from the rng that it is given"
)


@pytest.mark.parametrize(
    ("wrong", "in_check", "in_run"),
    [
        ("pass", "the contract holds", None),
        (
            "targets[:, 0] = np.nan",
            "targets hold nan at [0, 0, 0]; every number must be finite in float32, "
            "also where nothing is scored",
            "targets holds nan at [0, 0, 0]; every number must be finite",
        ),
        (
            "targets[:, 0] = -np.inf",
            "targets hold -inf at [0, 0, 0]",
            "targets holds -inf at [0, 0, 0]",
        ),
        (
            "values[-1, 0] = np.nan",
            "inputs hold nan at [9999, 0, 0]",
            "inputs holds nan at [7, 0, 0]",
        ),
        (
            "scored &= batch > 10",
            "in a batch of 1, no position is scored",
            "scored must be bool with at least one True",
        ),
        (
            "values = targets = np.random.default_rng(7).uniform(size=values.shape)",
            IGNORED,
            f"every-step: {IGNORED}",
        ),
        (
            # Only what is scored is drawn.
            "values[:] = targets[:] = 0.5; scored[:, 1] = rng.random(batch) > 0.5",
            IGNORED,
            f"every-step: {IGNORED}",
        ),
    ],
)
def test_check_and_run_say_the_same_of_a_task(
    wrong: str,
    in_check: str,
    in_run: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = EVERY_STEP.replace("WRONG", wrong)
    file = helpers.write(tmp_path / "every_step.py", text)
    code, out, _ = helpers.call(["check", str(file)], monkeypatch, capsys)
    assert code == (0 if in_run is None else 3)
    assert in_check in out
    assert "differ between two draws" not in out
    trial = replace(helpers.LEARNING, task="every-step")
    problem = Problem(Registry.discover([file]), trial)
    network = problem.network()
    if in_run is None:
        network.place(problem.batch("train", 0))
        return
    with pytest.raises((InputError, PluginError)) as raised:
        network.place(problem.batch("train", 0))
    assert in_run in str(raised.value)


def test_check_prints_the_clauses_of_a_file_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.py"
    write_plugin(NewPlugin("task", "own", file=file), helpers.REGISTRY)
    code, out, _ = helpers.call(["check", str(file)], monkeypatch, capsys)
    assert code == 0
    assert "own · task · 10000 problems of length 10" in out
    assert "the contract holds: 9 checks" in out
    other = tmp_path / "other.py"
    text = file.read_text().replace('"own', '"other').replace("1 / 12}", "1 / 6}")
    helpers.write(other, text)
    command = ["check", "--json", str(file), str(other)]
    code, out, _ = helpers.call(command, monkeypatch, capsys)
    assert code == 3
    first, second = json.loads(out)
    assert first["clauses"]["floor"] is None
    assert "floor says a loss of 0.16667" in second["clauses"]["floor"]
    assert second["task"] == "other"


def test_an_error_that_a_task_raises_is_reported_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.py"
    write_plugin(NewPlugin("task", "own", file=file), helpers.REGISTRY)
    helpers.write(file, file.read_text().replace("errors.sum()", "errors.summ()"))
    code, _, err = helpers.call(["check", str(file)], monkeypatch, capsys)
    assert code == 2
    assert "own: AttributeError" in err
    assert "(own.py:" in err
