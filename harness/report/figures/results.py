"""The results of a run that the figures of a report show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from harness.analysis.learning.gradient_over_lag import GradientPanel, gradient_panels
from harness.analysis.learning.held_out_curves import LearningPanel, learning_panels
from harness.analysis.learning.initial_values import InitialPanel, initial_panels
from harness.analysis.summary import Summary
from harness.report.figures.style import Palette


@dataclass(frozen=True)
class Results:
    """The tables of a run, and the panels that several figures show.

    Attributes:
        unfinished: Sentences about trials that have no result.
    """

    summary: Summary
    unfinished: tuple[str, ...] = ()

    @cached_property
    def palette(self) -> Palette:
        """The colours of the run's cells and the marks of its implementations."""
        trials = [record.trial for record in self.summary.run.records]
        return Palette.of((t.cell for t in trials), (t.implementation for t in trials))

    @cached_property
    def curves(self) -> list[LearningPanel]:
        """The learning curves of each task's own metric."""
        return learning_panels(self.summary.run)

    @cached_property
    def gradients(self) -> list[GradientPanel]:
        """The gradients over lag, of networks that were trained."""
        return [panel for panel in gradient_panels(self.summary.run) if panel.series]

    @cached_property
    def initial_gradients(self) -> list[InitialPanel]:
        """The gradients over lag at initial values, before any training."""
        return [panel for panel in initial_panels(self.summary.run) if panel.series]
