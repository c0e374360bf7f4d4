"""Sentences about measurements that a run does not have, for each section."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.figures import speed as throughput
from harness.report.figures.results import Results


def one_machine(results: Results) -> Iterator[str]:
    """Say that timings of several machines are not compared."""
    if len(results.summary.header.machines) > 1:
        yield (
            "These trials ran on several machines; timings of different machines are "
            "never compared."
        )


def learning(results: Results) -> Iterator[str]:
    """Say that there is no learning trial."""
    if not results.summary.learned:
        yield "Learning was not measured in this run."


def agreement(results: Results) -> Iterator[str]:
    """Say that there is nothing to compare the implementations with."""
    if not results.summary.agreement:
        yield (
            "Several implementations trained the same network, but numpy-reference in "
            "float64 did not, so that their curves cannot be compared with it."
        )


def gradients(results: Results) -> Iterator[str]:
    """Say that no gradient was measured, or that no gradient trial has a curve."""
    if not results.summary.gradients and not results.summary.initial_values:
        yield "The gradient over lag was not measured in this run."
    elif not results.gradients and not results.initial_gradients:
        yield "No gradient trial of this run has a curve; see the outcomes."


def speed(results: Results) -> Iterator[str]:
    """Say which timings, peaks and times to solve are missing."""
    summary = results.summary
    if not summary.speed:
        yield "Speed was not measured in this run."
    elif not any(row.tokens_per_s for row in summary.speed):
        yield "No speed trial of this run has a timing; see the table."
    if summary.peaks and all(found.peak is None for found in summary.peaks):
        yield (
            "The peak of the machine was not measured beside these timings, so that "
            "there is no roof and no share of it."
        )
    count = len(throughput.timed(summary))
    if count > throughput.MOST:
        yield (
            f"Throughput is drawn for {throughput.MOST} of {count} "
            "headings, from the least work in a call to the most; the tables have all."
        )
    if summary.learned and not summary.solve_times:
        yield (
            "There is no time to solve: it needs a task that the median seed solved, "
            "and a certified timing of one update at that task's shape on one thread."
        )


def certificates(results: Results) -> Iterator[str]:
    """Say that nothing was certified."""
    if not results.summary.parity:
        yield "Nothing was certified in this run: no timing is known to be right."


def outcomes(results: Results) -> Iterator[str]:
    """Say that every trial ended ok, and which trials have no result."""
    if not results.summary.outcomes:
        yield "Every finished trial ended ok."
    yield from results.unfinished


def environment(results: Results) -> Iterator[str]:
    """Say that the run did not store its environment."""
    if not results.summary.environment and not results.summary.choices:
        yield "The run did not store its environment."
