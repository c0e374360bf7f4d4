"""Torch networks of which one answer is wrong only in training, or only after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from harness import declare_implementation
from implementations.torch_backend.network import TorchNetwork

for mistake in (
    "upper-layers-untrained",
    "upper-layers-share-a-gradient",
    "clips-each-layer",
    "clips-no-classes",
    "trains-rows-that-occur",
    "never-trains-token-zero",
    "twice-the-step-alone",
    "averages-each-sequence",
    "stops-after-an-evaluation",
    "forgets-moments-with-a-gradient",
    "forgets-moments-with-weights",
    "adds-a-pull-to-an-update",
    "streams-loaded-weights",
    "pulls-twice-after-training",
    "pulls-twice-when-asked-again",
    "advances-what-it-is-given",
):
    declare_implementation(
        f"nearly-{mistake}",
        framework="torch",
        cells=["lstm"],
        factory=f"trains_nearly_right:{mistake.title().replace('-', '')}",
    )


class _Network(TorchNetwork):
    """A right network, which knows whether it has been trained."""

    trained = False

    def __init__(self, spec, cell, device):
        super().__init__(spec, cell, device, lambda _, i, h: nn.LSTM(i, h))
        self.given = spec

    def load_weights(self, weights):
        super().load_weights(weights)
        self.trained = False

    def train_steps(self, placed):
        self.trained = True
        return super().train_steps(placed)

    def upper(self):
        return [n for n in self._trained() if n.startswith("layer") and n[5] != "0"]


class _Keeps(_Network):
    """Takes updates that leave some weights, or some of their rows, as they were."""

    def left(self, placed):
        """Yield what an update leaves as it was."""
        raise NotImplementedError

    def _update(self, placed):
        left = [(array, array.detach().clone()) for array in self.left(placed)]
        done = super()._update(placed)
        with torch.no_grad():
            for array, before in left:
                array.copy_(before)
        return done


class UpperLayersUntrained(_Keeps):
    """The optimiser was given the parameters of the first layer alone."""

    def left(self, placed):
        return [self._weights[name] for name in self.upper()]


class TrainsRowsThatOccur(_Keeps):
    """Updates lazily: rows of the embedding that a batch lacks stay as they are."""

    def left(self, placed):
        if "embedding" not in self._weights:
            return []
        rows = set(range(self.given.inputs.size)) - set(placed.x.flatten().tolist())
        return [self._weights["embedding"].data[row] for row in rows]


class NeverTrainsTokenZero(_Keeps):
    """Takes token 0 for padding."""

    def left(self, placed):
        return [e.data[0] for n, e in self._weights.items() if n == "embedding"]


class StopsAfterAnEvaluation(_Keeps):
    """Never trains again once it was evaluated between updates."""

    evaluated = False

    def left(self, placed):
        return [*self._trained().values()] if self.evaluated else []

    def load_weights(self, weights):
        super().load_weights(weights)
        self.evaluated = False

    def forward(self, placed, state=None):
        self.evaluated = self.trained
        return super().forward(placed, state)


class UpperLayersShareAGradient(_Network):
    """Trains the second layer with the gradient of the first."""

    def _backward(self, placed):
        loss = super()._backward(placed)
        weights = self._trained()
        for name in self.upper() if self.trained else ():
            first = weights[name.replace("layer1", "layer0")].grad
            if first.shape == weights[name].shape:
                weights[name].grad = first.clone()
        return loss


class _Clips(_Network):
    def clip(self, weights, most):
        raise NotImplementedError

    def _update(self, placed):
        loss = self._backward(placed)
        weights = [*self._trained().values()]
        norm = nn.utils.clip_grad_norm_(weights, float("inf"))
        if self.given.optimizer.clip_norm is not None:
            self.clip(self._trained(), self.given.optimizer.clip_norm)
        self._optimizer.step()
        return loss, norm


class ClipsEachLayer(_Clips):
    def clip(self, weights, most):
        upper = self.upper()
        for names in (weights.keys() - {*upper}, upper):
            nn.utils.clip_grad_norm_([weights[n] for n in names], most)


class ClipsNoClasses(_Clips):
    def clip(self, weights, most):
        if self.given.target.name != "CLASS":
            nn.utils.clip_grad_norm_(weights.values(), most)


class TwiceTheStepAlone(_Network):
    """Takes a step twice as large if a call has a single batch."""

    def train_steps(self, placed):
        rate = self.given.optimizer.learning_rate * (2 if len(placed) == 1 else 1)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return super().train_steps(placed)


class AveragesEachSequence(_Network):
    """Averages cross-entropy over each sequence, and then over sequences."""

    def place(self, batch):
        placed = super().place(batch)
        if self.given.target.name != "CLASS":
            return placed
        share = batch.scored / np.maximum(batch.scored.sum(1, keepdims=True), 1)
        scored = batch.scored.any(axis=1).sum()
        return placed._replace(weights=self._real(share / scored))


class ForgetsMomentsWithAGradient(_Network):
    def loss_and_gradients(self, placed):
        done = super().loss_and_gradients(placed)
        self._optimizer.state.clear()
        return done


class ForgetsMomentsWithWeights(_Network):
    asked = False

    def load_optimizer_state(self, arrays):
        super().load_optimizer_state(arrays)
        self.asked = False

    def weights(self):
        self.asked = True
        return super().weights()

    def train_steps(self, placed):
        if self.asked and self.trained:
            self._optimizer.state.clear()
        self.asked = False
        return super().train_steps(placed)


class AddsAPullToAnUpdate(_Network):
    """Doubles the gradients of the update after a vjp."""

    pulled = False

    def vjp(self, *given):
        self.pulled = self.trained
        return super().vjp(*given)

    def _update(self, placed):
        self.doubles, self.pulled = self.pulled, False
        return super()._update(placed)

    doubles = False

    def _backward(self, placed):
        loss = super()._backward(placed)
        for weight in self._trained().values() if self.doubles else ():
            weight.grad *= 2
        return loss


class StreamsLoadedWeights(_Network):
    """Takes single steps with the weights that were loaded, also after training."""

    def load_weights(self, weights):
        super().load_weights(weights)
        self.loaded = self._copies()

    def step(self, x, state):
        now = self._copies()
        self._set(self.loaded)
        done = super().step(x, state)
        self._set(now)
        return done

    def _copies(self):
        return [weight.detach().clone() for weight in self._trained().values()]

    def _set(self, weights):
        with torch.no_grad():
            for weight, value in zip(self._trained().values(), weights, strict=True):
                weight.copy_(value)


class PullsTwiceAfterTraining(_Network):
    def vjp(self, *given):
        found = super().vjp(*given)
        return replace(found, inputs=(1 + self.trained) * found.inputs)


class PullsTwiceWhenAskedAgain(_Network):
    last = None

    def vjp(self, placed, state, d_outputs, d_final):
        found = super().vjp(placed, state, d_outputs, d_final)
        asked = state is None, d_outputs.tobytes()
        again = asked == self.last
        self.last = asked
        return replace(found, inputs=(1 + again) * found.inputs)


class AdvancesWhatItIsGiven(_Network):
    """Writes the state after a step into the state before, if that is its own."""

    def step(self, x, state):
        done = super().step(x, state)
        for before, after in zip(state, done.carry, strict=True):
            if isinstance(before, torch.Tensor):
                before.data.copy_(after.data)
        return done
