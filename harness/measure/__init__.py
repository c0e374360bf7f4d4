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
from harness.runner.runner import Runner
from harness.trial import LearningSettings, Trial

Values = Mapping[tuple[str, str], Any]
"""Values of a whole trial, by split and metric."""


@dataclass(frozen=True)
class MeasureInput:
    """What a measure is given.

    Attributes:
        arrays: Tensors that the trial needs, such as trained weights.
        observer: Makes the observer to which a trial reports while it runs.
        runner: Where networks of the trial's implementation live.
    """

    registry: Registry
    trial: Trial
    arrays: Weights
    observer: Callable[[], Observer]
    runner: Runner

    @property
    def problem(self) -> Problem:
        """The network and the data of the trial."""
        return Problem(self.registry, self.trial, self.runner)


@dataclass(frozen=True)
class Measure:
    """What the rest of the harness knows about one measure.

    Attributes:
        work: Returns how much a trial computes, to estimate its time.
        run: Measures a trial; None for a measure whose trials take turns.
        meter: Makes the meter of a trial that takes turns with others, or None.
        in_words: Returns the result as text, for the line that a finished trial prints.
        most_updates: Returns how many updates a trial has at most; 0 if it counts none.
            A trial that counts updates may end before the last one, and continues from
            checkpoints.
        own_worker: Whether each trial has a process of its own.
        by_reference: Whether the NumPy reference is measured instead of the
            implementation, if the cell has a reference.
        of_cell: Whether the result is the same for all implementations of a cell.
        read_back: Whether its numbers need a certificate, and are compared with the
            reference afterwards.
        verdict: The split and metric of the yes or no that a trial gives; a no is exit
            code 3. None if it gives numbers only.
        cached: Whether later runs need not measure it again. Its id therefore covers
            the library versions and the processor.
        own_optimizers: Whether it runs optimisers of its own, not that of its trial.
    """

    work: Callable[[Registry, Trial], Work]
    run: Callable[[MeasureInput], Measurement] | None = None
    meter: Callable[[Problem], SpeedMeter] | None = None
    in_words: Callable[[Values], str] = lambda values: ""
    most_updates: Callable[[Trial], int] = lambda trial: 0
    own_worker: bool = False
    by_reference: bool = False
    of_cell: bool = False
    read_back: bool = False
    verdict: tuple[str, str] | None = None
    cached: bool = False
    own_optimizers: bool = False


MEASURES: Mapping[str, Measure] = {
    "parity": Measure(
        work=certify.work,
        run=lambda asked: certify.measure_parity(
            asked.registry, asked.trial, asked.runner
        ),
        in_words=certify.in_words,
        verdict=("certificate", "certified"),
        cached=True,
        own_optimizers=True,
    ),
    "learning": Measure(
        work=training.work,
        run=lambda asked: training.measure_learning(asked.problem, asked.observer()),
        in_words=training.in_words,
        most_updates=lambda trial: trial.settings_as(LearningSettings).updates,
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
        run=lambda asked: memory.measure_memory(
            asked.registry, asked.trial, asked.runner
        ),
        own_worker=True,
    ),
}
"""Every measure, in the order in which a report counts them."""


def most_updates(trial: Trial) -> int:
    """Return how many updates a trial has at most; 0 if it counts none."""
    return MEASURES[trial.measure].most_updates(trial)


def takes_turns(trial: Trial) -> bool:
    """Say whether a trial is timed in turns with the others of its session."""
    return MEASURES[trial.measure].meter is not None


def by_reference(registry: Registry, trial: Trial) -> bool:
    """Say whether the NumPy reference computes a trial, not its implementation."""
    measure = MEASURES[trial.measure]
    return measure.by_reference and registry.cell(trial.cell).reference
