"""How much memory does it need? The peak of each phase, in a process of its own.

The process has built nothing before, so the time of a first call is measured here too.

Before memory is counted, the process imports its framework and builds the smallest
network. The network, its batch and the memory of the computation are counted. Phases
that need less come first, because an allocator may keep the memory of an earlier phase.
"""

from __future__ import annotations

from dataclasses import replace

from harness.errors import RefusedError
from harness.measure.arithmetic import FLOPS_PER_FORWARD, work_of
from harness.measure.capacity import check_memory
from harness.measure.problem import Measurement, Problem
from harness.measure.work import Work
from harness.quantities import MEMORY
from harness.reading import Reading
from harness.registry import Registry
from harness.runner.runner import Runner
from harness.trial import Trial

CALLS = 3
"""Calls of each phase: the second and third use what the first has built."""

STREAM_STEPS = 16


def measure_memory(
    registry: Registry, trial: Trial, runner: Runner | None = None
) -> Measurement:
    """Measure the peak memory of every phase that the implementation offers.

    Settings: `phases`.

    Args:
        registry: All plugins.
        trial: The trial.
        runner: Where its network lives, and whose memory is measured.

    Raises:
        RefusedError: If the implementation does not offer what the trial asks for.
    """
    smallest = {"hidden_size": 1, "num_layers": 1}
    Problem(registry, replace(trial, **smallest), runner).network()  # type: ignore[arg-type]
    problem = Problem(registry, trial, runner)
    check_memory(problem)
    gauges = problem.runner.gauges(trial.implementation, trial.device)
    network = problem.network()
    network.load_weights(problem.initial_weights())
    readings, first_s = [], 0.0
    for name in ("stream", "forward", "loss_and_gradients", "train_step"):
        trains = name in ("loss_and_gradients", "train_step")
        if name not in problem.phases or (trains and not problem.trains):
            continue
        batch = problem.batch("train", 0, 1 if name == "stream" else None)
        if name == "stream":
            batch = replace(batch, inputs=batch.inputs[:, :STREAM_STEPS])
        start = problem.zero_state()
        found, call_s = gauges.measure(name, network, batch, start, CALLS)
        # The update uses what the first call of `loss_and_gradients` has built.
        first_s = max(first_s, call_s)
        values: dict[str, float] = dict(found)
        if name != "stream":  # one call of `stream` is several time steps
            values["first_call_s"] = first_s
        readings.append(Reading(name, values))
        first_s = first_s if name == "loss_and_gradients" else 0.0
    if not readings:
        raise RefusedError(f"{trial.implementation} does not train")
    facts = {"kernel": network.kernel(), "parameters": problem.parameters()}
    return Measurement(readings, facts, MEMORY)


def work(registry: Registry, trial: Trial) -> Work:
    """Return what the calls of all phases compute, in a process of their own."""
    problem = Problem(registry, trial)
    passes = CALLS * sum(FLOPS_PER_FORWARD.get(name, 0) for name in problem.phases)
    return replace(work_of(problem, passes, trial.batch or 1), start_s=3.0)
