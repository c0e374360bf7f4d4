"""Torch networks that are wrong only sometimes, each in its own way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from harness import declare_implementation
from implementations.torch_backend.network import TorchNetwork

for mistake in (
    "state-from-none",
    "gradient-from-none",
    "continues-from-before",
    "loss-continues-from-before",
    "full-length-padded",
    "shortest-padded",
    "last-step",
    "second-layer",
    "beyond-sixteen",
    "updates-run-on",
    "caches-by-shape",
    "caches-by-batch",
    "caches-loss-by-batch",
    "wears-out",
    "stale-after-training",
    "shares-weights",
    "scores-all",
    "caches-updates-by-batch",
    "adds-up-gradients",
    "updates-with-earlier-gradients",
    "keeps-the-state-of-a-step",
    "carries-the-state-before",
    "leaves-out-the-last-unit",
    "one-output-broadcasts",
    "third-layer-is-the-second",
    "trains-what-it-was-given",
    "trains-moments-it-was-given",
):
    function = mistake.replace("-", "_")
    declare_implementation(
        f"nearly-{mistake}",
        framework="torch",
        cells=["lstm"],
        factory=f"nearly_right:{function}",
    )


class _Layer(nn.LSTM):
    """An LSTM; each mistake changes one of its answers."""

    def forward(self, x, state=None):
        y, (h, c) = super().forward(x, state)
        return self.changed(y, h, c, state)

    def changed(self, y, h, c, state):
        return y, (h, c)


def _network(spec, cell, device, network=TorchNetwork, layer=_Layer):
    return network(spec, cell, device, lambda _, i, h: layer(i, h))


def state_from_none(spec, cell, device):
    """Returns 2 c + 1 where no state is given."""

    class Wrong(_Layer):
        def changed(self, y, h, c, state):
            return y, (h, c if state is not None else 2 * c + 1)

    return _network(spec, cell, device, layer=Wrong)


def gradient_from_none(spec, cell, device):
    """Returns twice the gradient of the inputs where no state is given."""

    class Wrong(TorchNetwork):
        def vjp(self, placed, state, d_outputs, d_final):
            found = super().vjp(placed, state, d_outputs, d_final)
            return (
                found if state is not None else replace(found, inputs=2 * found.inputs)
            )

    return _network(spec, cell, device, Wrong)


def continues_from_before(spec, cell, device):
    """Starts from the final state of the call before where no state is given."""

    class Wrong(TorchNetwork):
        kept = None

        def _forward(self, x, padding, state):
            fits = self.kept is not None and self.kept[0].shape[1] == x.shape[1]
            state = self.kept if state is None and fits else state
            outputs, self.kept = super()._forward(x, padding, state)
            return outputs, self.kept

    return _network(spec, cell, device, Wrong)


def loss_continues_from_before(spec, cell, device):
    """Computes the loss from the final state of the last forward call."""

    class Wrong(TorchNetwork):
        kept = None

        def _forward(self, x, padding, state):
            outputs, self.kept = super()._forward(x, padding, state)
            return outputs, self.kept

        def _run(self, x, padding, state):
            fits = self.kept is not None and self.kept[0].shape[1] == x.shape[1]
            state = self.kept if state is None and fits else state
            return super()._run(x, padding, state)

    return _network(spec, cell, device, Wrong)


def full_length_padded(spec, cell, device):
    """Skips the last time step of a sequence that fills a padded batch."""

    class Wrong(TorchNetwork):
        def _run(self, x, padding, state):
            if padding is not None:
                padding = padding.clamp(max=len(x) - 1)
            return super()._run(x, padding, state)

    return _network(spec, cell, device, Wrong)


def shortest_padded(spec, cell, device):
    """Runs every sequence of a padded batch for at least two time steps."""

    class Wrong(TorchNetwork):
        def _run(self, x, padding, state):
            if padding is not None:
                padding = padding.clamp(min=2)
            return super()._run(x, padding, state)

    return _network(spec, cell, device, Wrong)


def last_step(spec, cell, device):
    """Is a thousandth off in the last output, as a kernel's last block could be."""

    class Wrong(TorchNetwork):
        def _run(self, x, padding, state):
            outputs, final = super()._run(x, padding, state)
            return torch.cat([outputs[:, :-1], outputs[:, -1:] * 1.001], 1), final

    return _network(spec, cell, device, Wrong)


