"""Does learning compute the right numbers at its own batch size and length?

The certificate's shapes are small. A network could be wrong beyond 16 sequences, or
truncate the gradient every 128 time steps, and be certified nevertheless.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.contract import (
    Array,
    Batch,
    NetworkSpec,
    Placed,
    Readout,
    Target,
    TrainableNetwork,
    Weights,
)
from harness.measure.learning.update_readback import check_updates
from harness.measure.problem import Problem, initial_weights, rows
from harness.measure.readback import ReadBack, Reference, gradient_norm, tolerance_of

LOOSER = 10
"""The tolerance, as a multiple of the certificate's. Over 100 to 1000 time steps
correct float32 code was seen up to 5e-5 from the reference, with time constants as long
as the sequence."""

MOST_TOLERANCE = 0.5
"""The tolerance stays below the error of a result of zeros, which is 1."""

LONGEST_MEMORY = 400
"""Time constants up to this carry the gradient of the last answer back over hundreds of
time steps, so that a truncation shows. At initial values it vanishes after tens."""

FAINT = 0.1
"""Input weights of a cell without gates are scaled by this, for a long memory."""


class LearningReadBack:
    """Compares a trial's network with the float64 reference, at chosen weights.

    Outputs are compared on a held-out batch, for as many of its sequences as a training
    batch has, spread over the batch. Loss, gradients and the norm that an update
    reports are compared on a whole training batch, with random targets and every answer
    scored, so that no cotangent is zero.

    Attributes:
        found: The worst error of all checks.

    Args:
        problem: The trial.
        network: Its network; a check changes its weights.
        held_out: A held-out batch, as drawn and as the network placed it.
    """

    def __init__(
        self,
        problem: Problem,
        network: TrainableNetwork,
        held_out: tuple[Batch, Placed],
    ) -> None:
        trial = problem.trial
        self._tolerance = tolerance_of(trial, LOOSER, MOST_TOLERANCE)
        self.found = ReadBack(self._tolerance)
        self._problem, self._network = problem, network
        self._reference = Reference(problem)
        batch, self._held_out = held_out
        spread = np.linspace(0, batch.size - 1, min(batch.size, trial.needed("batch")))
        self._rows = np.unique(spread.round().astype(int))
        self._few = rows(batch, self._rows)
        self._batch = dense(problem.batch("train", 0, trial.batch), problem.spec)

    def check_start(self) -> None:
        """Check at initial values, with a long memory, and the trial's optimiser."""
        self.check("initial", self._problem.initial_weights())
        long_memory = self._long_memory()
        if long_memory is not None:
            self.check("long memory", long_memory)
        check_updates(self.found, self._problem, self._network, self._reference)

    def check(self, where: str, weights: Weights) -> None:
        """Compare what the network computes at some weights with the reference."""
        self._network.load_weights(weights)

        def expected(nudge: int | None) -> Weights:
            self._reference.load(weights, nudge)
            return self._expected()

        self.found.compare(self._computed(), expected, where, self._tolerance)

    def _computed(self) -> Weights:
        outputs = self._network.forward(self._held_out).read().outputs
        placed = self._network.place(self._batch)
        done = self._network.loss_and_gradients(placed).read()
        updates = self._network.train_steps([placed]).read()
        return {
            "outputs": outputs[self._rows],
            "loss": np.array(done.loss),
            **done.gradients,
            "update's loss": updates.losses[0],
            "update's norm": updates.gradient_norms[0],
        }

    def _expected(self) -> Weights:
        found = self._reference.loss_and_gradients(self._batch)
        expected = {
            "outputs": self._reference.outputs(self._few),
            **found,
            "update's loss": found["loss"],
        }
        if self._problem.spec.biases == "canonical":
            # With native biases a second bias adds its own gradient to the norm.
            expected["update's norm"] = np.array(gradient_norm(found))
        return expected

    def _long_memory(self) -> Weights | None:
        """Return initial values with a long memory, or None if the cell has none.

        If a gate keeps the state, its bias is raised. Otherwise the recurrent matrices
        are orthogonal and input weights are small: near zero tanh is the identity, and
        the gradient keeps its norm.
        """
        problem = self._problem
        gated = problem.cell.info.keep_bias is not None
        memory = min(problem.time_steps, LONGEST_MEMORY)
        scheme = "chrono" if gated else "canonical"
        seed = problem.trial.needed("seed")
        try:
            weights = initial_weights(problem.spec, problem.cell, scheme, seed, memory)
        except ValueError:  # a cell need not know the scheme
            return None
        if gated:
            return weights
        return {n: FAINT * w if n.endswith(".w_ih") else w for n, w in weights.items()}


def dense(batch: Batch, spec: NetworkSpec) -> Batch:
    """Return a batch with random targets, in which every answer is scored."""
    rng = np.random.default_rng(0)
    scored = np.ones_like(batch.scored)
    if spec.readout is Readout.EVERY:
        scored = np.arange(scored.shape[1]) < batch.lengths[:, None]
    targets: Array = rng.standard_normal(batch.targets.shape).astype(np.float32)
    if spec.target is Target.CLASS:
        targets = rng.integers(0, spec.output_size, batch.targets.shape)
    return replace(batch, targets=targets, scored=scored)
