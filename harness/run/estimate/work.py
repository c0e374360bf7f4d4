"""How much a trial computes and keeps, and how fast this machine computes it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.machine.clock import READING_S
from harness.measure.arithmetic import FLOPS_PER_FORWARD
from harness.measure.gradients import EXAMPLES
from harness.measure.learning.training import EVALUATION_BATCH
from harness.measure.memory import CALLS
from harness.measure.problem import Problem
from harness.measure.speed.meter import DRAWS
from harness.registry import Registry
from harness.trial import Trial

_WARM_UP_CALLS = 7
_BACK_AND_FORTH = FLOPS_PER_FORWARD["train_step"]
_SPEC_BYTES = 12_000
_EVENT_BYTES = 45
_CERTIFICATE_STEPS = 60_000
"""Time steps of small networks in one certificate, rough."""

_SAVED_TENSORS = 12
"""Tensors of the state's size that a backward pass keeps for a time step, rough."""


@dataclass(frozen=True)
class Work:
    """What a trial does, in units that no machine changes.

    Attributes:
        time_steps: Steps that follow one another, in one call.
        flops: Operations of one call.
        floor_s: What one call takes at least, because it is repeated until then.
        activation_bytes: What one call keeps for its backward pass.
        file_bytes: What the trial stores.
    """

    calls: float
    time_steps: float
    flops: float
    floor_s: float = 0.0
    activation_bytes: float = 0.0
    file_bytes: float = _SPEC_BYTES


@dataclass(frozen=True)
class Calibration:
    """How fast numpy is here: seconds of an empty time step, operations a second."""

    step_s: float
    flop_per_s: float

    def parts_s(self, work: Work) -> tuple[float, float]:
        """Return what numpy here would spend on empty time steps, and on arithmetic."""
        steps_s = work.time_steps * self.step_s
        flops_s = work.flops / self.flop_per_s
        call_s = steps_s + flops_s
        calls = work.calls * max(call_s, work.floor_s) / call_s if call_s else 0.0
        return calls * steps_s, calls * flops_s

    def time_s(self, work: Work) -> float:
        """Return what the work would take numpy here."""
        return sum(self.parts_s(work))


@functools.cache
def calibrate() -> Calibration:
    """Time a recurrent step at two sizes, for about half a second in all.

    On one thread, as most trials run: several wait for each other on a busy machine.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        small_s, small = _step(batch=8, hidden_size=8)
        large_s, large = _step(batch=64, hidden_size=128)
    flop_per_s = (large - small) / max(large_s - small_s, 1e-6)
    return Calibration(max(small_s - small / flop_per_s, 1e-6), flop_per_s)


def _step(batch: int, hidden_size: int) -> tuple[float, int]:
    """Return seconds and operations of one step of a gated cell."""
    import numpy as np

    rng = np.random.default_rng(0)
    state = rng.standard_normal((batch, hidden_size), np.float32)
    weights = rng.standard_normal((hidden_size, 3 * hidden_size), np.float32) * 0.01

    def step() -> None:
        gates = np.tanh(state @ weights)
        reset, update, new = np.split(gates, 3, axis=1)
        _ = (1 - update) * new + update * state * reset

    return _fastest_s(step), 6 * batch * hidden_size**2


def _fastest_s(call: Callable[[], None], budget_s: float = 0.25) -> float:
    fastest, end = float("inf"), time.perf_counter() + budget_s
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(5):
            call()
        fastest = min(fastest, (time.perf_counter() - start) / 5)
    return fastest


def work_of(registry: Registry, trial: Trial, updates: int | None = None) -> Work:
    """Return the work of a trial, learning for `updates` or to its budget.

    A plugin that cannot be loaded here is told where its trial runs: its work is
    taken to be a certificate's.
    """
    if trial.measure == "parity":
        return Work(1, _CERTIFICATE_STEPS, 0)
    try:
        problem = Problem(registry, trial)
        forward = problem.forward_flops(1)
        parameters = max(problem.parameters().values())
        time_steps = problem.time_steps
    except Exception:
        return Work(1, _CERTIFICATE_STEPS, 0)
    kept = 4 * time_steps * (trial.hidden_size or 1) * trial.num_layers * _SAVED_TENSORS
    if trial.measure == "learning":
        done = int(trial.settings["updates"]) if updates is None else updates
        return _learning(trial, done, time_steps, forward, kept, parameters)
    if trial.measure == "gradients":
        passes = _BACK_AND_FORTH * 2 * (1 + ("follows" in trial.settings))
        steps, flops = passes * time_steps, passes * EXAMPLES * forward
        stored = _SPEC_BYTES + 250 * time_steps
        return Work(1, steps, flops, 0.0, 2 * EXAMPLES * kept, stored)
    if trial.measure == "memory":
        passes = sum(FLOPS_PER_FORWARD.get(p, 0) for p in trial.settings["phases"])
        batch = trial.batch or 1
        return Work(
            calls=CALLS,
            time_steps=passes * time_steps,
            flops=passes * batch * forward,
            activation_bytes=kept * batch,
        )
    return _speed(trial, time_steps, forward, kept)


def update_work(registry: Registry, trial: Trial) -> Work:
    """Return the work of one update of a learning trial."""
    settings = {**trial.settings, "evaluate_sequences": 0}
    return work_of(registry, replace(trial, settings=settings), 1)


def _learning(
    trial: Trial, updates: int, time_steps: int, forward: int, kept: int, count: int
) -> Work:
    batch = trial.batch or 1
    sequences = int(trial.settings["evaluate_sequences"])
    evaluations = 1 + updates / max(1, int(trial.settings["evaluate_every"]))
    blocks = -(-sequences // EVALUATION_BATCH)
    return Work(
        calls=1,
        time_steps=time_steps * (_BACK_AND_FORTH * updates + blocks * evaluations),
        flops=forward * (_BACK_AND_FORTH * updates * batch + sequences * evaluations),
        activation_bytes=kept * max(batch, min(sequences, EVALUATION_BATCH) // 4),
        file_bytes=_SPEC_BYTES + _EVENT_BYTES * updates + 4 * count,
    )


def _speed(trial: Trial, time_steps: int, forward: int, kept: int) -> Work:
    """Count warm-up, turns, and the reference's calls, which check the turns.

    How many rounds a session takes shows only while it runs: the fewest are counted,
    and what was seen corrects that.
    """
    # A time step of a stream is about its share of a pass, and repeated as often more.
    phases = [FLOPS_PER_FORWARD.get(p, 1) for p in trial.settings["phases"]]
    rounds, readings = int(trial.settings["rounds"]), int(trial.settings["readings"])
    calls = _WARM_UP_CALLS + (rounds + DRAWS) * (1 + readings)
    passes = sum(phases) / max(1, len(phases))
    batch = trial.batch or 1
    samples = 25 * len(phases) * rounds * readings
    return Work(
        calls=calls * len(phases),
        time_steps=passes * time_steps,
        flops=passes * batch * forward,
        floor_s=READING_S,
        activation_bytes=kept * batch,
        file_bytes=_SPEC_BYTES + samples,
    )
