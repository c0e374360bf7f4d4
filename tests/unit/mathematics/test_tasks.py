"""Tasks agree with their examples, simulated floors and answers made by hand."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import special, stats

from harness.contract import Array, Batch, Tally, Task
from tasks.adding import Adding
from tasks.copy_memory import CopyMemory

STANDARD_ERRORS = 5
ROUNDING = 1e-6
"""Of a score that is the same in every sequence, and so has no standard error."""


def drawn(task: Task, *, length: int, batch: int = 20_000, seed: int = 1) -> Batch:
    return task.sample(np.random.default_rng(seed), batch=batch, length=length)


def means(tallies: dict[str, Tally]) -> dict[str, float]:
    return {name: tally.mean for name, tally in tallies.items()}


def example_line(task: type, name: str) -> list[str]:
    """Return the words of a line of the example in the docstring of a task."""
    lines = [line.split() for line in inspect.getdoc(task).splitlines()]  # type: ignore[union-attr]
    (found,) = [words[1:] for words in lines if words[:1] == [name]]
    return found


# --- answers that need no memory -----------------------------------------------------


def always_one(batch: Batch) -> Array:
    return np.ones((batch.size, 1, 1), np.float32)


def guess_after_blanks(alphabet: int) -> Callable[[Batch], Array]:
    """Answer blank before the recall span, and every symbol alike in it."""

    def answer(batch: Batch) -> Array:
        logits = np.zeros((batch.size, batch.time_steps, alphabet + 1), np.float32)
        logits[..., alphabet] = np.where(batch.scored, -100, 100)
        return logits

    return answer


def random_guess_after_blanks(alphabet: int) -> Callable[[Batch], Array]:
    """Answer a random symbol, to measure the accuracy of a guess."""

    def answer(batch: Batch) -> Array:
        logits = guess_after_blanks(alphabet)(batch)
        rng = np.random.default_rng(7)
        logits[..., :alphabet] += rng.random(logits[..., :alphabet].shape)
        return logits

    return answer


FLOORS = [
    (Adding(), 2, always_one),
    (Adding(), 11, always_one),
    (CopyMemory(symbols=2, alphabet=2), 5, guess_after_blanks(2)),
    (CopyMemory(symbols=1, alphabet=9), 1, guess_after_blanks(9)),
    (CopyMemory(), 30, guess_after_blanks(8)),
]


@pytest.mark.parametrize(("task", "length", "answer"), FLOORS)
def test_the_floor_is_the_score_of_a_policy_without_memory(
    task: Task, length: int, answer: Callable[[Batch], Array]
) -> None:
    sequences, parts = 20_000 if length < 20 else 2_000, 100
    floor = task.floor(length=length)
    values: dict[str, list[float]] = {name: [] for name in floor}
    for seed in range(parts):
        batch = drawn(task, length=length, batch=sequences // parts, seed=seed)
        for name, mean in means(task.score(answer(batch), batch)).items():
            values[name].append(mean)
    for name, part_means in values.items():
        error = float(np.std(part_means, ddof=1)) / math.sqrt(parts)
        tolerance = STANDARD_ERRORS * error + ROUNDING
        assert np.mean(part_means) == pytest.approx(floor[name], abs=tolerance), name


def test_a_random_guess_has_the_floor_accuracy() -> None:
    task = CopyMemory(symbols=2, alphabet=3)
    batch = drawn(task, length=2)
    scores = means(task.score(random_guess_after_blanks(3)(batch), batch))
    floor = task.floor(length=2)
    for name, count in (("accuracy", 2 * batch.size), ("exact_match", batch.size)):
        share = floor[name]
        error = math.sqrt(share * (1 - share) / count)
        assert scores[name] == pytest.approx(share, abs=STANDARD_ERRORS * error)


@pytest.mark.parametrize("length", [2, 5, 6])
def test_adding_from_the_last_step_alone_scores_as_documented(length: int) -> None:
    """The last step is marked in 1 of T - T // 2 sequences, which shows one number."""
    task = Adding()
    batch = drawn(task, length=length)
    value, marker = batch.inputs[:, -1, 0], batch.inputs[:, -1, 1]
    answers = np.where(marker == 1, value + 0.5, 1)[:, None, None]
    squares = (answers - batch.targets)[:, 0, 0] ** 2
    expected = 1 / 6 - 1 / 12 / (length - length // 2)
    error = float(squares.std()) / math.sqrt(batch.size)
    loss = task.score(answers, batch)["loss"].mean
    assert loss == pytest.approx(expected, abs=STANDARD_ERRORS * error)


@pytest.mark.parametrize(("task", "length", "answer"), FLOORS)
def test_the_policy_without_memory_does_not_solve_the_task(
    task: Task, length: int, answer: Callable[[Batch], Array]
) -> None:
    batch = drawn(task, length=length, batch=500)
    scores = means(task.score(answer(batch), batch))
    assert not task.solved(scores["loss"], scores)


def test_floors_are_the_published_numbers() -> None:
    """Bai et al. (2018) print 0.0204 for T = 1000; 1/6 is Arjovsky's 0.167."""
    assert Adding().floor(length=100) == pytest.approx(
        {"loss": 0.1666667, "hit_rate": 0.0784}, abs=1e-7
    )
    copy = CopyMemory().floor(length=1000)
    assert copy["loss"] == pytest.approx(2.0794, abs=1e-4)
    assert copy["accuracy"] == 0.125
    assert copy["loss_all_positions"] == pytest.approx(0.020387, abs=1e-6)
    assert copy["exact_match"] == pytest.approx(2.0**-30)


# --- inputs and targets ---------------------------------------------------------------


@pytest.mark.parametrize("length", [10, 13])
def test_markers_are_uniform_in_each_half(length: int) -> None:
    markers = drawn(Adding(), length=length).inputs[..., 1].sum(axis=0)
    half = length // 2
    assert stats.chisquare(markers[:half]).pvalue > 1e-3
    assert stats.chisquare(markers[half:]).pvalue > 1e-3


def test_the_two_markers_are_drawn_independently() -> None:
    """The first marker must say nothing about the second."""
    markers = drawn(Adding(), length=8).inputs[..., 1]
    counts = markers[:, :4].T @ markers[:, 4:]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_values_are_uniform_and_below_one() -> None:
    values = drawn(Adding(), length=10).inputs[..., 0].ravel()
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values[:20_000], "uniform").pvalue > 1e-3


