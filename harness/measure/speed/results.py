"""The values that are stored of a timed phase: its median, rates and raw samples."""

from __future__ import annotations

import math

import numpy as np

from harness.intervals import MedianInterval, median, median_interval, quantiles
from harness.measure.arithmetic import flops_of_call, least_bytes_of_call
from harness.measure.problem import Problem
from harness.measure.speed.phases import Batches
from harness.measure.speed.turns import Turns
from harness.reading import Reading

MOST_LATENCIES = 4000
"""At most this many latencies are stored; percentiles are taken over all of them."""

LATENCIES = {"latency_p50_s": 0.50, "latency_p95_s": 0.95, "latency_p99_s": 0.99}
"""The stored percentiles of latencies, each with the share of latencies below it."""


def placement(batches: Batches) -> Reading:
    """Return the time of placing a batch; the first batch does not count."""
    found = median_interval([[s] for s in batches.place_s[1:]])
    size = {"bytes": batches.batch(0).inputs.nbytes}
    return Reading("place", {**_times(found), **size})


def results(
    problem: Problem, phase: str, turns: Turns, found: MedianInterval, shaky: bool
) -> list[Reading]:
    """Return the values of a phase, then its raw samples.

    Args:
        problem: The trial.
        phase: The name of the phase.
        turns: The record of its turns.
        found: The median and its interval.
        shaky: Whether the median is doubted.
    """
    batch, time_steps = problem.trial.batch or 1, problem.time_steps
    if phase == "stream":
        batch = time_steps = 1
    tokens = batch * time_steps
    flops = flops_of_call(problem, phase, batch)
    values = {
        **_times(found),
        "first_call_s": turns.first_call_s,
        "tokens_per_s": tokens / found.median,
        "tokens_low_per_s": tokens / found.high,
        "tokens_high_per_s": tokens / found.low,
        "flop_per_s": flops / found.median,
        "flops": flops,
        "least_bytes": least_bytes_of_call(problem, phase, batch),
        "loops": turns.loops,
        "shaky": int(shaky),
    }
    series = _samples(phase, turns)
    if turns.device_s:
        values["device_time_s"] = median(turns.device_s)
    latencies = np.array(turns.latencies_s)
    if len(latencies):
        found_s = quantiles(latencies, *LATENCIES.values()).tolist()
        values |= zip(LATENCIES, found_s, strict=True)
        kept = latencies[:: math.ceil(len(latencies) / MOST_LATENCIES)].tolist()
        x = list(range(len(kept)))
        series.append(Reading(phase, {"latency_s": kept}, x, "time steps"))
    return [Reading(phase, values), *series]


def _times(found: MedianInterval) -> dict[str, float]:
    return {"time_s": found.median, "time_low_s": found.low, "time_high_s": found.high}


def _samples(phase: str, turns: Turns) -> list[Reading]:
    """Return the raw readings in order, and the load of the machine in each round."""
    values: dict[str, list[float]] = {"sample_s": [], "round": [], "at_s": []}
    for (number, at_s), turn in zip(turns.rounds, turns.readings, strict=True):
        values["sample_s"] += turn
        values["round"] += [number] * len(turn)
        values["at_s"] += [round(at_s, 4)] * len(turn)
    if turns.device_s:
        values["device_s"] = turns.device_s
    loads = {"own_load": [round(load, 3) for load in turns.own_load]}
    if turns.other_load:
        loads["other_load"] = [round(load, 3) for load in turns.other_load]
    rounds = [number for number, _ in turns.rounds]
    return [
        Reading(phase, values, list(range(len(values["round"]))), "readings"),
        Reading(phase, loads, rounds, "rounds"),
    ]
