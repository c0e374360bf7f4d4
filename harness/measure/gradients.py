"""How does the gradient travel back in time? The derivative for the state, over lag.

For one loss term at readout tau, delta_t = dL/ds_t is the gradient for the state of all
layers after t time steps, of what continues from that state: see
`Oracle.state_gradients`. For each example R(lag) = |delta_{tau-lag}| / |delta_tau|,
with norms over all layers. It is computed from the canonical weights with the float64
backward recurrence of the cell, and without any framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.contract import Array, Readout, Weights
from harness.intervals import quantiles
from harness.measure.arithmetic import FLOPS_PER_FORWARD, work_of
from harness.measure.problem import Measurement, Problem
from harness.measure.work import Work
from harness.quantities import GRADIENTS
from harness.reading import Reading
from harness.registry import Registry
from harness.trial import Trial

HORIZON_RATIO = 1e-3
"""The effective horizon is the largest lag whose median R is above this."""

EXAMPLES = 64
SMALLEST = 1e-300
"""A smaller float64 norm has underflowed and does not count."""


def measure_gradients(problem: Problem, trained: Weights | None = None) -> Measurement:
    """Measure R(lag) at the initial values and, if given, at trained weights.

    The loss term is that of the first remembered answer (`Task.first_recalled`), so
    that lag has a meaning. R is measured again for a random cotangent of length 1 at
    the same readout, because a trained network's loss may vanish and give no curve.
    """
    splits = {"initial": problem.initial_weights()}
    if trained:
        splits["trained"] = trained
    readings: list[Reading] = []
    for split, weights in splits.items():
        ratios = gradient_ratios(problem, weights)
        readings += _readings(split, ratios)
    return Measurement(
        readings=readings,
        facts=problem.facts(problem.oracle().kernel()),
        quantities=GRADIENTS,
    )


def gradient_ratios(problem: Problem, weights: Weights) -> dict[str, Array]:
    """Return R [lag, example] for the loss term and for a random cotangent."""
    task, length = problem.task_and_length()
    oracle = problem.oracle()
    oracle.load_weights(weights)
    readout = task.first_recalled(length=length)
    batch = problem.batch("gradients", 0, EXAMPLES)
    only = np.zeros_like(batch.scored)
    only[:, readout] = True
    placed = oracle.place(replace(batch, scored=only))
    d_random = np.zeros((*only.shape, task.info.output_size))
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((EXAMPLES, task.info.output_size))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    d_random[:, readout] = directions
    every = task.info.readout is Readout.EVERY
    state = readout + 1 if every else problem.time_steps
    return {
        "loss": _ratios(oracle.state_gradients(placed, None), state),
        "random": _ratios(oracle.state_gradients(placed, d_random), state),
    }


def _ratios(parts: tuple[Array, ...], state: int) -> Array:
    """Return R [lag, example] from parts [time + 1, layer, example, hidden]."""
    squares = sum((part**2).sum(axis=(1, 3)) for part in parts)
    norms = np.sqrt(np.asarray(squares))[state::-1]
    here = np.where(norms[0] > SMALLEST, norms[0], np.nan)
    ratios = norms / here
    return np.where(ratios > SMALLEST, ratios, np.nan)


def _readings(split: str, ratios: dict[str, Array]) -> list[Reading]:
    curves: dict[str, list[float]] = {}
    whole: dict[str, float] = {}
    for name, ratio in ratios.items():
        # An underflowed ratio is smaller than all others, so quantiles count it as 0.
        known = np.nan_to_num(ratio)
        found = quantiles(known, 0.5, 0.1, 0.9, axis=1)
        for quantile, values in zip(("median", "q10", "q90"), found, strict=True):
            drawable = np.where(values > 0, values, np.nan)
            curves[f"ratio_{name}_{quantile}"] = drawable.tolist()
        whole[f"horizon_{name}"] = horizon(found[0])
    lags = list(range(len(next(iter(ratios.values())))))
    return [
        Reading(split, {**whole, "max_lag": lags[-1]}),
        Reading(split, curves, lags, "time steps"),
    ]


def horizon(median_ratios: Array) -> int:
    """Return the largest lag whose median R is above `HORIZON_RATIO`."""
    above = np.flatnonzero(median_ratios > HORIZON_RATIO)
    return int(above[-1]) if len(above) else 0


def work(registry: Registry, trial: Trial) -> Work:
    """Return what is computed for both cotangents, at initial and trained weights."""
    splits = 1 if trial.follows is None else 2
    passes = FLOPS_PER_FORWARD["train_step"] * 2 * splits
    work = work_of(Problem(registry, trial), passes, EXAMPLES)
    return replace(work, start_s=0.05, activation_bytes=2 * work.activation_bytes)


def in_words(values: Mapping[tuple[str, str], Any]) -> str:
    """Return "horizon 41 before, 100 after training"."""
    after = values.get(("trained", "horizon_loss"))
    trained = "" if after is None else f", {after} after"
    return f"horizon {values['initial', 'horizon_loss']} before{trained} training"
