"""Does a task satisfy its contract? Problems are drawn and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import numpy as np

from harness.contract import Array, Batch, Readout, Target, Task
from harness.machine.process_state import ProcessState
from harness.measure.problem import ignored_rng, rows, same

PROBLEMS = 10_000
FLOOR_TOLERANCE = 0.05
"""The mean over `PROBLEMS` problems is a few hundredths from a closed form at most."""

_SIZES = (PROBLEMS, 1, 2, 3)
"""Sizes of the batches that are drawn: the last batch of a run may be small."""

_FLOAT32 = np.finfo(np.float32).max
_LENGTHS: tuple[int, ...] = (10, 20, 50, 100, *range(1, 1000))
_NO_LOSS = 1e-6
_CERTAIN = 60.0
"""A logit that gives every other class a probability of 1e-26."""


Clauses = dict[str, str | None]
"""The requirements of the contract by name, each with what was found and what was
expected; None if the task satisfies it."""


@dataclass(frozen=True)
class TaskCheck:
    """The result of checking a task at one length."""

    task: str
    length: int
    clauses: Clauses

    @property
    def broken(self) -> int:
        """The number of requirements that are not satisfied."""
        return sum(problem is not None for problem in self.clauses.values())


def check_task(task: Task) -> TaskCheck:
    """Draw problems of the first of `_LENGTHS` that a task has, and check them.

    Raises:
        ValueError: If the task has no length below 1000.
    """
    before = ProcessState()
    length = _first_length(task)
    batch = _draw(task, length)
    unfit = chain.from_iterable(_unfit(task, length, size) for size in _SIZES)
    clauses: Clauses = {
        "shapes and dtypes": next(unfit, None),
        "one seed, one batch": next(_difference(batch, _draw(task, length)), None),
        "two seeds, two batches": ignored_rng(task, length),
    }
    if clauses["shapes and dtypes"] is None:  # another batch cannot be scored
        clauses |= _answers(task, batch, length)
    changed = before.changes()
    before.restore()
    left = f"changes {', '.join(changed[:3])}" if changed else None
    clauses["process unchanged"] = left
    return TaskCheck(task.info.name, length, clauses)


def _first_length(task: Task) -> int:
    for length in _LENGTHS:
        with suppress(ValueError):
            task.time_steps(length)
            return length
    raise ValueError("has no sequences of any length below 1000")


def _draw(task: Task, length: int, size: int = PROBLEMS) -> Batch:
    return task.sample(np.random.default_rng(0), batch=size, length=length)


def _difference(batch: Batch, again: Batch) -> Iterator[str]:
    for name in ("inputs", "lengths", "targets", "scored"):
        if not same(*(np.asarray(getattr(b, name)) for b in (batch, again))):
            yield f"{name} differ between two draws; rng must be the only randomness"


# --- what was drawn ------------------------------------------------------------------


def _unfit(task: Task, length: int, size: int) -> Iterator[str]:
    """Yield what a run would refuse in a batch of this size."""
    batch = _draw(task, length, size)
    where = "" if size == PROBLEMS else f"in a batch of {size}, "
    found = list(_wrong_shape(task, batch, length, size))
    # Values of a wrong shape or dtype cannot be judged.
    for problem in found or _wrong_values(task, batch, length):
        yield f"{where}{problem}"


def _wrong_shape(task: Task, batch: Batch, length: int, size: int) -> Iterator[str]:
    info, time_steps = task.info, task.time_steps(length)
    readouts = time_steps if info.readout is Readout.EVERY else 1
    tokens, classes = info.inputs.kind == "tokens", info.target is Target.CLASS
    inputs = () if tokens else (info.inputs.size,)
    targets = () if classes else (info.output_size,)
    for name, kinds, shape in (
        ("inputs", "iu" if tokens else "f", (size, time_steps, *inputs)),
        ("lengths", "iu", (size,)),
        ("targets", "iu" if classes else "f", (size, readouts, *targets)),
        ("scored", "b", (size, readouts)),
    ):
        found = np.asarray(getattr(batch, name))
        if found.dtype.kind not in kinds or found.shape != shape:
            word = {"f": "float", "b": "bool"}.get(kinds, "int")
            yield f"{name} are {found.dtype} {found.shape}; expected {word} {shape}"


def _wrong_values(task: Task, batch: Batch, length: int) -> Iterator[str]:
    info = task.info
    ranges = [("lengths", batch.lengths, 1, task.time_steps(length))]
    if info.inputs.kind == "tokens":
        ranges.append(("inputs", batch.inputs, 0, info.inputs.size - 1))
    else:
        yield from _not_finite("inputs", batch.inputs)
    if info.target is Target.CLASS:
        ranges.append(("targets", batch.targets, 0, info.output_size - 1))
    else:
        yield from _not_finite("targets", batch.targets)
    for name, array, least, most in ranges:
        if array.min() < least or array.max() > most:
            yield (
                f"{name} are from {array.min()} to {array.max()}; expected {least} to "
                f"{most}"
            )
    if not batch.scored.any():
        yield "no position is scored"
    unscored = np.flatnonzero(~batch.scored.any(axis=1))
    if unscored.size:
        yield (
            f"no position of {unscored.size} of {len(batch.scored)} sequences is "
            f"scored, the first of them at [{unscored[0]}]; a batch of such sequences "
            "alone has no loss, so score at least one position of each"
        )


def _not_finite(name: str, found: Array) -> Iterator[str]:
    """Yield where reals are not finite in float32, scored or not."""
    wrong = ~(np.abs(found) <= _FLOAT32)
    if wrong.any():
        place = [int(i) for i in np.argwhere(wrong)[0]]
        yield (
            f"{name} hold {found[tuple(place)]} at {place}; every number must be "
            "finite in float32, also where nothing is scored"
        )


# --- scores and floor ----------------------------------------------------------------


def _answers(task: Task, batch: Batch, length: int) -> Clauses:
    scale = 1 if task.info.target is Target.REAL else _CERTAIN
    perfect, floor = scale * _targets(task, batch), task.floor(length=length)
    scores = task.score(perfect, batch)
    names = next(_wrong_keys(task, set(scores), set(floor)), None)
    if names is not None:
        return {"names of scores": names}
    means = {name: tally.mean for name, tally in scores.items()}
    constant = task.score(_best_constant(task, batch), batch)["loss"].mean
    first = task.first_recalled(length=length)
    return {
        "names of scores": None,
        "scores of parts add up": next(_wrong_sum(task, perfect, batch), None),
        "a perfect answer": next(_wrong_rule(task, means), None),
        "floor": next(_wrong_floor(task, constant, floor), None),
        "first recalled": next(_wrong_readout(first, batch), None),
    }


def _wrong_rule(task: Task, scores: Mapping[str, float]) -> Iterator[str]:
    if not scores["loss"] <= _NO_LOSS:
        yield f"the targets themselves have a loss of {scores['loss']:.5g}"
    if not task.solved(scores["loss"], scores):
        yield "the targets themselves do not count as solved"


def _wrong_floor(
    task: Task, constant: float, floor: Mapping[str, float]
) -> Iterator[str]:
    said = floor["loss"]
    if not abs(constant - said) <= FLOOR_TOLERANCE * abs(said):
        yield (
            f"floor says a loss of {said:.5g}; the best constant answer reaches "
            f"{constant:.5g}"
        )
    if task.solved(said, floor):
        yield "the floor counts as solved"


def _wrong_readout(first: int, batch: Batch) -> Iterator[str]:
    readouts = batch.scored.shape[1]
    if not (0 <= first < readouts and batch.scored[:, first].any()):
        yield f"readout {first} of {readouts} is not scored"


def _wrong_keys(task: Task, scored: set[str], floor: set[str]) -> Iterator[str]:
    named = set(task.info.scores)
    for what, found in (("score gives", scored), ("floor gives", floor)):
        if found != named:
            yield f"{what} {_listed(found)}; info.scores names {_listed(named)}"
    for name in ("loss", task.info.headline):
        if name not in named:
            yield f"info.scores lacks '{name}'"


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _wrong_sum(task: Task, outputs: Array, batch: Batch) -> Iterator[str]:
    # Some outputs are made wrong, so that every score has something to add up.
    outputs = np.where(np.arange(PROBLEMS)[:, None, None] % 3 == 0, 0.0, outputs)
    cuts = (slice(PROBLEMS // 3), slice(PROBLEMS // 3, None))
    one, other = (task.score(outputs[cut], rows(batch, cut)) for cut in cuts)
    for name, tally in task.score(outputs, batch).items():
        added = one[name] + other[name]
        if added.count != tally.count or not np.isclose(added.total, tally.total):
            yield (
                f"{name} of two parts is {added.total:.5g} of {added.count}, of the "
                f"whole {tally.total:.5g} of {tally.count}; give sums and counts"
            )


def _targets(task: Task, batch: Batch) -> Array:
    """Return the targets [batch, readouts, output], one-hot if they are classes."""
    if task.info.target is Target.REAL:
        return np.asarray(batch.targets, np.float64)
    return np.eye(task.info.output_size)[batch.targets]


def _best_constant(task: Task, batch: Batch) -> Array:
    """Return the answers, one for each readout, with the least loss for all inputs."""
    answers = _targets(task, batch)
    scored = batch.scored[..., None]
    mean = (answers * scored).sum(axis=0) / np.maximum(scored.sum(axis=0), 1)
    if task.info.target is Target.CLASS:
        mean = np.log(np.maximum(mean, np.exp(-_CERTAIN)))
    return np.broadcast_to(mean, answers.shape)