def test_symbols_to_copy_are_uniform_and_independent() -> None:
    data = drawn(CopyMemory(symbols=2, alphabet=4), length=1).inputs[:, :2]
    pairs = np.bincount(4 * data[:, 0] + data[:, 1], minlength=16)
    assert stats.chisquare(pairs).pvalue > 1e-3


def test_the_example_in_the_docstring_of_adding_is_right() -> None:
    values = np.array(example_line(Adding, "value"), float)
    marks = example_line(Adding, "marker")
    markers, shown = np.array(marks[:6], float), " ".join(marks[6:])
    assert markers[:3].sum() == markers[3:].sum() == 1
    first, second = values[markers == 1]
    assert shown == f"answer {first} + {second} = {first + second:.1f}"


def test_the_example_in_the_docstring_of_copy_memory_is_a_drawn_batch() -> None:
    batch = drawn(CopyMemory(symbols=3, alphabet=4), length=4, batch=1)
    letters = dict(zip(batch.inputs[0, :3].tolist(), "bda", strict=True))
    letters |= {4: "-", 5: "|"}
    assert len(letters) == 5, "the seed must draw three different symbols"
    for name, tokens in (("input", batch.inputs[0]), ("target", batch.targets[0])):
        assert [letters[token] for token in tokens.tolist()] == example_line(
            CopyMemory, name
        )


# --- scores ---------------------------------------------------------------------------


def test_adding_counts_errors_below_four_hundredths() -> None:
    batch = drawn(Adding(), length=4, batch=4)
    errors = np.array([0.039, -0.039, 0.041, -0.5])[:, None, None]
    tallies = Adding().score(batch.targets + errors, batch)
    assert tallies["hit_rate"] == Tally(2.0, 4)
    assert tallies["loss"].total == pytest.approx(float(np.sum(errors**2)))


def test_copy_memory_scores_agree_with_a_loop_over_positions() -> None:
    task = CopyMemory(symbols=2, alphabet=2)
    batch = drawn(task, length=3, batch=60)
    logits = np.random.default_rng(2).normal(0, 3, (60, 7, 3)).astype(np.float32)
    log_p = special.log_softmax(logits.astype(np.float64), axis=-1)
    everywhere, recalled, hits, exact = [], [], 0, 0
    for b in range(60):
        span = 0
        for t in range(7):
            nats = -log_p[b, t, batch.targets[b, t]]
            everywhere.append(nats)
            if t >= 5:
                recalled.append(nats)
                span += int(logits[b, t].argmax() == batch.targets[b, t])
        hits, exact = hits + span, exact + (span == 2)
    tallies = task.score(logits, batch)
    assert tallies["accuracy"] == Tally(float(hits), 120)
    assert tallies["exact_match"] == Tally(float(exact), 60)
    assert 0 < exact < hits / 2, "a case that distinguishes the two"
    assert tallies["loss"].count == 120
    assert tallies["loss"].total == pytest.approx(sum(recalled))
    assert tallies["loss_all_positions"].count == 420
    assert tallies["loss_all_positions"].total == pytest.approx(sum(everywhere))