def second_layer(spec, cell, device):
    """Ignores the state that is given to the second layer."""

    class Wrong(TorchNetwork):
        def _run(self, x, padding, state):
            if state is not None:
                state = [torch.cat([p[:1], 0 * p[1:]]) for p in state]
            return super()._run(x, padding, state)

    return _network(spec, cell, device, Wrong)


def beyond_sixteen(spec, cell, device):
    """Answers with the sixteenth sequence from there on."""

    class Wrong(TorchNetwork):
        def _run(self, x, padding, state):
            outputs, final = super()._run(x, padding, state)
            rows = torch.arange(outputs.shape[0]).clamp(max=15)
            return outputs[rows], final

    return _network(spec, cell, device, Wrong)


def updates_run_on(spec, cell, device):
    """Trains on whole sequences, padding and all; every other call is right."""

    class Wrong(TorchNetwork):
        def train_steps(self, placed):
            return super().train_steps([p._replace(padding=None) for p in placed])

    return _network(spec, cell, device, Wrong)


class _Caching(TorchNetwork):
    """Keeps the first answer for each key, until other weights are loaded."""

    def __init__(self, *args):
        super().__init__(*args)
        self.answers = {}

    def load_weights(self, weights):
        super().load_weights(weights)
        self.answers = {}


def caches_by_shape(spec, cell, device):
    class Wrong(_Caching):
        def forward(self, placed, state=None):
            key = placed.x.shape, state is None
            if key not in self.answers:
                self.answers[key] = super().forward(placed, state)
            return self.answers[key]

    return _network(spec, cell, device, Wrong)


def caches_by_batch(spec, cell, device):
    class Wrong(_Caching):
        def forward(self, placed, state=None):
            if id(placed) not in self.answers:
                self.answers[id(placed)] = super().forward(placed, state)
            return self.answers[id(placed)]

    return _network(spec, cell, device, Wrong)


def caches_loss_by_batch(spec, cell, device):
    """Keeps losses and gradients of a batch, whatever the weights are."""

    class Wrong(TorchNetwork):
        def __init__(self, *args):
            super().__init__(*args)
            self.answers = {}

        def loss_and_gradients(self, placed):
            if id(placed) not in self.answers:
                found = super().loss_and_gradients(placed).read()
                kept = {n: g.copy() for n, g in found.gradients.items()}
                self.answers[id(placed)] = replace(found, gradients=kept)
            handle = super().loss_and_gradients(placed)
            return replace(handle, read=lambda: self.answers[id(placed)])

    return _network(spec, cell, device, Wrong)


def wears_out(spec, cell, device):
    """Is a thousandth off in its second answer to one batch and one state."""

    class Wrong(_Caching):
        def forward(self, placed, state=None):
            asked = id(placed), None if state is None else state[0].tobytes()
            self.answers[asked] = self.answers.get(asked, 0) + 1
            handle = super().forward(placed, state)
            if self.answers[asked] != 2:
                return handle
            found = handle.read()
            worn = replace(found, outputs=1.001 * found.outputs)
            return replace(handle, read=lambda: worn)

    return _network(spec, cell, device, Wrong)


def stale_after_training(spec, cell, device):
    """Is right until its first update, as code that stays in training mode."""

    class Wrong(TorchNetwork):
        trained = False

        def train_steps(self, placed):
            self.trained = True
            return super().train_steps(placed)

        def _run(self, x, padding, state):
            outputs, final = super()._run(x, padding, state)
            return outputs * (1.1 if self.trained else 1), final

    return _network(spec, cell, device, Wrong)


def shares_weights(spec, cell, device):
    """Computes with the weights that any network of its kind has loaded last."""

    class Wrong(TorchNetwork):
        def load_weights(self, weights):
            super().load_weights(weights)
            _SHARED[spec] = weights

        def _run(self, x, padding, state):
            super().load_weights(_SHARED[spec])
            return super()._run(x, padding, state)

    return _network(spec, cell, device, Wrong)


_SHARED = {}


def scores_all(spec, cell, device):
    """Takes the loss over all sequences, also those that are not scored."""

    class Wrong(TorchNetwork):
        def place(self, batch):
            if batch.scored.shape[1] == 1:
                batch = replace(batch, scored=np.ones_like(batch.scored))
            return super().place(batch)

    return _network(spec, cell, device, Wrong)


