"""Is what ran at a trial's own shape what the certificate says? Read back and compared.

A certificate is about small shapes. Speed and learning run at shapes of their own, and
hold what was computed there against the float64 reference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.contract import Array, Batch, Oracle, Quantity, Weights
from harness.measure.certificate.record import relative_error
from harness.measure.problem import Problem
from harness.store import Reading

MOST_STATES = 2**22
"""Numbers of a state over all time steps that the reference keeps at once; a cell's
backward pass keeps about ten such arrays, in float64."""

ROOM = 10
"""An error may be so many times what the last digit of the weights makes. Of 1600
results of correct float32 code 7 were beyond 1e-5, up to 1.5e-4, all of them sums whose
terms cancel, and none was beyond 5.5 times its own."""

NUDGES = 4
"""Changes that are tried: a single number may by chance not answer to one of them."""

_UNIT = {"tf32": 2.0**-11, "bf16": 2.0**-8}
"""Relative distance of two neighbouring numbers, where it is not that of the dtype."""

QUANTITIES = {
    "ok": Quantity("yes or no", "higher"),
    "error": Quantity("relative error", "lower"),
    "tolerance": Quantity("relative error", "neither"),
}


class Reference:
    """The float64 reference of a trial's network, on batches of any size."""

    def __init__(self, problem: Problem) -> None:
        self._oracle = problem.oracle()
        self._dtype = problem.spec.dtype
        unit = float(np.finfo(self._dtype).eps)
        self._unit = _UNIT.get(problem.spec.precision, unit)
        width = problem.spec.hidden_size * problem.spec.num_layers
        self._most = max(1, MOST_STATES // (width * problem.time_steps))

    def load(self, weights: Weights) -> None:
        """Take weights, rounded to the dtype of the network on trial."""
        # The reference must not know more digits than the network can hold.
        rounded = {n: tensor.astype(self._dtype) for n, tensor in weights.items()}
        self._oracle.load_weights(rounded)

    def load_nudged(self, weights: Weights, nudge: int) -> None:
        """Take weights with every last digit changed, up or down by chance."""
        self.load(self.nudged(weights, nudge))

    def nudged(self, weights: Weights, nudge: int) -> Weights:
        """Return weights with every last digit changed, up or down by chance."""
        rng = np.random.default_rng(nudge)
        return {
            name: w * (1 + self._unit * rng.choice([-1, 1], w.shape))
            for name, w in weights.items()
        }

    def outputs(self, batch: Batch) -> Array:
        """Return the outputs [batch, readouts, output]."""
        # What is scored changes no output, and a part without any would be refused.
        asked = replace(batch, scored=np.ones_like(batch.scored))
        parts = [
            self._oracle.forward(self._oracle.place(part)).read().outputs
            for part in self._parts(asked)
        ]
        return np.concatenate(parts)

    def loss_and_gradients(self, batch: Batch) -> Weights:
        """Return the mean loss over scored positions, and its gradients.

        The sums over parts of the batch are those over the whole.
        """
        total: Weights = {}
        for part in self._parts(batch):
            if not part.scored.any():
                continue
            share = part.scored.sum() / batch.scored.sum()
            done = self._oracle.loss_and_gradients(self._oracle.place(part)).read()
            for name, found in {"loss": done.loss, **done.gradients}.items():
                total[name] = total.get(name, 0.0) + share * np.asarray(found)
        return total

    def train(self, batches: Iterable[Batch]) -> Weights:
        """Take an update on each batch; return the last loss and the weights."""
        for batch in batches:
            done = self._oracle.train_steps([self._oracle.place(batch)]).read()
        return {"losses": done.losses, **self._oracle.weights()}

    @property
    def network(self) -> Oracle:
        """The network that computes it, which takes whole batches."""
        return self._oracle

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        for start in range(0, batch.size, self._most):
            yield rows(batch, np.arange(start, min(start + self._most, batch.size)))


def gradient_norm(found: Weights) -> float:
    """Return the norm of all gradients together, as `loss_and_gradients` gave them."""
    squares = (np.sum(d**2) for name, d in found.items() if name != "loss")
    return float(np.sqrt(sum(squares)))


def rows(batch: Batch, which: Array) -> Batch:
    """Return some sequences of a batch."""
    return replace(
        batch,
        inputs=batch.inputs[which],
        lengths=batch.lengths[which],
        targets=batch.targets[which],
        scored=batch.scored[which],
    )


@dataclass
class ReadBack:
    """The worst error, in units of its tolerance, of all that was compared.

    Attributes:
        tolerance: The largest that this error of a correct computation may be.
        where: What had this error.
    """

    tolerance: float
    error: float = 0.0
    where: str = ""

    def refuse(self, where: str) -> None:
        """Take something to be wrong whatever the numbers are."""
        self.error, self.where = float("inf"), where

    def compare(
        self,
        found: Weights,
        expected: Weights,
        where: str,
        tolerance: float,
        nudged: Callable[[int], Weights],
    ) -> None:
        """Hold tensors against the reference's, by name.

        Some numbers no float32 code computes to many digits: gradients of a chaotic
        network, sums whose terms cancel. So beyond the tolerance an error may still be
        up to `ROOM` times that which the reference itself makes when the weights change
        in their last digit.

        Args:
            found: What was computed.
            expected: The same by the reference.
            where: Names the comparison.
            tolerance: For what can be computed to many digits.
            nudged: Computes `expected` with such a change, of a number; asked at need.
        """
        worst = errors(found, expected)
        changes: list[dict[str, float]] = []
        if max(worst.values()) > tolerance:
            changes = [errors(nudged(nudge), expected) for nudge in range(NUDGES)]
        for name, error in worst.items():
            response = max((change[name] for change in changes), default=0.0)
            allowed = max(tolerance, ROOM * response)
            if error / allowed > self.error / self.tolerance:
                self.error, self.tolerance = error, allowed
                self.where = f"{where}: {name}"

    @property
    def ok(self) -> bool:
        """Whether all that was compared is right."""
        return self.error <= self.tolerance

    def reading(self) -> Reading:
        """Return the verdict; JSON knows no infinity."""
        values = {"error": min(self.error, 1e300), "tolerance": self.tolerance}
        return Reading("readback", {"ok": int(self.ok), **values})

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**dataclasses.asdict(self), "error": min(self.error, 1e300)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ReadBack:
        """Rebuild it from `to_json`."""
        return cls(**values)


def errors(found: Weights, expected: Weights) -> dict[str, float]:
    """Return each tensor's relative error; infinite where it is missing."""
    return {name: _error(found.get(name), tensor) for name, tensor in expected.items()}


def _error(found: Array | None, expected: Array) -> float:
    if found is None:
        return float("inf")
    error = relative_error(np.asarray(found), np.asarray(expected, np.float64))
    return 0.0 if error is None else error