def test_the_copy_memory_loss_is_finite_for_logits_that_overflow_exp() -> None:
    task = CopyMemory(symbols=1, alphabet=2)
    batch = drawn(task, length=1, batch=4)
    logits = np.zeros((4, 3, 3), np.float32)
    logits[..., 2] = 1e4  # certain of blank, which costs 1e4 nats for a symbol
    tallies = task.score(logits, batch)
    assert tallies["loss"].mean == pytest.approx(1e4)
    assert tallies["loss_all_positions"].mean == pytest.approx(1e4 / 3)


def test_the_copy_memory_loss_of_float32_logits_is_computed_in_float64() -> None:
    """Near zero a float32 log-softmax has steps of 6e-8; this loss is 2 exp(-20)."""
    task = CopyMemory(symbols=1, alphabet=2)
    batch = drawn(task, length=1, batch=4)
    logits = np.float32(20) * np.eye(3, dtype=np.float32)[batch.targets]
    loss = task.score(logits, batch)["loss"].mean
    assert loss == pytest.approx(2 * math.exp(-20), rel=1e-6)


def test_the_adding_error_of_float32_answers_is_computed_in_float64() -> None:
    batch = drawn(Adding(), length=4, batch=8)
    answers = np.full((8, 1, 1), 1e25, np.float32)
    assert Adding().score(answers, batch)["loss"].mean == pytest.approx(1e50)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "task", [Adding(), CopyMemory(symbols=1, alphabet=2)], ids=lambda t: t.info.name
)
def test_answers_that_are_not_finite_are_wrong(task: Task, value: float) -> None:
    """An argmax over NaN answers 0, which is a symbol."""
    batch = drawn(task, length=4, batch=50)
    shape = (*batch.scored.shape, task.info.output_size)
    scores = means(task.score(np.full(shape, value, np.float32), batch))
    assert not np.isfinite(scores["loss"])
    assert scores.get("accuracy", 0) == scores.get("hit_rate", 0) == 0
    assert not task.solved(scores["loss"], scores)


@pytest.mark.parametrize(
    ("task", "below", "at"),
    [
        (Adding(), {"loss": 1 / 599}, {"loss": 1 / 600}),
        (CopyMemory(), {"accuracy": 0.9899}, {"accuracy": 0.99}),
    ],
    ids=["adding", "copy-memory"],
)
def test_solved_has_its_documented_threshold(
    task: Task, below: dict[str, float], at: dict[str, float]
) -> None:
    assert not task.solved(below.get("loss", 0.0), below)
    assert task.solved(at.get("loss", 9.0), at)


def test_the_first_symbol_is_due_after_gap_and_symbols() -> None:
    assert CopyMemory(symbols=3).first_recalled(length=7) == 10
    assert Adding().first_recalled(length=7) == 0


# --- refusals -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "3", None])
@pytest.mark.parametrize("option", ["symbols", "alphabet"])
def test_copy_memory_refuses_options_out_of_range(option: str, value: object) -> None:
    allowed = {"symbols": "at least 1", "alphabet": "at least 2"}[option]
    with pytest.raises(
        ValueError, match=f"{option} must be a whole number of {allowed}"
    ):
        CopyMemory(**{option: value})  # type: ignore[arg-type]


def test_an_alphabet_of_one_symbol_is_refused() -> None:
    with pytest.raises(
        ValueError, match="alphabet must be a whole number of at least 2"
    ):
        CopyMemory(alphabet=1)


@pytest.mark.parametrize("length", [0, -5, True, 4.0])
@pytest.mark.parametrize("task", [Adding(), CopyMemory()], ids=lambda t: t.info.name)
def test_lengths_out_of_range_are_refused_everywhere(task: Task, length: int) -> None:
    rng = np.random.default_rng(0)
    for ask in (
        lambda: task.time_steps(length),
        lambda: task.sample(rng, batch=1, length=length),
        lambda: task.floor(length=length),
        lambda: task.first_recalled(length=length),
    ):
        with pytest.raises(ValueError, match=r"length must be a whole number of at"):
            ask()


def test_each_task_accepts_its_shortest_length() -> None:
    with pytest.raises(ValueError, match="at least 2, not 1"):
        Adding().time_steps(1)
    assert Adding().time_steps(2) == 2
    assert CopyMemory(symbols=4).time_steps(1) == 9
