"""The shapes of the certificate: a pairwise set and the whole grid."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from harness.contract import Inputs, Readout, Target


@dataclass(frozen=True)
class Shape:
    """One shape of the certificate; the kind of input decides the loss."""

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
    def output_size(self) -> int:
        """One real number where there is one answer, as in most tasks of reals.

        An output of size 1 shows code that lets an axis broadcast over the sequences. A
        single number in all may be near zero, where its relative error says little.
        """
        one = self.target is Target.REAL and self.readout is Readout.LAST
        return 1 if one and self.batch > 1 else 3

    @property
    def words(self) -> str:
        """The shape as text: "4 x 100 of 2 reals, hidden 32, readout last"."""
        layers = f", {self.num_layers} layers" if self.num_layers > 1 else ""
        padded = ", padded" if self.padded else ""
        return (
            f"{self.batch} x {self.time_steps} of {self.inputs.size} "
            f"{self.inputs.kind}, hidden {self.hidden_size}{layers}, readout "
            f"{self.readout}{padded}"
        )


_LAST, _EVERY = Readout.LAST, Readout.EVERY

PAIRWISE = (
    # Every pair of levels of any two columns occurs in some row (a test counts them):
    # kind, long or short, one or several sequences, hidden size, one or more layers,
    # readout, pad. An odd hidden size shows code that leaves out what remains behind
    # the last whole vector.
    Shape(Inputs("reals", 2), 100, 4, 32, 1, _LAST, False),
    Shape(Inputs("reals", 5), 100, 1, 21, 2, _EVERY, False),
    Shape(Inputs("reals", 5), 13, 4, 21, 1, _EVERY, True),
    Shape(Inputs("reals", 2), 13, 1, 32, 2, _LAST, True),
    Shape(Inputs("tokens", 10), 100, 4, 21, 2, _LAST, True),
    Shape(Inputs("tokens", 40), 100, 1, 32, 1, _EVERY, True),
    Shape(Inputs("tokens", 40), 13, 4, 32, 3, _EVERY, False),
    Shape(Inputs("tokens", 10), 13, 1, 21, 1, _LAST, False),
)

TRAINING = Shape(Inputs("reals", 2), 20, 8, 32, 1, _LAST, False)
SCORED_TRAINING = Shape(Inputs("tokens", 200), 8, 20, 32, 2, _EVERY, True)
PADDED_TRAINING = Shape(Inputs("tokens", 50), 10, 8, 32, 2, _LAST, True)
"""The shapes at which optimisers are compared. The second has more sequences than any
other shape, so that code which is wrong beyond a small batch shows. The last two have a
second layer, and tokens that many batches lack, whose rows must be updated too."""


def full_grid() -> tuple[Shape, ...]:
    """Return every combination of the levels of `PAIRWISE`: 384 shapes."""
    columns = zip(*(vars(shape).values() for shape in PAIRWISE), strict=True)
    levels = [dict.fromkeys(column) for column in columns]
    return tuple(Shape(*row) for row in itertools.product(*levels))
