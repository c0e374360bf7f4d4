"""Copies of `torch-loop`, each with one planted mistake in the time steps."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from harness import declare_implementation
from implementations.cells import equations
from implementations.torch_backend.loop import Layer, Operations
from implementations.torch_backend.network import TorchNetwork

CLAMP = 10.0
CLIP_NORM = 0.5

for mistake, cell in {
    "one-added-to-forget-bias": "lstm",
    "forget-bias-is-one": "lstm",
    "hard-sigmoid": "gru",
    "hard-sigmoid-of-keras-2": "lstm",
    "relu-candidate": "lstm",
    "relu-for-every-tanh": "lstm",
    "backwards": "gru",
    "inputs-late": "gru",
    "inputs-late-first-repeated": "gru",
    "inputs-late-ones-first": "gru",
    "inputs-early": "lstm",
    "dropout": "gru",
    "dropout-in-training": "gru",
    "dropout-in-loss": "gru",
    "blind-to-r": "gru",
    "blind-to-z": "gru",
    "blind-to-f": "lstm",
    "state-detached": "gru",
    "cut-every-50": "gru",
    "state-detached-on-entry": "lstm",
    "cell-state-detached": "lstm",
    "initial-state-detached": "lstm",
    "gradient-clamped": "gru",
    "gradient-clipped": "gru",
    "nan-outputs": "gru",
    "nan-gradient": "gru",
    "state-shrinks": "gru",
    "gradient-patterned": "gru",
}.items():
    declare_implementation(
        f"torch-{mistake}",
        framework="torch",
        cells=[cell],
        factory=f"sabotage_time_steps:{mistake.replace('-', '_')}",
    )


def _network(spec, cell, device, step, over_time=None, network=TorchNetwork):
    """Build a network from a function (weights, a, state) to the next state."""
    gates = len(cell.info.gates)

    def loop(w, a, state):
        outputs = []
        for a_t in a.unbind():
            state = step(w, a_t.chunk(gates, dim=1), state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    run = loop if over_time is None else partial(over_time, loop)
    return network(spec, cell, device, lambda _, i, h: Layer(cell, i, h, run))


GRU = partial(equations.gru, Operations())
LSTM = partial(equations.lstm, Operations())


# --- outputs -------------------------------------------------------------------------


def one_added_to_forget_bias(spec, cell, device):
    """Adds 1 to the bias of the forget gate."""

    def step(w, a, state):
        a_i, a_f, a_g, a_o = a
        return LSTM(w, (a_i, a_f + 1, a_g, a_o), state)

    return _network(spec, cell, device, step)


def forget_bias_is_one(spec, cell, device):
    """Computes with a forget bias of 1 in place of the loaded one."""

    def step(w, a, state):
        a_i, a_f, a_g, a_o = a
        return LSTM(w, (a_i, a_f - w["b"][1] + 1, a_g, a_o), state)

    return _network(spec, cell, device, step)


class _Hard(Operations):
    sigmoid = staticmethod(nn.functional.hardsigmoid)


class _HardOfKeras2(Operations):
    sigmoid = staticmethod(lambda a: torch.clamp(0.2 * a + 0.5, 0, 1))


def hard_sigmoid(spec, cell, device):
    return _network(spec, cell, device, partial(equations.gru, _Hard()))


def hard_sigmoid_of_keras_2(spec, cell, device):
    return _network(spec, cell, device, partial(equations.lstm, _HardOfKeras2()))


class _ReluCandidate(Operations):
    def __init__(self):
        self._first = True

    def tanh(self, a):
        first, self._first = self._first, False
        return torch.relu(a) if first else torch.tanh(a)


class _ReluForTanh(Operations):
    tanh = staticmethod(torch.relu)


def relu_candidate(spec, cell, device):
    def step(w, a, state):
        return equations.lstm(_ReluCandidate(), w, a, state)

    return _network(spec, cell, device, step)


def relu_for_every_tanh(spec, cell, device):
    return _network(spec, cell, device, partial(equations.lstm, _ReluForTanh()))


class _Late(TorchNetwork):
    """Uses the input of the time step before."""

    def _run(self, x, lengths, state):
        return super()._run(torch.cat([0 * x[:1], x[:-1]]), lengths, state)


class _LateFirstRepeated(TorchNetwork):
    """Uses the input of the time step before, and at first that of the first."""

    def _run(self, x, lengths, state):
        return super()._run(torch.cat([x[:1], x[:-1]]), lengths, state)


class _LateOnesFirst(TorchNetwork):
    """Uses the input of the time step before, and at first ones."""

    def _run(self, x, lengths, state):
        return super()._run(torch.cat([0 * x[:1] + 1, x[:-1]]), lengths, state)


class _Early(TorchNetwork):
    """Uses the input of the time step after."""

    def _run(self, x, lengths, state):
        return super()._run(torch.cat([x[1:], 0 * x[:1]]), lengths, state)


def inputs_late_first_repeated(spec, cell, device):
    return _network(spec, cell, device, GRU, network=_LateFirstRepeated)


def inputs_late_ones_first(spec, cell, device):
    return _network(spec, cell, device, GRU, network=_LateOnesFirst)


def inputs_late(spec, cell, device):
    return _network(spec, cell, device, GRU, network=_Late)


def inputs_early(spec, cell, device):
    return _network(spec, cell, device, LSTM, network=_Early)


def backwards(spec, cell, device):
    """Starts at the last time step, as Keras does with `go_backwards`."""

    def over_time(loop, w, a, state):
        return loop(w, a.flip(0), state)

    return _network(spec, cell, device, GRU, over_time)


def dropout(spec, cell, device):
    """Drops a tenth of the state at every time step, also in evaluation."""

    def step(w, a, state):
        return (nn.functional.dropout(GRU(w, a, state)[0], 0.1),)

    return _network(spec, cell, device, step)


class _NanOutputs(TorchNetwork):
    """Takes the root of numbers below zero."""

    def _run(self, x, lengths, state):
        outputs, final = super()._run(x, lengths, state)
        return outputs + torch.sqrt(-outputs.abs()), final


def nan_outputs(spec, cell, device):
    return _network(spec, cell, device, GRU, network=_NanOutputs)


def state_shrinks(spec, cell, device):
    """Is wrong in a way that has no likely cause."""

    def step(w, a, state):
        return (0.99 * GRU(w, a, state)[0],)

    return _network(spec, cell, device, step)


# --- gradients -----------------------------------------------------------------------


def dropout_in_training(spec, cell, device):
    """Drops a tenth of the state if a gradient will be computed."""

    def step(w, a, state):
        (h,) = GRU(w, a, state)
        return (nn.functional.dropout(h, 0.1, torch.is_grad_enabled()),)

    return _network(spec, cell, device, step)


class _DropoutInLoss(TorchNetwork):
    """Drops half of the outputs that the loss is computed from."""

    def _run(self, x, lengths, state):
        outputs, final = super()._run(x, lengths, state)
        training = torch.is_grad_enabled() and state is None
        return nn.functional.dropout(outputs, 0.5, training), final


def dropout_in_loss(spec, cell, device):
    return _network(spec, cell, device, GRU, network=_DropoutInLoss)


class _Detaching(Operations):
    """Detaches one of the gates, counted as the equations compute them."""

    def __init__(self, gate):
        self._gate = gate
        self._count = 0

    def sigmoid(self, a):
        found = torch.sigmoid(a)
        self._count += 1
        return found.detach() if self._count - 1 == self._gate else found


def blind_to_r(spec, cell, device):
    def step(w, a, state):
        return equations.gru(_Detaching(0), w, a, state)

    return _network(spec, cell, device, step)


def blind_to_z(spec, cell, device):
    def step(w, a, state):
        return equations.gru(_Detaching(1), w, a, state)

    return _network(spec, cell, device, step)


def blind_to_f(spec, cell, device):
    def step(w, a, state):
        return equations.lstm(_Detaching(1), w, a, state)

    return _network(spec, cell, device, step)


def state_detached(spec, cell, device):
    """Detaches the state after each time step, but not the initial state."""

    def over_time(loop, w, a, state):
        outputs = []
        for a_t in a.split(1):
            _, state = loop(w, a_t, state)
            outputs.append(state[0])
            last, state = state, tuple(part.detach() for part in state)
        return torch.stack(outputs), last

    return _network(spec, cell, device, GRU, over_time)


def cut_every_50(spec, cell, device):
    """Detaches the initial state and, in long sequences, one in between."""

    def over_time(loop, w, a, state):
        outputs = []
        for part in a.split(50):
            found, state = loop(w, part, tuple(s.detach() for s in state))
            outputs.append(found)
        return torch.cat(outputs), state

    return _network(spec, cell, device, GRU, over_time)


def state_detached_on_entry(spec, cell, device):
    """Detaches the state before each time step, including the initial one."""

    def step(w, a, state):
        return LSTM(w, a, tuple(part.detach() for part in state))

    return _network(spec, cell, device, step)


def cell_state_detached(spec, cell, device):
    def step(w, a, state):
        h, c = state
        return LSTM(w, a, (h, c.detach()))

    return _network(spec, cell, device, step)


def initial_state_detached(spec, cell, device):
    def over_time(loop, w, a, state):
        return loop(w, a, tuple(part.detach() for part in state))

    return _network(spec, cell, device, LSTM, over_time)


def _hooked(h, change):
    if h.requires_grad:
        h.register_hook(change)
    return h


def gradient_clamped(spec, cell, device):
    """Clamps the gradient of every state."""

    def step(w, a, state):
        (h,) = GRU(w, a, state)
        return (_hooked(h, lambda d: d.clamp(-CLAMP, CLAMP)),)

    return _network(spec, cell, device, step)


def gradient_clipped(spec, cell, device):
    """Clips the norm of the gradient that a time step passes to the one before."""

    def clipped(d):
        return d * torch.clamp(CLIP_NORM / d.norm(), max=1)

    def step(w, a, state):
        (h,) = state
        entering = h.clone() if h.requires_grad else h
        return GRU(w, a, (_hooked(entering, clipped),))

    return _network(spec, cell, device, step)


def nan_gradient(spec, cell, device):
    """Adds the root of zero, whose derivative is infinite."""

    def step(w, a, state):
        (h,) = GRU(w, a, state)
        return (h + torch.sqrt(h * 0),)

    return _network(spec, cell, device, step)


def gradient_patterned(spec, cell, device):
    """Is wrong in a way that has no likely cause."""

    def step(w, a, state):
        (h,) = GRU(w, a, state)
        pattern = torch.linspace(0.9, 1.1, h.shape[1])
        return (_hooked(h, lambda d: d * pattern),)

    return _network(spec, cell, device, step)
