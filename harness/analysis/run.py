"""The records of one run with the doubts about them, for every table and figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.analysis.doubts import Doubt, doubts, words
from harness.analysis.grouping import group
from harness.store import RunFolder, TrialRecord


@dataclass(frozen=True, eq=False)
class JudgedRun:
    """The finished trials of a run, with the doubts about each.

    Attributes:
        records: The finished trials, in the order in which they ended.
        info: The content of `run.json`.
    """

    records: Sequence[TrialRecord]
    info: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: RunFolder) -> JudgedRun:
        """Read every finished trial of a run folder."""
        return cls(folder.records(), folder.info())

    def of(self, measure: str) -> list[TrialRecord]:
        """Return the trials of one measure."""
        return self._by_measure.get(measure, [])

    @cached_property
    def _by_measure(self) -> dict[str, list[TrialRecord]]:
        return group(self.records, lambda record: str(record.trial.measure))

    @cached_property
    def doubts(self) -> Mapping[str, tuple[Doubt, ...]]:
        """The doubts about each trial, by trial id; empty for a certified one."""
        return doubts(self.records)

    def doubt(self, records: Iterable[TrialRecord]) -> str | None:
        """Return why not all of these trials are certified, in words, or None."""
        return words([self.doubts[record.id] for record in records])

    def uncertified_cells(self, records: Iterable[TrialRecord]) -> tuple[str, ...]:
        """Return the cells of these trials that are not certified, each once."""
        return tuple(dict.fromkeys(r.trial.cell for r in records if self.doubts[r.id]))
