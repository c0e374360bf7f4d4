import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.contract import Optimizer
from harness.run.worker.process import Request, WorkerProcess
from harness.trial import LearningSettings, Trial
from tests import helpers
from tests.faults.conftest import SLOWED, Call
from tests.helpers import needs_torch

pytestmark = pytest.mark.slow

OF_THE_PROCESS = {"compute_time_s": None, "worker": None}


def test_the_same_seeds_give_the_same_curves_in_parallel_or_not(
    fresh: Callable[[str], Path], undisturbed: dict[str, bytes], call: Call
) -> None:
    folder = fresh("run")
    command = ("run", "tiny.toml", "-o", "out", "-j", 2, "--plugin", SLOWED)
    code, _, err = call(*command, cwd=folder)
    assert code == 0, err
    curves = helpers.curves(folder / "out")
    assert curves == undisturbed  # which is of one job at a time
    assert len(set(curves.values())) == 2  # and another seed gives another curve


def _learned(worker: WorkerProcess, name: str) -> list[dict[str, Any]]:
    """Return the messages of a worker for two learning trials."""
    answers = []
    for seed in (0, 1):
        trial = Trial(
            measure="learning",
            implementation="torch-native",
            cell="gru",
            task="adding",
            length=20,
            hidden_size=32,
            batch=16,
            seed=seed,
            data_seed=seed,
            optimizer=Optimizer(learning_rate=1e-2),
            settings=LearningSettings(60, evaluate_every=20, evaluate_sequences=50),
        )
        for message in worker.ask(Request("measure", name, trial), lambda _: None):
            weights = {n: a.tobytes() for n, a in message.arrays.items()}
            facts = {**message.values.get("facts", {}), **OF_THE_PROCESS}
            values = {**message.values, "request": None, "facts": facts}
            answers.append({**values, "arrays": weights})
    return answers


@pytest.mark.long
@needs_torch
def test_the_same_seeds_give_the_same_curves_and_weights_on_torch() -> None:
    one, other = (
        WorkerProcess(Path(sys.executable), 1, "[]", log=lambda _: None)
        for _ in range(2)
    )
    alone = _learned(one, "alone")
    with ThreadPoolExecutor(2) as pool:
        left, right = pool.map(_learned, (one, other), ("left", "right"))
    one.close()
    other.close()
    assert [a["kind"] for a in alone].count("result") == 2
    assert len(alone) > 2 * 4
    assert alone == left == right
