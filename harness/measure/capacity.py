"""Does a trial fit on this machine? Threads and memory are checked before it starts."""

from __future__ import annotations

import functools

import numpy as np
import psutil

from harness.errors import RefusedError
from harness.machine.facts import allowed_cores
from harness.machine.gpu import gpu_free_memory
from harness.machine.system import System
from harness.measure.arithmetic import number_of_weights
from harness.measure.problem import Problem
from harness.measure.readback import MOST_STATES

FEWEST_BATCHES = 8
"""At least this many batches are placed at once, whatever their size."""

_SMALLER = "give a smaller batch, fewer time steps or a smaller hidden size"


def least_memory_bytes(problem: Problem) -> int:
    """Count the fewest bytes that a timed trial holds at once on its own device.

    These are all placed batches and the weights. A gradient also needs the states of
    all time steps. On the CPU one batch as it is drawn is counted too.
    """
    spec, item = problem.spec, np.dtype(problem.spec.dtype).itemsize
    steps, weights = _steps(problem), number_of_weights(problem)
    placed = item * (1 if spec.inputs.embedded else spec.inputs.size)
    held = steps * FEWEST_BATCHES * placed + weights * item
    if _asks_gradients(problem):
        held += item * (steps * spec.hidden_size * spec.num_layers + weights)
    return held + (_drawn(problem) if problem.trial.device == "cpu" else 0)


def least_host_bytes(problem: Problem, *, read_back: bool = False) -> int:
    """Count the fewest bytes of the host that a trial on another device takes.

    These are one batch as it is drawn and, if gradients are read back, the states that
    the float64 reference keeps at once.
    """
    spec, held = problem.spec, _drawn(problem)
    if read_back and _asks_gradients(problem):
        sequence = problem.time_steps * spec.hidden_size * spec.num_layers
        at_once = max(1, MOST_STATES // sequence)
        held += 8 * sequence * min(problem.trial.batch or 1, at_once)
    return held


def _drawn(problem: Problem) -> int:
    """Count the bytes of one batch as it is drawn, in float64."""
    inputs = problem.spec.inputs
    return _steps(problem) * 8 * (inputs.size if inputs.kind == "reals" else 1)


def _steps(problem: Problem) -> int:
    """Count the time steps of a batch, or of a sequence if all phases are `stream`."""
    alone = all(phase == "stream" for phase in problem.phases)
    return problem.time_steps * (1 if alone else problem.trial.batch or 1)


def _asks_gradients(problem: Problem) -> bool:
    gradients = set(problem.phases) - {"stream", "forward"}
    return problem.trains and bool(gradients)


def check_threads(problem: Problem) -> None:
    """Refuse more threads than cores: the threads would wait for each other.

    Raises:
        RefusedError: If a trial on the CPU asks for more threads than cores.
    """
    trial, cores = problem.trial, allowed_cores()
    if trial.device == "cpu" and trial.threads > cores:
        raise RefusedError(
            f"asks for {trial.threads} threads and {cores} cores are allowed here"
        )


def check_memory(problem: Problem, *, read_back: bool = False) -> None:
    """Refuse a trial that cannot fit into memory before it blocks the whole machine.

    Raises:
        MemoryError: If the trial needs more than is free, on its device or on the host.
    """
    on_gpu = problem.trial.device != "cpu"
    needed = least_memory_bytes(problem)
    _check_host(least_host_bytes(problem, read_back=read_back) if on_gpu else needed)
    free = _free_on_gpu() if on_gpu else None
    if free is not None and needed > free:
        raise MemoryError(
            f"needs at least {_gib(needed)} on {problem.trial.device} and {_gib(free)} "
            f"are free there; {_SMALLER}, or end other programs on that GPU"
        )


def _check_host(needed: int) -> None:
    free = psutil.virtual_memory().available
    left = System().memory_left_bytes()
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
    """Return the free bytes of this process's GPU, or None if the driver does not say.

    The number at the first call counts if it is larger, because a framework keeps the
    memory of earlier trials.
    """
    now, first = gpu_free_memory(), _free_at_first()
    return now if now is None or first is None else max(now, first)


@functools.cache
def _free_at_first() -> int | None:
    return gpu_free_memory()


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
