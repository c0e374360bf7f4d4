"""A few symbols, to be repeated after a long gap."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Inputs,
    Quantity,
    Readout,
    Tally,
    Target,
    TaskInfo,
)
from tasks.options import whole_number

SOLVED_ACCURACY = 0.99


class CopyMemory:
    """Repeat S symbols, in order, after a gap of T time steps.

    The symbols come first, each drawn uniformly from K, then T - 1 blanks, a delimiter
    and S blanks. The answer is a blank at each of the first T + S time steps, then the
    symbols. With S = 3 and T = 4, blank written as - and the delimiter as |:

        input    b d a - - - | - - -
        target   - - - - - - - b d a

    So each symbol is held for T + S time steps. `length` is T; a sequence has T + 2 S
    time steps. Input tokens 0 to K - 1 are the symbols, K is blank, K + 1 the
    delimiter, which is never a target.

    Only the last S time steps are scored. The floor is a guess at each of them: a loss
    of ln K nats and an accuracy of 1/K. A network there has learned nothing.

    The literature's loss is the mean over all positions, `loss_all_positions`: its
    floor, S ln K / (T + 2 S), assumes that blank is answered wherever it is due. A
    network that is trained only on the scored time steps does not learn those blanks.

    Solved: an accuracy of at least 0.99 on the scored time steps.

    Source: Arjovsky, Shah & Bengio (2016), arXiv:1511.06464, after Hochreiter &
    Schmidhuber (1997).

    Args:
        symbols: S, how many symbols there are to repeat, at least 1.
        alphabet: K, how many kinds of symbol there are, at least 2.

    Raises:
        ValueError: If an option is not a whole number or is too small.
    """

    def __init__(self, symbols: int = 10, alphabet: int = 8) -> None:
        self._symbols = whole_number("copy-memory", "symbols", symbols, at_least=1)
        self._alphabet = whole_number("copy-memory", "alphabet", alphabet, at_least=2)
        self.info = TaskInfo(
            name="copy-memory",
            inputs=Inputs("tokens", alphabet + 2),
            target=Target.CLASS,
            output_size=alphabet + 1,
            readout=Readout.EVERY,
            scores={
                "loss": Quantity("nats", "lower"),
                "accuracy": Quantity("fraction", "higher"),
                "exact_match": Quantity("fraction", "higher"),
                "loss_all_positions": Quantity("nats", "lower"),
            },
            headline="accuracy",
            source="Arjovsky, Shah & Bengio (2016), arXiv:1511.06464",
        )

    def time_steps(self, length: int) -> int:
        """Return T + 2 S for a gap of T = `length`.

        Raises:
            ValueError: If `length` is below 1, which leaves no room for the delimiter.
        """
        gap = whole_number("copy-memory", "length", length, at_least=1)
        return gap + 2 * self._symbols

    def sample(self, rng: np.random.Generator, *, batch: int, length: int) -> Batch:
        """Draw a batch of sequences to copy.

        Returns:
            Inputs and targets int64 [batch, T + 2 S], `scored` True at the last S.

        Raises:
            ValueError: If `length` is below 1.
        """
        time_steps = self.time_steps(length)
        symbols, blank, delimiter = self._symbols, self._alphabet, self._alphabet + 1
        data = rng.integers(0, self._alphabet, (batch, symbols))
        inputs = np.full((batch, time_steps), blank, np.int64)
        inputs[:, :symbols] = data
        inputs[:, symbols + length - 1] = delimiter
        targets = np.full((batch, time_steps), blank, np.int64)
        targets[:, -symbols:] = data
        scored = np.zeros((batch, time_steps), bool)
        scored[:, -symbols:] = True
        lengths = np.full(batch, time_steps, np.int64)
        return Batch(inputs, lengths, targets, scored)

    def score(self, outputs: Array, batch: Batch) -> dict[str, Tally]:
        """Score logits [batch, T + 2 S, K + 1]."""
        losses = _cross_entropy(outputs.astype(np.float64), batch.targets)
        # argmax takes NaN for the largest, and NaN must not count as an answer.
        right = (outputs.argmax(axis=-1) == batch.targets) & np.isfinite(losses)
        scored = batch.scored
        positions = int(scored.sum())
        matches = (right | ~scored).all(axis=1)
        return {
            "loss": Tally(float(losses[scored].sum()), positions),
            "accuracy": Tally(float(right[scored].sum()), positions),
            "exact_match": Tally(float(matches.sum()), batch.size),
            "loss_all_positions": Tally(float(losses.sum()), losses.size),
        }

    def floor(self, *, length: int) -> dict[str, float]:
        """Return what guessing the symbols and answering blank elsewhere reaches."""
        nats = math.log(self._alphabet)
        return {
            "loss": nats,
            "accuracy": 1 / self._alphabet,
            "exact_match": float(self._alphabet) ** -self._symbols,
            "loss_all_positions": self._symbols * nats / self.time_steps(length),
        }

    def solved(self, loss: float, scores: Mapping[str, float]) -> bool:
        """Say whether the accuracy is at least 0.99."""
        return scores["accuracy"] >= SOLVED_ACCURACY

    def first_recalled(self, *, length: int) -> int:
        """Return T + S, where the first symbol is due."""
        return self.time_steps(length) - self._symbols


def _cross_entropy(logits: Array, targets: Array) -> Array:
    """Return nats [batch, readouts]: ln Σ_k exp(a_k) - a_target; NaN for infinities."""
    # Shifting by the largest logit changes nothing but keeps exp from overflowing.
    with np.errstate(invalid="ignore"):
        shifted = logits - logits.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]
        losses: Array = np.log(np.exp(shifted).sum(axis=-1)) - chosen
    return losses
