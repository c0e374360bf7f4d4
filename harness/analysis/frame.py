"""The tidy frame: one row for every stored value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from harness.analysis.run import JudgedRun
from harness.measure import MEASURES
from harness.store import TrialRecord

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
_OWN_OPTIMIZERS = {name for name, each in MEASURES.items() if each.own_optimizers}


def frame(run: JudgedRun) -> pd.DataFrame:
    """Return the tidy frame of trials: `COLUMNS`, one row a value.

    A trial without a value, such as one that crashed at once, is one row whose metric
    and value are missing.
    """
    curves = [
        {**trial, **curve}
        for record in run.records
        for trial in [_constants(record, run.doubt([record]))]
        for curve in _curves(record)
    ]
    rows = pd.DataFrame(curves, columns=list(COLUMNS)).explode(
        ["x", "value"], ignore_index=True
    )
    return rows.astype({"x": float, "value": float})


def _curves(record: TrialRecord) -> Iterator[dict[str, Any]]:
    """Yield the x and the values of each metric, as lists, with what both mean."""
    quantities = record.result.get("quantities", {})
    if not any(reading.values for reading in record.readings):
        yield {"x": [None], "value": [None]}
    for reading in record.readings:
        xs = reading.x if isinstance(reading.x, list) else [reading.x]
        for metric, found in reading.values.items():
            quantity = quantities.get(metric, {})
            yield {
                "split": reading.split,
                "metric": metric,
                "unit": quantity.get("unit"),
                "better": quantity.get("better"),
                "x_unit": reading.x_unit,
                "x": xs,
                "value": found if isinstance(found, list) else [found] * len(xs),
            }


def _constants(record: TrialRecord, doubt: str | None) -> dict[str, Any]:
    trial, result = record.trial, record.result
    optimizer = None if trial.measure in _OWN_OPTIMIZERS else trial.optimizer
    return {
        **{name: getattr(trial, name) for name in _OF_TRIAL},
        "trial": record.id,
        "session": result.get("session", trial.session),
        **{name: result.get(name) for name in ("framework", "kernel", "machine")},
        "certified": doubt is None,
        "time_steps": result.get("time_steps", trial.time_steps),
        "learning_rate": optimizer and optimizer.learning_rate,
        "clip": optimizer and optimizer.clip_norm,
        "parameters": (result.get("parameters") or {}).get("canonical"),
        "outcome": record.outcome,
        "reason": record.reason,
        "doubt": doubt,
    }
