"""What one call has to compute and to move, whoever computes it."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import psutil

from harness.errors import RefusedError
from harness.machine.facts import allowed_cores
from harness.machine.gpu import gpu_free_memory
from harness.machine.watch import System
from harness.measure.problem import Problem
from harness.measure.readback import MOST_STATES

FLOPS_PER_FORWARD = {"forward": 1, "loss_and_gradients": 3, "train_step": 3}
"""A backward pass is counted as two forward passes; the optimiser's step as none."""

FEWEST_BATCHES = 8
"""Batches that are placed at once, whatever their size."""

_TENSORS_KEPT = 12
"""Tensors of the state's size that are kept for a backward pass, in each time step."""

_MOMENTS = {"adam": 2, "rmsprop": 1, "sgd": 0}


def flops_of_call(problem: Problem, phase: str, batch: int) -> int:
    """Count the operations of a call; one of `stream` is a single time step."""
    if phase == "stream":
        return problem.step_flops()
    return problem.forward_flops(batch) * FLOPS_PER_FORWARD[phase]


def kept_bytes(problem: Problem, sequences: int) -> int:
    """Return roughly what a call keeps of its time steps for a backward pass."""
    state = problem.spec.hidden_size * problem.spec.num_layers
    return 4 * _TENSORS_KEPT * problem.time_steps * state * sequences


def least_bytes_of_call(problem: Problem, phase: str, batch: int) -> int:
    """Count the bytes that a call moves to and from memory at least.

    Inputs and weights are read once, outputs, gradients and what the optimiser changes
    are written once: what a cache without end would leave. What a pass keeps for its
    way back is not in it.
    """
    spec, item = problem.spec, np.dtype(problem.spec.dtype).itemsize
    weights = _weights(problem)
    if spec.inputs.embedded:  # of the embedding only what is looked up
        weights -= spec.inputs.size * spec.input_size
    time_steps = 1 if phase == "stream" else problem.time_steps
    readouts = spec.readouts(time_steps)
    inputs = batch * time_steps * spec.input_size
    outputs = batch * readouts * spec.output_size
    state = batch * spec.num_layers * spec.hidden_size
    state *= len(problem.cell.info.state_parts)
    if phase == "stream":
        return item * (inputs + weights + outputs + 2 * state)
    if phase == "forward":
        return item * (inputs + weights + outputs + state)
    moved = inputs + weights + outputs + weights  # targets are read, gradients written
    if phase == "train_step":
        optimizer = spec.optimizer
        moments = _MOMENTS[optimizer.name] + (optimizer.momentum > 0)
        moved += weights * (2 + 2 * moments)  # gradients read, all else read or written
    return item * moved


def least_memory_bytes(problem: Problem) -> int:
    """Count the bytes that timing a trial holds at once where it computes, at least.

    All batches that are placed, the weights, and for a gradient the states of all time
    steps; on the processor also one batch as it is drawn.
    """
    spec, item = problem.spec, np.dtype(problem.spec.dtype).itemsize
    steps, weights = _steps(problem), _weights(problem)
    placed = item * (1 if spec.inputs.embedded else spec.inputs.size)
    held = steps * FEWEST_BATCHES * placed + weights * item
    if _asks_gradients(problem):
        held += item * (steps * spec.hidden_size * spec.num_layers + weights)
    return held + (_drawn(problem) if problem.trial.device == "cpu" else 0)


def least_host_bytes(problem: Problem) -> int:
    """Count the bytes of the host that a trial on another device takes, at least.

    One batch as it is drawn, and for a timed gradient the states that the float64
    reference keeps of as much of it as it takes at once.
    """
    spec, held = problem.spec, _drawn(problem)
    if problem.trial.measure == "speed" and _asks_gradients(problem):
        sequence = problem.time_steps * spec.hidden_size * spec.num_layers
        at_once = max(1, MOST_STATES // sequence)
        held += 8 * sequence * min(problem.trial.batch or 1, at_once)
    return held


def _drawn(problem: Problem) -> int:
    """Count the bytes of one batch as it is drawn, in float64."""
    inputs = problem.spec.inputs
    return _steps(problem) * 8 * (inputs.size if inputs.kind == "reals" else 1)


def _steps(problem: Problem) -> int:
    """Count the time steps of a batch, or of one sequence where no phase takes more."""
    alone = all(phase == "stream" for phase in problem.trial.settings["phases"])
    return problem.time_steps * (1 if alone else problem.trial.batch or 1)


def _asks_gradients(problem: Problem) -> bool:
    asked = problem.trial.settings["phases"]
    return problem.trains and any(p not in ("stream", "forward") for p in asked)


def _weights(problem: Problem) -> int:
    shapes = problem.spec.weight_shapes(problem.cell).values()
    return sum(int(np.prod(shape)) for shape in shapes)


def check_threads(problem: Problem) -> None:
    """Stop before threads wait for each other's cores.

    Raises:
        RefusedError: If a trial on the processor asks for more threads than cores.
    """
    trial, cores = problem.trial, allowed_cores()
    if trial.device == "cpu" and trial.threads > cores:
        raise RefusedError(
            f"asks for {trial.threads} threads and {cores} cores are allowed here"
        )


def check_memory(problem: Problem) -> None:
    """Stop before a trial that cannot fit into memory takes the machine with it.

    Raises:
        MemoryError: If the trial needs more than what is free, where it computes or on
            the host.
    """
    on_gpu = problem.trial.device != "cpu"
    needed = least_memory_bytes(problem)
    _check_host(least_host_bytes(problem) if on_gpu else needed)
    free = _free_on_gpu() if on_gpu else None
    if free is not None and needed > free:
        raise MemoryError(
            f"needs at least {_gib(needed)} on {problem.trial.device} and {_gib(free)} "
            f"are free there; {_SMALLER}, or end what else holds that GPU"
        )


_SMALLER = "give a smaller batch, fewer time steps or a smaller hidden size"


def _check_host(needed: int) -> None:
    free = psutil.virtual_memory().available
    left = System(Path("/")).memory_left_bytes()
    where, advice = "", ""
    if left is not None and left < free:
        free, where = left, " within the memory limit of its control group"
        advice = ", or raise the limit of this container or job"
    if needed > free:
        raise MemoryError(
            f"needs at least {_gib(needed)} of this machine's memory and {_gib(free)} "
            f"are free{where}; {_SMALLER}{advice}"
        )


def _free_on_gpu() -> int | None:
    """Return what is free on this process's GPU; None where the driver does not tell.

    What was free at first counts: a framework keeps for later what it took for a trial.
    """
    now, first = gpu_free_memory(), _free_at_first()
    return now if now is None or first is None else max(now, first)


@functools.cache
def _free_at_first() -> int | None:
    return gpu_free_memory()


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
