"""The shapes of the certificate: a pairwise set, and the whole grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from harness.contract import Inputs, Readout, Target


@dataclass(frozen=True)
class Shape:
    """One shape of the certificate; its loss follows from the kind of input."""

    inputs: Inputs
    time_steps: int
    batch: int
    hidden_size: int
    num_layers: int
    readout: Readout
    padded: bool

    @property
    def target(self) -> Target:
        """Cross-entropy for tokens, squared error for reals."""
        return Target.CLASS if self.inputs.kind == "tokens" else Target.REAL

    @property
    def words(self) -> str:
        """The shape for people: "4 x 100 of 2 reals, hidden 32, readout last"."""
        layers = f", {self.num_layers} layers" if self.num_layers > 1 else ""
        padded = ", padded" if self.padded else ""
        return (
            f"{self.batch} x {self.time_steps} of {self.inputs.size} "
            f"{self.inputs.kind}, hidden {self.hidden_size}{layers}, readout "
            f"{self.readout}{padded}"
        )


def _shape(
    kind: Literal["reals", "tokens"],
    size: int,
    time_steps: int,
    batch: int,
    hidden_size: int,
    num_layers: int,
    readout: str,
    padded: bool,
) -> Shape:
    return Shape(
        Inputs(kind, size),
        time_steps,
        batch,
        hidden_size,
        num_layers,
        Readout(readout),
        padded,
    )


PAIRWISE = (
    # Every pair of levels of any two columns occurs in some row (a test counts them):
    # kind, long or short, one or several sequences, hidden size, layers, readout, pad.
    _shape("reals", 2, 100, 4, 32, 1, "last", False),
    _shape("reals", 5, 100, 1, 20, 2, "every", False),
    _shape("reals", 5, 13, 4, 20, 1, "every", True),
    _shape("reals", 2, 13, 1, 32, 2, "last", True),
    _shape("tokens", 10, 100, 4, 20, 2, "last", True),
    _shape("tokens", 40, 100, 1, 32, 1, "every", True),
    _shape("tokens", 40, 13, 4, 32, 2, "every", False),
    _shape("tokens", 10, 13, 1, 20, 1, "last", False),
)

TRAINING = _shape("reals", 2, 20, 8, 32, 1, "last", False)
"""The shape at which optimisers are compared."""


def full_grid() -> tuple[Shape, ...]:
    """Return every combination of the levels of `PAIRWISE`: 256 shapes."""
    columns = (
        [s.inputs for s in PAIRWISE],
        [s.time_steps for s in PAIRWISE],
        [s.batch for s in PAIRWISE],
        [s.hidden_size for s in PAIRWISE],
        [s.num_layers for s in PAIRWISE],
        [s.readout for s in PAIRWISE],
        [s.padded for s in PAIRWISE],
    )
    levels = [list(dict.fromkeys(column)) for column in columns]
    rows: Iterator[Any] = itertools.product(*levels)
    return tuple(Shape(*row) for row in rows)
