"""How many operations a call takes, and how many bytes it must move."""

from __future__ import annotations

import math

import numpy as np

from harness.measure.problem import Problem
from harness.measure.work import Work

FLOPS_PER_FORWARD = {"forward": 1, "loss_and_gradients": 3, "train_step": 3}
"""A backward pass is counted as two forward passes; the optimiser's step as none."""

_TENSORS_KEPT = 12
"""Tensors of the state's size that are kept for a backward pass, in each time step."""

_MOMENTS = {"adam": 2, "rmsprop": 1, "sgd": 0}


def flops_of_call(problem: Problem, phase: str, batch: int) -> int:
    """Count the operations of a call; a call of `stream` is a single time step."""
    spec, cell = problem.spec, problem.cell
    widths = spec.layer_input_sizes
    layers = sum(cell.flops(width, spec.hidden_size) for width in widths)
    readout = 2 * spec.hidden_size * spec.output_size
    if phase == "stream":
        return layers + readout
    steps = problem.time_steps
    forward = batch * (steps * layers + spec.readouts(steps) * readout)
    return forward * FLOPS_PER_FORWARD[phase]


def kept_bytes(problem: Problem, sequences: int) -> int:
    """Return roughly how many bytes a call keeps for its backward pass."""
    state = problem.spec.hidden_size * problem.spec.num_layers
    return 4 * _TENSORS_KEPT * problem.time_steps * state * sequences


def work_of(problem: Problem, passes: float, sequences: int) -> Work:
    """Return the work of forward passes over some sequences each."""
    flops = passes * flops_of_call(problem, "forward", sequences)
    kept = kept_bytes(problem, sequences)
    return Work(passes * problem.time_steps, flops, activation_bytes=kept)


def least_bytes_of_call(problem: Problem, phase: str, batch: int) -> int:
    """Count the fewest bytes that a call moves to and from memory.

    Inputs and weights are read once. Outputs, gradients and everything that the
    optimiser changes are written once. With an infinite cache no more would be moved.
    What a forward pass keeps for the backward pass is not counted.
    """
    spec, item = problem.spec, np.dtype(problem.spec.dtype).itemsize
    weights = number_of_weights(problem)
    if spec.inputs.embedded:  # only the rows that are looked up are read
        weights -= spec.inputs.size * spec.input_size
    time_steps = 1 if phase == "stream" else problem.time_steps
    readouts = spec.readouts(time_steps)
    inputs = batch * time_steps * spec.input_size
    outputs = batch * readouts * spec.output_size
    state = batch * spec.num_layers * spec.hidden_size
    state *= len(problem.cell.info.state_parts)
    moments = _MOMENTS[spec.optimizer.name] + (spec.optimizer.momentum > 0)
    more = {
        "stream": 2 * state,  # read and written
        "forward": state,
        # With gradients, targets are read instead of outputs being written.
        "loss_and_gradients": weights,
        # Gradients are written and read, weights written, moments read and written.
        "train_step": weights * (3 + 2 * moments),
    }
    return item * (inputs + weights + outputs + more[phase])


def number_of_weights(problem: Problem) -> int:
    """Count the numbers in all canonical tensors of a network."""
    return sum(map(math.prod, problem.spec.weight_shapes(problem.cell).values()))
