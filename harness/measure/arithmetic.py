"""What one call has to compute and to move, whoever computes it."""

from __future__ import annotations

import numpy as np
import psutil

from harness.environment import allowed_cores
from harness.errors import RefusedError
from harness.measure.problem import Problem

FLOPS_PER_FORWARD = {"forward": 1, "loss_and_gradients": 3, "train_step": 3}
"""A backward pass is counted as two forward passes; the optimiser's step as none."""

FEWEST_BATCHES = 8
"""Batches that are placed at once, whatever their size."""

_MOMENTS = {"adam": 2, "rmsprop": 1, "sgd": 0}


def flops_of_call(problem: Problem, phase: str, batch: int) -> int:
    """Count the operations of a call; one of `stream` is a single time step."""
    if phase == "stream":
        return problem.step_flops()
    return problem.forward_flops(batch) * FLOPS_PER_FORWARD[phase]


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
    """Count the bytes that timing a trial holds at once, at least.

    One batch as it is drawn, in float64, all that are placed, the weights, and for a
    gradient the states of all time steps.
    """
    spec, trial = problem.spec, problem.trial
    item, batch = np.dtype(spec.dtype).itemsize, trial.batch or 1
    phases = [phase for phase in trial.settings["phases"] if phase != "stream"]
    steps = batch * problem.time_steps if phases else problem.time_steps
    weights = _weights(problem)
    drawn = 8 * (spec.inputs.size if spec.inputs.kind == "reals" else 1)
    placed = item * (1 if spec.inputs.embedded else spec.inputs.size)
    held = steps * (drawn + FEWEST_BATCHES * placed) + weights * item
    if problem.trains and any(phase != "forward" for phase in phases):
        held += item * (steps * spec.hidden_size * spec.num_layers + weights)
    return held


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
        MemoryError: If the trial needs more than what is free.
    """
    needed, free = least_memory_bytes(problem), psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"needs at least {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
            "free; give a smaller batch, fewer time steps or a smaller hidden size"
        )
