"""Is a trial's computation right at its own shape? Results are read back and compared.

A certificate covers small shapes. Speed and learning use shapes of their own, and
compare what was computed there with the float64 reference.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.contract import Array, Batch, Weights
from harness.measure.certificate.distance import errors
from harness.measure.certificate.record import TOLERANCES
from harness.measure.certificate.rounding import Responses, allowed, nudged, unit_of
from harness.measure.problem import Problem, rows
from harness.reading import Reading
from harness.trial import Trial

MOST_STATES = 2**22
"""Most numbers that a state of the reference has over all time steps of one call. A
cell's backward pass keeps about ten such arrays, in float64."""


def tolerance_of(trial: Trial, times: float = 1, most: float = math.inf) -> float:
    """Return `times` the certificate's tolerance for a trial, but `most` at most."""
    return min(times * TOLERANCES[trial.dtype, trial.precision].certified, most)


class Reference:
    """The float64 reference of a trial's network, on batches of any size.

    Attributes:
        network: The network that computes the reference; it takes whole batches.
    """

    def __init__(self, problem: Problem) -> None:
        self.network = problem.oracle()
        self._dtype = problem.spec.dtype
        self._unit = unit_of(self._dtype, problem.spec.precision)
        width = problem.spec.hidden_size * problem.spec.num_layers
        self._most = max(1, MOST_STATES // (width * problem.time_steps))

    def load(self, weights: Weights, nudge: int | None = None) -> None:
        """Load weights, rounded to the dtype of the trial's network.

        Args:
            weights: By name.
            nudge: If given, the weights are `nudged` first, with this seed.
        """
        if nudge is not None:
            weights = self.nudged(weights, nudge)
        # Rounded, so that the reference has no more digits than the network can hold.
        rounded = {n: tensor.astype(self._dtype) for n, tensor in weights.items()}
        self.network.load_weights(rounded)

    def nudged(self, weights: Weights, nudge: int) -> Weights:
        """Return weights with every last digit changed, up or down at random."""
        return nudged(weights, self._unit, nudge)

    def outputs(self, batch: Batch) -> Array:
        """Return the outputs [batch, readouts, output]."""
        # Every position is scored: a part without a scored position would be refused.
        asked = replace(batch, scored=np.ones_like(batch.scored))
        parts = [
            self.network.forward(self.network.place(part)).read().outputs
            for part in self._parts(asked)
        ]
        return np.concatenate(parts)

    def loss_and_gradients(self, batch: Batch) -> Weights:
        """Return the mean loss over scored positions, and its gradients.

        A large batch is computed in parts, whose results are added up.
        """
        total: Weights = {}
        for part in self._parts(batch):
            if not part.scored.any():
                continue
            share = part.scored.sum() / batch.scored.sum()
            done = self.network.loss_and_gradients(self.network.place(part)).read()
            for name, found in {"loss": done.loss, **done.gradients}.items():
                total[name] = total.get(name, 0.0) + share * np.asarray(found)
        return total

    def train(self, batches: Iterable[Batch]) -> Weights:
        """Take an update on each batch; return the last loss and the weights."""
        for batch in batches:
            done = self.network.train_steps([self.network.place(batch)]).read()
        return {"losses": done.losses, **self.network.weights()}

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        for start in range(0, batch.size, self._most):
            yield rows(batch, np.arange(start, min(start + self._most, batch.size)))


def gradient_norm(found: Weights) -> float:
    """Return the norm of all gradients together, from `loss_and_gradients`."""
    return math.sqrt(sum(np.sum(d**2) for name, d in found.items() if name != "loss"))


@dataclass
class ReadBack:
    """The worst error of several comparisons, relative to its tolerance.

    Attributes:
        tolerance: The largest error that counts as correct there.
        error: The error.
        where: The comparison and the tensor with this error.
    """

    tolerance: float
    error: float = 0.0
    where: str = ""

    def refuse(self, where: str) -> None:
        """Record a mistake that is not visible in the numbers."""
        self.error, self.where = float("inf"), where

    def compare(
        self,
        found: Weights,
        expected: Callable[[int | None], Weights],
        where: str,
        tolerance: float,
    ) -> None:
        """Compare tensors with the reference's, by name.

        An error above the tolerance is allowed if rounding alone makes it: see
        `harness.measure.certificate.rounding`.

        Args:
            found: What was computed.
            expected: Computes the same with the reference. It is called with None. If
                an error is above the tolerance, it is called with numbers too; each is
                the seed with which the weights are `nudged` first.
            where: The name of the comparison.
            tolerance: The largest error of numbers that have many correct digits.
        """
        right = expected(None)
        responses = Responses(expected, right)
        every = errors(found, right)
        above = {name: error for name, error in every.items() if error > tolerance}
        for name, error in (above or every).items():
            most = allowed(error, tolerance, responses.of(name))
            if error / most > self.error / self.tolerance:
                self.error, self.tolerance = error, most
                self.where = f"{where}: {name}"

    @property
    def ok(self) -> bool:
        """Whether everything that was compared is right."""
        return self.error <= self.tolerance

    def reading(self) -> Reading:
        """Return the verdict with finite numbers, since JSON has no infinity."""
        values = {"error": min(self.error, 1e300), "tolerance": self.tolerance}
        return Reading("readback", {"ok": int(self.ok), **values})

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**dataclasses.asdict(self), "error": min(self.error, 1e300)}