def caches_updates_by_batch(spec, cell, device):
    """Takes no second update on batches that it has trained on."""

    class Wrong(TorchNetwork):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.kept = {}

        def train_steps(self, placed):
            key = tuple(map(id, placed))
            if key not in self.kept:
                self.kept[key] = placed, super().train_steps(placed)
            return self.kept[key][1]

    return _network(spec, cell, device, Wrong)


class _AddsUp(TorchNetwork):
    """Sets gradients to zero after an update, and not before a backward pass."""

    def _backward(self, placed):
        loss = self._loss(placed)
        loss.backward()
        return loss.detach()

    def _update(self, placed):
        done = super()._update(placed)
        self._optimizer.zero_grad()
        return done

    def load_weights(self, weights):
        super().load_weights(weights)
        self._optimizer.zero_grad()


def adds_up_gradients(spec, cell, device):
    return _network(spec, cell, device, _AddsUp)


def updates_with_earlier_gradients(spec, cell, device):
    """Adds the gradients that were asked for last to those of the next update."""

    class Wrong(_AddsUp):
        def loss_and_gradients(self, placed):
            self._optimizer.zero_grad()
            return super().loss_and_gradients(placed)

    return _network(spec, cell, device, Wrong)


def keeps_the_state_of_a_step(spec, cell, device):
    """Takes a second step from where the first has ended, whatever state is given."""

    class Wrong(TorchNetwork):
        kept = None

        def load_weights(self, weights):
            super().load_weights(weights)
            self.kept = None

        def step(self, x, state):
            done = super().step(x, state if self.kept is None else self.kept)
            self.kept = done.carry
            return done

    return _network(spec, cell, device, Wrong)


def carries_the_state_before(spec, cell, device):
    class Wrong(TorchNetwork):
        def step(self, x, state):
            before = self._state(state, len(x))
            return replace(super().step(x, state), carry=before)

    return _network(spec, cell, device, Wrong)


def leaves_out_the_last_unit(spec, cell, device):
    """Computes units in pairs and leaves out one that remains."""

    class Wrong(TorchNetwork):
        def _run(self, x, padding, state):
            outputs, final = super()._run(x, padding, state)
            whole = torch.arange(spec.hidden_size) < spec.hidden_size // 2 * 2
            return outputs, tuple(part * whole for part in final)

    return _network(spec, cell, device, Wrong)


def one_output_broadcasts(spec, cell, device):
    """Drops the axis of a single output, so that each answer meets every target."""

    class Wrong(TorchNetwork):
        def _loss(self, placed):
            if spec.target.name == "CLASS" or spec.output_size > 1:
                return super()._loss(placed)
            outputs, _ = self._run(self._enter(placed.x), placed.padding, None)
            losses = (outputs.squeeze(-1) - placed.targets) ** 2
            return (losses.mean(dim=-1) * placed.weights).sum() / len(losses)

    return _network(spec, cell, device, Wrong)


def third_layer_is_the_second(spec, cell, device):
    class Wrong(TorchNetwork):
        def _run(self, x, padding, state):
            for layer in self._layers[2:]:
                layer.module.load_state_dict(self._layers[1].module.state_dict())
            return super()._run(x, padding, state)

    return _network(spec, cell, device, Wrong)


class _Keeps(TorchNetwork):
    """Keeps arrays that it was given, and writes its own into them after updates."""

    kept = None

    def mine(self):
        return self.weights()

    def train_steps(self, placed):
        done = super().train_steps(placed)
        done.wait()
        mine = self.mine()
        for name, array in (self.kept or {}).items():
            array[...] = mine[name]
        return done


def trains_what_it_was_given(spec, cell, device):
    """Its weights are the arrays that it was given, so a user's change with each."""

    class Wrong(_Keeps):
        def load_weights(self, weights):
            super().load_weights(weights)
            self.kept = weights

    return _network(spec, cell, device, Wrong)


def trains_moments_it_was_given(spec, cell, device):
    class Wrong(_Keeps):
        def mine(self):
            return self.optimizer_state()

        def load_optimizer_state(self, arrays):
            super().load_optimizer_state(arrays)
            self.kept = arrays

    return _network(spec, cell, device, Wrong)
