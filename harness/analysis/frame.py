"""The tidy frame: every stored value in a row of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness.store import Reading, TrialRecord
from harness.trial import Trial

COLUMNS = (
    "trial", "session", "measure", "task", "length", "split", "cell",
    "implementation", "framework", "kernel", "certified", "device", "machine",
    "dtype", "precision", "threads", "hidden_size", "num_layers", "time_steps",
    "batch", "seed", "init", "learning_rate", "clip", "parameters", "metric", "unit",
    "better", "x", "x_unit", "value", "outcome", "reason",
)  # fmt: skip
"""The tidy frame's columns, one row a value."""


def frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """Return the tidy frame of trials: `COLUMNS`, one row a value.

    A trial without a value, such as one that crashed at once, is one row whose metric
    and value are missing.
    """
    certified = _certificates(records)
    parts = [pd.DataFrame(columns=list(COLUMNS))]
    for record in records:
        columns = _columns(record.readings, record.result.get("quantities", {}))
        part = pd.DataFrame(columns)
        for name, value in _constants(record, certified).items():
            part[name] = value
        parts.append(part.reindex(columns=list(COLUMNS)))
    whole = pd.concat([p for p in parts if len(p)] or parts, ignore_index=True)
    for name in ("x", "value"):
        whole[name] = pd.to_numeric(whole[name])
    return whole


def _certificates(records: Sequence[TrialRecord]) -> dict[tuple[Any, ...], bool]:
    return {
        _certificate_key(record.trial): bool(record.value("certificate", "certified"))
        for record in records
        if record.trial.measure == "parity" and record.outcome == "ok"
    }


def _certificate_key(trial: Trial) -> tuple[Any, ...]:
    return (
        trial.implementation,
        trial.cell,
        trial.device,
        trial.dtype,
        trial.precision,
        trial.biases,
        trial.threads,
    )


def _constants(
    record: TrialRecord, certified: Mapping[tuple[Any, ...], bool]
) -> dict[str, Any]:
    trial, result = record.trial, record.result
    is_certified = certified.get(_certificate_key(trial), False)
    if trial.measure == "speed":
        # What was timed must be what was certified.
        is_certified = is_certified and bool(record.value("readback", "ok"))
    return {
        "trial": record.id,
        "session": result.get("session", trial.session),
        "measure": trial.measure,
        "task": trial.task,
        "length": trial.length,
        "cell": trial.cell,
        "implementation": trial.implementation,
        "framework": result.get("framework"),
        "kernel": result.get("kernel"),
        "certified": is_certified,
        "device": trial.device,
        "machine": result.get("machine"),
        "dtype": trial.dtype,
        "precision": trial.precision,
        "threads": trial.threads,
        "hidden_size": trial.hidden_size,
        "num_layers": trial.num_layers,
        "time_steps": result.get("time_steps", trial.time_steps),
        "batch": trial.batch,
        "seed": trial.seed,
        "init": trial.init,
        "learning_rate": trial.optimizer.learning_rate,
        "clip": trial.optimizer.clip_norm,
        "parameters": (result.get("parameters") or {}).get("canonical"),
        "outcome": record.outcome,
        "reason": record.reason,
    }


def _columns(
    readings: Sequence[Reading], quantities: Mapping[str, Mapping[str, str]]
) -> dict[str, list[Any]]:
    names = ("split", "metric", "unit", "better", "x", "x_unit", "value")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for reading in readings:
        xs = reading.x if isinstance(reading.x, list) else [reading.x]
        for metric, found in reading.values.items():
            values = found if isinstance(found, list) else [found] * len(xs)
            quantity = quantities.get(metric, {})
            columns["split"] += [reading.split] * len(xs)
            columns["metric"] += [metric] * len(xs)
            columns["unit"] += [quantity.get("unit")] * len(xs)
            columns["better"] += [quantity.get("better")] * len(xs)
            columns["x"] += xs
            columns["x_unit"] += [reading.x_unit] * len(xs)
            columns["value"] += values
    if not columns["metric"]:
        return {name: [None] for name in names}
    return columns
