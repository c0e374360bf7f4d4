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
from tests.helpers import needs_torch

pytestmark = pytest.mark.slow

OF_THE_PROCESS = {"compute_time_s": None, "worker": None}


def _run(folder: Path, *more: object) -> dict[str, bytes]:
    code, _, err = helpers.run("run", "tiny.toml", "-o", "out", *more, cwd=folder)
    assert code == 0, err
    return helpers.curves(folder / "out")


def test_the_same_seeds_give_the_same_curves_in_parallel_or_not(
    fresh: Callable[[str], Path],
) -> None:
    one = _run(fresh("one"), "-j", 1)
    two = _run(fresh("two"), "-j", 2)
    assert len(one) == 2
    assert one == two
    assert len(set(one.values())) == 2  # and another seed gives another curve


def _learned(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the messages of a new worker for two learning trials."""
    answers = []
    worker = WorkerProcess(Path(sys.executable), 1, (), log=lambda _: None)
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
            answers.append({**message.values, "facts": facts, "arrays": weights})
    worker.close()
    return answers


@needs_torch
def test_the_same_seeds_give_the_same_curves_and_weights_on_torch(
    tmp_path: Path,
) -> None:
    alone = _learned(tmp_path, "alone")
    with ThreadPoolExecutor(2) as pool:
        both = pool.map(lambda name: _learned(tmp_path, name), ("left", "right"))
        left, right = both
    assert [a["kind"] for a in alone].count("result") == 2
    assert len(alone) > 2 * 4
    assert alone == left == right
