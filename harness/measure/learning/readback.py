"""Does learning compute, at its own batch and length, what the certificate says?

The certificate's shapes are small. A network that is wrong beyond 16 sequences, or cuts
the gradient every 128 time steps, would learn as nobody certified it.
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
from harness.measure.certificate.record import TOLERANCES
from harness.measure.learning.update_readback import check_updates
from harness.measure.problem import Problem, initial_weights
from harness.measure.readback import ReadBack, Reference, gradient_norm, rows

LOOSER = 10
"""Times the certificate's tolerance. Over 100 to 1000 time steps correct float32 code
was seen up to 5e-5 from the reference, with time constants as long as the sequence."""

MOST_TOLERANCE = 0.5
"""An answer of nothing but zeros has the error 1."""

LONGEST_MEMORY = 400
"""Time constants up to this carry the gradient of a last answer back over cuts that
are hundreds of time steps away; at initial values it is gone after some tens."""

FAINT = 0.1
"""What enters a cell without gates is scaled by this, to be remembered for long."""


class LearningReadBack:
    """A trial's network held against the float64 reference, at chosen weights.

    Outputs are those of the held-out batch: as many of its sequences as a training
    batch has, spread over it. Loss, gradients and the norm that an update reports are
    those of a whole training batch, of which every answer is scored, against targets
    drawn at random: a dense cotangent.

    Attributes:
        found: The worst error of all checks.

    Args:
        problem: The trial.
        network: Its network; a check leaves it with other weights.
        held_out: A held-out batch as it is and as the network placed it.
    """

    def __init__(
        self,
        problem: Problem,
        network: TrainableNetwork,
        held_out: tuple[Batch, Placed],
    ) -> None:
        trial = problem.trial
        assert trial.batch is not None
        certified = TOLERANCES[trial.dtype, trial.precision].certified
        self._tolerance = min(LOOSER * certified, MOST_TOLERANCE)
        self.found = ReadBack(self._tolerance)
        self._problem, self._network = problem, network
        self._reference = Reference(problem)
        batch, self._held_out = held_out
        spread = np.linspace(0, batch.size - 1, min(batch.size, trial.batch))
        self._rows = np.unique(spread.round().astype(int))
        self._few = rows(batch, self._rows)
        self._batch = dense(problem.batch("train", 0, trial.batch), problem.spec)

    def check_start(self) -> None:
        """Check at the initial values, and where the cell then remembers for long.

        Then the trial's own optimiser, from the initial values.
        """
        self.check("initial", self._problem.initial_weights())
        remembering = self._remembering()
        if remembering is not None:
            self.check("long memory", remembering)
        check_updates(self.found, self._problem, self._network, self._reference)

    def check(self, where: str, weights: Weights) -> None:
        """Hold what the network computes at some weights against the reference."""
        self._reference.load(weights)
        expected = self._expected()
        self._network.load_weights(weights)
        computed = self._computed()

        def nudged(nudge: int) -> Weights:
            self._reference.load_nudged(weights, nudge)
            return self._expected()

        self.found.compare(computed, expected, where, self._tolerance, nudged)

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
            # A framework's second bias has a gradient of its own.
            expected["update's norm"] = np.array(gradient_norm(found))
        return expected

    def _remembering(self) -> Weights | None:
        """Return initial values with a long memory, or None where none are known.

        Where a gate keeps the state its bias is raised. Elsewhere the recurrent
        matrices are orthogonal, and what enters is made small: near zero tanh is the
        identity, and the gradient keeps its norm.
        """
        problem = self._problem
        assert problem.trial.seed is not None
        gated = problem.cell.info.keep_bias is not None
        memory = min(problem.time_steps, LONGEST_MEMORY)
        scheme = "chrono" if gated else "canonical"
        seed = problem.trial.seed
        try:
            weights = initial_weights(problem.spec, problem.cell, scheme, seed, memory)
        except ValueError:  # a cell need not know the scheme
            return None
        if gated:
            return weights
        return {n: FAINT * w if n.endswith(".w_ih") else w for n, w in weights.items()}


def dense(batch: Batch, spec: NetworkSpec) -> Batch:
    """Return a batch with random targets, every answer within its sequence scored."""
    rng = np.random.default_rng(0)
    scored = np.ones_like(batch.scored)
    if spec.readout is Readout.EVERY:
        scored = np.arange(scored.shape[1]) < batch.lengths[:, None]
    targets: Array = rng.standard_normal(batch.targets.shape).astype(np.float32)
    if spec.target is Target.CLASS:
        targets = rng.integers(0, spec.output_size, batch.targets.shape)
    return replace(batch, targets=targets, scored=scored)
