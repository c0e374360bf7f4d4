"""The measures: each is a question that is asked of a network.

The table `MEASURES` holds everything that workers, plans, estimates, progress lines and
analyses need to know about a measure. A new measure is a file here and an entry there;
CONTRIBUTING.md says what else it may need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.contract import Weights
from harness.measure import gradients, memory
from harness.measure.certificate import certify
from harness.measure.learning import training
from harness.measure.learning.training import Observer
from harness.measure.problem import Measurement, Problem
from harness.measure.speed import meter
from harness.measure.speed.meter import SpeedMeter
from harness.measure.work import Work
from harness.registry import Registry
from harness.trial import Trial

Values = Mapping[tuple[str, str], Any]
"""Values of a whole trial, by split and metric."""


@dataclass(frozen=True)
class Request:
    """What a worker is asked to measure.

    Attributes:
        arrays: Tensors that the trial needs, such as trained weights.
        observer: Makes the observer to which a trial reports while it runs.
    """

    registry: Registry
    trial: Trial
    arrays: Weights
    observer: Callable[[], Observer]

    @property
    def problem(self) -> Problem:
        """The network and the data of the trial."""
        return Problem(self.registry, self.trial)


@dataclass(frozen=True)
class Measure:
    """What the rest of the harness knows about one measure.

    Attributes:
        work: Returns how much a trial computes, to estimate its time.
        run: Measures a trial; None for a measure whose trials take turns.
        meter: Makes the meter of a trial that takes turns with others, or None.
        in_words: Returns the result as text, for the line that a finished trial prints.
        has_updates: Whether a trial counts updates. Such a trial may end before the
            last update, and continues from checkpoints.
        own_worker: Whether each trial has a process of its own.
        by_reference: Whether the NumPy reference is measured instead of the
            implementation, if the cell has a reference.
        of_cell: Whether the result is the same for all implementations of a cell.
        read_back: Whether its numbers need a certificate, and are compared with the
            reference afterwards.
    """

    work: Callable[[Registry, Trial], Work]
    run: Callable[[Request], Measurement] | None = None
    meter: Callable[[Problem], SpeedMeter] | None = None
    in_words: Callable[[Values], str] = lambda values: ""
    has_updates: bool = False
    own_worker: bool = False
    by_reference: bool = False
    of_cell: bool = False
    read_back: bool = False


MEASURES: Mapping[str, Measure] = {
    "parity": Measure(
        work=certify.work,
        run=lambda asked: certify.measure_parity(asked.registry, asked.trial),
        in_words=certify.in_words,
    ),
    "learning": Measure(
        work=training.work,
        run=lambda asked: training.measure_learning(asked.problem, asked.observer()),
        in_words=training.in_words,
        has_updates=True,
        of_cell=True,
        read_back=True,
    ),
    "gradients": Measure(
        work=gradients.work,
        run=lambda asked: gradients.measure_gradients(asked.problem, asked.arrays),
        in_words=gradients.in_words,
        by_reference=True,
        of_cell=True,
    ),
    "speed": Measure(
        work=meter.work, meter=SpeedMeter, in_words=meter.in_words, read_back=True
    ),
    "memory": Measure(
        work=memory.work,
        run=lambda asked: memory.measure_memory(asked.registry, asked.trial),
        own_worker=True,
    ),
}
"""Every measure, in the order in which a report counts them."""


def takes_turns(trial: Trial) -> bool:
    """Say whether a trial is timed in turns with the others of its session."""
    return MEASURES[trial.measure].meter is not None


def by_reference(registry: Registry, trial: Trial) -> bool:
    """Say whether the NumPy reference computes a trial, not its implementation."""
    measure = MEASURES[trial.measure]
    return measure.by_reference and registry.cell(trial.cell).reference
