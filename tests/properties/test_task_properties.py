"""Properties of a task for any length, batch and random numbers.

The second half tests every built-in task of the registry.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from harness.contract import Array, Batch, Readout, Target, Task
from harness.declarations import BUILT_IN
from harness.loading import load_task
from tasks.adding import Adding
from tasks.copy_memory import CopyMemory
from tests.helpers import REGISTRY

seeds = st.integers(0, 2**32 - 1)
batches = st.integers(1, 6)

# Stored examples are of no use on another machine, and a shared machine is slow.
sixty = settings(max_examples=60)

BUILT_IN_TASKS = [
    name for name, declared in REGISTRY.tasks.items() if declared.origin == BUILT_IN
]
each_task = pytest.mark.parametrize("name", BUILT_IN_TASKS)


def drawn(task: Task, seed: int, batch: int, length: int) -> Batch:
    return task.sample(np.random.default_rng(seed), batch=batch, length=length)


# --- the generators ------------------------------------------------------------------


@sixty
@given(seeds, batches, st.integers(2, 30))
def test_adding_marks_one_value_in_each_half_and_the_target_is_their_sum(
    seed: int, batch: int, length: int
) -> None:
    found = drawn(Adding(), seed, batch, length)
    for inputs, target in zip(found.inputs, found.targets, strict=True):
        marked = [t for t in range(length) if inputs[t, 1] != 0]
        assert len(marked) == 2
        first, second = marked
        assert first < length // 2 <= second
        assert inputs[first, 1] == inputs[second, 1] == 1
        assert target == inputs[first, 0] + inputs[second, 0]
    assert found.inputs.dtype == found.targets.dtype == np.float32
    assert found.inputs.shape == (batch, length, 2)
    assert found.targets.shape == (batch, 1, 1)
    assert ((found.inputs[..., 0] >= 0) & (found.inputs[..., 0] < 1)).all()
    assert found.scored.all()


@sixty
@given(seeds, batches, st.integers(1, 30), st.integers(1, 6), st.integers(2, 40))
def test_copy_memory_has_the_documented_layout_at_every_position(
    seed: int, batch: int, length: int, symbols: int, alphabet: int
) -> None:
    task = CopyMemory(symbols=symbols, alphabet=alphabet)
    found = drawn(task, seed, batch, length)
    blank, delimiter = alphabet, alphabet + 1
    for inputs, targets, scored in zip(
        found.inputs.tolist(),
        found.targets.tolist(),
        found.scored.tolist(),
        strict=True,
    ):
        data = inputs[:symbols]
        assert all(0 <= symbol < alphabet for symbol in data)
        gap = [blank] * (length - 1)
        assert inputs == [*data, *gap, delimiter, *[blank] * symbols]
        assert targets == [*[blank] * (length + symbols), *data]
        assert scored == [t >= length + symbols for t in range(length + 2 * symbols)]
    assert found.inputs.dtype == found.targets.dtype == np.int64
    assert task.info.inputs.size == delimiter + 1
    assert task.info.output_size == blank + 1


# --- every built-in task -------------------------------------------------------------


def loaded(name: str) -> Task:
    return load_task(REGISTRY, name, {})


def some_lengths(task: Task) -> list[int]:
    """Return up to eight lengths of the task, beginning with its shortest."""
    found = []
    for length in (*range(1, 9), 12, 16, 25, 28, 32, 64, 784):
        try:
            task.time_steps(length)
        except ValueError:
            continue
        found.append(length)
    return found[:8]


def any_length(data: st.DataObject, task: Task) -> int:
    return data.draw(st.sampled_from(some_lengths(task)))


def random_outputs(task: Task, batch: Batch, seed: int) -> Array:
    shape = (*batch.scored.shape, task.info.output_size)
    return np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32)


def right_outputs(task: Task, batch: Batch) -> Array:
    if task.info.target is Target.REAL:
        return batch.targets
    hot = np.arange(task.info.output_size) == batch.targets[..., None]
    return np.where(hot, np.float32(50), np.float32(0))


def test_the_registry_has_the_built_in_tasks() -> None:
    assert {"adding", "copy-memory"} <= set(BUILT_IN_TASKS)
    assert not REGISTRY.problems


@each_task
def test_the_info_of_a_task_is_complete(name: str) -> None:
    task = loaded(name)
    info = task.info
    assert info.name == name
    assert {"loss", info.headline} <= set(info.scores)
    assert info.scores["loss"].better == "lower"
    assert all(quantity.unit for quantity in info.scores.values())
    assert info.source
    assert some_lengths(task), "no length that this test tries is accepted"


@each_task
@sixty
@given(st.data(), seeds, batches)
def test_a_batch_has_the_shapes_and_dtypes_of_the_contract(
    name: str, data: st.DataObject, seed: int, size: int
) -> None:
    task = loaded(name)
    info, length = task.info, any_length(data, task)
    batch = drawn(task, seed, size, length)
    time_steps = task.time_steps(length)
    readouts = time_steps if info.readout is Readout.EVERY else 1
    if info.inputs.kind == "tokens":
        assert batch.inputs.dtype == np.int64
        assert batch.inputs.shape == (size, time_steps)
        assert batch.inputs.min() >= 0
        assert batch.inputs.max() < info.inputs.size
    else:
        assert batch.inputs.dtype == np.float32
        assert batch.inputs.shape == (size, time_steps, info.inputs.size)
        assert np.isfinite(batch.inputs).all()
    if info.target is Target.CLASS:
        assert batch.targets.dtype == np.int64
        assert batch.targets.shape == (size, readouts)
        assert batch.targets.min() >= 0
        assert batch.targets.max() < info.output_size
    else:
        assert batch.targets.dtype == np.float32
        assert batch.targets.shape == (size, readouts, info.output_size)
        assert np.isfinite(batch.targets).all()
    assert batch.lengths.dtype == np.int64
    assert batch.lengths.shape == (size,)
    assert ((batch.lengths >= 1) & (batch.lengths <= time_steps)).all()
    assert batch.scored.dtype == bool
    assert batch.scored.shape == (size, readouts)
    assert batch.scored.any(axis=1).all()
    if info.readout is Readout.EVERY:
        padding = np.arange(time_steps) >= batch.lengths[:, None]
        assert not (batch.scored & padding).any()
    assert batch.scored[:, task.first_recalled(length=length)].any()


@each_task
@sixty
@given(st.data(), seeds, batches)
def test_the_same_random_numbers_draw_the_same_batch(
    name: str, data: st.DataObject, seed: int, size: int
) -> None:
    task = loaded(name)
    length = any_length(data, task)
    one, other = (drawn(t, seed, size, length) for t in (task, loaded(name)))
    for part in ("inputs", "lengths", "targets", "scored"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


@each_task
def test_the_next_batch_of_a_stream_is_different(name: str) -> None:
    task = loaded(name)
    rng = np.random.default_rng(3)
    length = some_lengths(task)[-1]
    one, other = (task.sample(rng, batch=8, length=length) for _ in range(2))
    assert not np.array_equal(one.inputs, other.inputs)


@each_task
@sixty
@given(st.data(), seeds, st.integers(2, 9))
def test_tallies_add_up_over_any_split(
    name: str, data: st.DataObject, seed: int, size: int
) -> None:
    task = loaded(name)
    batch = drawn(task, seed, size, any_length(data, task))
    outputs = random_outputs(task, batch, seed)
    cuts = sorted(data.draw(st.sets(st.integers(1, size - 1), min_size=1)))
    whole = task.score(outputs, batch)
    slices = [slice(a, b) for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    for score, tally in whole.items():
        parts = [task.score(outputs[s], rows(batch, s))[score] for s in slices]
        total = sum(parts[1:], start=parts[0])
        assert total.count == tally.count
        assert total.total == pytest.approx(tally.total, rel=1e-12)


def rows(batch: Batch, s: slice) -> Batch:
    return replace(
        batch,
        inputs=batch.inputs[s],
        lengths=batch.lengths[s],
        targets=batch.targets[s],
        scored=batch.scored[s],
    )


@each_task
@sixty
@given(st.data(), seeds, batches)
def test_the_loss_is_the_mean_over_scored_positions_of_the_loss_for_its_target(
    name: str, data: st.DataObject, seed: int, size: int
) -> None:
    task = loaded(name)
    batch = drawn(task, seed, size, any_length(data, task))
    outputs = random_outputs(task, batch, seed)
    exact = outputs.astype(np.float64)
    losses = []
    for b, t in zip(*np.nonzero(batch.scored), strict=True):
        if task.info.target is Target.CLASS:
            losses.append(-log_softmax(exact[b, t])[batch.targets[b, t]])
        else:
            losses.append(np.mean((exact[b, t] - batch.targets[b, t]) ** 2))
    found = task.score(outputs, batch)["loss"]
    assert found.mean == pytest.approx(np.mean(losses), rel=1e-9)


@each_task
@sixty
@given(st.data(), seeds, batches)
def test_scores_and_floors_have_the_declared_names(
    name: str, data: st.DataObject, seed: int, size: int
) -> None:
    task = loaded(name)
    length = any_length(data, task)
    batch = drawn(task, seed, size, length)
    tallies = task.score(random_outputs(task, batch, seed), batch)
    assert set(tallies) == set(task.floor(length=length)) == set(task.info.scores)
    for score, tally in tallies.items():
        assert type(tally.total) is float, score
        assert type(tally.count) is int, score
        assert tally.count > 0, score


@each_task
@sixty
@given(st.data(), seeds, batches)
def test_right_answers_solve_the_task_and_beat_the_floor_in_every_score(
    name: str, data: st.DataObject, seed: int, size: int
) -> None:
    task = loaded(name)
    length = any_length(data, task)
    batch = drawn(task, seed, size, length)
    tallies = task.score(right_outputs(task, batch), batch)
    scores = {score: tally.mean for score, tally in tallies.items()}
    floor = task.floor(length=length)
    assert task.solved(scores["loss"], scores)
    assert not task.solved(floor["loss"], floor)
    for score, quantity in task.info.scores.items():
        if quantity.better == "lower":
            assert scores[score] < floor[score]
        elif quantity.better == "higher":
            assert scores[score] > floor[score]
