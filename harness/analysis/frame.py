"""The tidy frame: every stored value in a row of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.run import JudgedRun
from harness.store import TrialRecord

Floats = npt.NDArray[np.float64]

COLUMNS = (
    "trial", "session", "measure", "task", "length", "split", "cell",
    "implementation", "framework", "kernel", "certified", "device", "machine",
    "dtype", "precision", "threads", "hidden_size", "num_layers", "time_steps",
    "batch", "seed", "init", "learning_rate", "clip", "parameters", "metric", "unit",
    "better", "x", "x_unit", "value", "outcome", "reason",
    "doubt",
)  # fmt: skip
"""The tidy frame's columns, one row a value; `doubt` says why one is not certified."""


_OF_TRIAL = (
    "measure", "task", "length", "cell", "implementation", "device", "dtype",
    "precision", "threads", "hidden_size", "num_layers", "batch", "seed", "init",
)  # fmt: skip


def frame(run: JudgedRun) -> pd.DataFrame:
    """Return the tidy frame of trials: `COLUMNS`, one row a value.

    A trial without a value, such as one that crashed at once, is one row whose metric
    and value are missing.
    """
    trials = pd.DataFrame([_constants(r, run.doubt([r])) for r in run.records])
    blocks = [(row, b) for row, r in enumerate(run.records) for b in _blocks(r)]
    sizes = [len(block.values) for _, block in blocks]
    columns: dict[str, Any] = {}
    of_trial = np.repeat(np.array([row for row, _ in blocks], dtype=int), sizes)
    for name in trials.columns:
        columns[name] = trials[name].to_numpy().take(of_trial)
    labels = pd.DataFrame([block.labels for _, block in blocks])
    of_block = np.repeat(np.arange(len(blocks)), sizes)
    for name in labels.columns:
        columns[name] = labels[name].to_numpy().take(of_block)
    for name in ("x", "value"):
        found = [block.x if name == "x" else block.values for _, block in blocks]
        columns[name] = np.concatenate(found) if found else np.empty(0)
    return pd.DataFrame(columns, columns=list(COLUMNS))


@dataclass(frozen=True)
class _Block:
    """Values of one metric and their places on the curve; a missing one is NaN."""

    labels: Mapping[str, str | None]
    x: Floats
    values: Floats


def _blocks(record: TrialRecord) -> Iterator[_Block]:
    quantities = record.result.get("quantities", {})
    nothing = np.full(1, np.nan)
    if not any(reading.values for reading in record.readings):
        yield _Block({}, nothing, nothing)
    for reading in record.readings:
        xs = reading.x if isinstance(reading.x, list) else [reading.x]
        x = np.array(xs, dtype=float)
        for metric, found in reading.values.items():
            quantity = quantities.get(metric, {})
            labels = {
                "split": reading.split,
                "metric": metric,
                "unit": quantity.get("unit"),
                "better": quantity.get("better"),
                "x_unit": reading.x_unit,
            }
            values = found if isinstance(found, list) else [found] * len(xs)
            yield _Block(labels, x, np.array(values, dtype=float))


def _constants(record: TrialRecord, doubt: str | None) -> dict[str, Any]:
    trial, result = record.trial, record.result
    # A certificate runs optimisers of its own, several of them.
    optimizer = None if trial.measure == "parity" else trial.optimizer
    return {
        **{name: getattr(trial, name) for name in _OF_TRIAL},
        "trial": record.id,
        "session": result.get("session", trial.session),
        "framework": result.get("framework"),
        "kernel": result.get("kernel"),
        "certified": doubt is None,
        "machine": result.get("machine"),
        "time_steps": result.get("time_steps", trial.time_steps),
        "learning_rate": optimizer and optimizer.learning_rate,
        "clip": optimizer and optimizer.clip_norm,
        "parameters": (result.get("parameters") or {}).get("canonical"),
        "outcome": record.outcome,
        "reason": record.reason,
        "doubt": doubt,
    }
