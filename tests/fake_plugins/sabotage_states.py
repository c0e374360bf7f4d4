"""Mistakes in what a layer starts from and ends with, and in hand-written gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from harness import declare_implementation
from implementations.cells.gates import sigmoid
from implementations.cells.lstm import Lstm
from implementations.numpy_reference.network import NumpyNetwork
from implementations.torch_backend.network import TorchNetwork

STATES = (
    "starts-at-ones",
    "c-starts-at-ones",
    "c-ignored",
    "c-counted-twice",
    "c-through-tanh",
    "c-for-h",
    "exchanged",
    "one-step-old",
    "c-one-step-old",
    "last-position",
    "not-carried-on",
    "from-the-first-state",
    "gates-of-the-first-step",
    "cut-every-30",
    "cut-every-7",
)
GRADIENTS = (
    "i-for-g",
    "i-for-g-everywhere",
    "tanh-twice",
    "tanh-of-tanh",
    "tanh-of-c-twice",
    "sigmoid-left-out",
    "late-h",
    "unknown",
)
for mistake in STATES:
    declare_implementation(
        f"torch-{mistake}",
        framework="torch",
        cells=["lstm"],
        factory=f"sabotage_states:{mistake.replace('-', '_')}",
    )
for mistake in GRADIENTS:
    declare_implementation(
        f"numpy-{mistake}",
        framework="numpy",
        cells=["lstm"],
        factory=f"sabotage_states:{mistake.replace('-', '_')}",
    )


# --- states --------------------------------------------------------------------------


def _network(spec, cell, device, run, network=TorchNetwork):
    """Build a network of LSTMs; `run(lstm, x, state)` answers instead of each."""

    class Layer(nn.LSTM):
        def forward(self, x, state=None):
            return run(super().forward, x, state)

    return network(spec, cell, device, lambda _, i, h: Layer(i, h))


def _changed(change):
    """Return a factory of LSTMs that start from `change(h, c)`."""

    def factory(spec, cell, device):
        def run(lstm, x, state):
            return lstm(x, None if state is None else change(*state))

        return _network(spec, cell, device, run)

    return factory


c_ignored = _changed(lambda h, c: (h, 0 * c))
c_counted_twice = _changed(lambda h, c: (h, 2 * c))
c_through_tanh = _changed(lambda h, c: (h, torch.tanh(c)))
c_for_h = _changed(lambda h, c: (c, c))
exchanged = _changed(lambda h, c: (c, h))


def _starting(h_value, c_value):
    def factory(spec, cell, device):
        def run(lstm, x, state):
            if state is None:
                batch = (
                    x.batch_sizes[0] if isinstance(x, PackedSequence) else x.shape[1]
                )
                zero = torch.zeros(1, int(batch), spec.hidden_size)
                state = zero + h_value, zero + c_value
            return lstm(x, state)

        return _network(spec, cell, device, run)

    return factory


starts_at_ones = _starting(1, 1)
c_starts_at_ones = _starting(0, 1)


def one_step_old(spec, cell, device):
    """Returns the state before the last time step."""

    def run(lstm, x, state):
        if isinstance(x, PackedSequence):
            return lstm(x, state)
        outputs, final = lstm(x, state)
        if len(x) > 1:
            return outputs, lstm(x[:-1], state)[1]
        return outputs, state or tuple(torch.zeros_like(part) for part in final)

    return _network(spec, cell, device, run)


def c_one_step_old(spec, cell, device):
    """Returns the c before the last time step, and the right h."""

    def run(lstm, x, state):
        outputs, final = lstm(x, state)
        if isinstance(x, PackedSequence):
            return outputs, final
        before = state or tuple(torch.zeros_like(part) for part in final)
        if len(x) > 1:
            before = lstm(x[:-1], state)[1]
        return outputs, (final[0], before[1])

    return _network(spec, cell, device, run)


def last_position(spec, cell, device):
    """Returns the state after the padding, beside the right outputs."""

    class Wrong(TorchNetwork):
        def _run(self, x, lengths, state):
            outputs, _ = super()._run(x, lengths, state)
            return outputs, super()._run(x, None, state)[1]

    return _network(spec, cell, device, lambda lstm, *given: lstm(*given), Wrong)


def _stepwise(start):
    """Return a factory of LSTMs in which `start(state)` is before each time step."""

    def factory(spec, cell, device):
        def run(lstm, x, state):
            if isinstance(x, PackedSequence):
                return lstm(x, state)
            found = [lstm(x_t, start(state)) for x_t in x.split(1)]
            return torch.cat([outputs for outputs, _ in found]), found[-1][1]

        return _network(spec, cell, device, run)

    return factory


not_carried_on = _stepwise(lambda state: None)
from_the_first_state = _stepwise(lambda state: state)


def gates_of_the_first_step(spec, cell, device):
    """Computes i, f and o once and uses them for the whole sequence."""

    class Layer(nn.LSTM):
        def forward(self, x, state=None):
            if isinstance(x, PackedSequence):
                return super().forward(x, state)
            h, c = [x.new_zeros(x.shape[1], self.hidden_size)] * 2
            if state is not None:
                h, c = (part[0] for part in state)
            w, u = self.weight_ih_l0, self.weight_hh_l0
            b, outputs, kept = self.bias_ih_l0 + self.bias_hh_l0, [], None
            for x_t in x:
                i, f, g, o = (x_t @ w.T + h @ u.T + b).chunk(4, 1)
                if kept is None:
                    kept = [torch.sigmoid(a) for a in (i, f, o)]
                i, f, o = kept
                c = f * c + i * torch.tanh(g)
                h = o * torch.tanh(c)
                outputs.append(h)
            return torch.stack(outputs), (h[None], c[None])

    return TorchNetwork(spec, cell, device, lambda _, i, h: Layer(i, h))


def _cut(every):
    def factory(spec, cell, device):
        def run(lstm, x, state):
            if isinstance(x, PackedSequence):
                return lstm(x, state)
            outputs = []
            for chunk in x.split(every):
                found, last = lstm(chunk, state)
                outputs.append(found)
                state = tuple(part.detach() for part in last)
            return torch.cat(outputs), last

        return _network(spec, cell, device, run)

    return factory


cut_every_30 = _cut(30)
cut_every_7 = _cut(7)


# --- gradients -----------------------------------------------------------------------


class _ByHand:
    """An LSTM whose gradient is written out again, with a mistake."""

    info = Lstm.info

    def __init__(self, cell, mistake):
        self.cell, self.mistake = cell, mistake

    def __getattr__(self, name):
        return getattr(self.cell, name)

    def step(self, w, x, state):
        (h, c), _ = self.cell.step(w, x, state)
        return (h, c), (x, *state, h, c)

    def step_backward(self, w, saved, d_state):
        x, h_before, c_before, h, c = saved
        d_h, d_c = d_state
        a = x @ w["w_ih"].mT + h_before @ w["w_hh"].mT + w["b"][:, None]
        i, f, o = (sigmoid(a[k]) for k in (0, 1, 3))
        g, t = np.tanh(a[2]), np.tanh(c)
        of_sigmoid, of_tanh = lambda s: s * (1 - s), lambda y: 1 - y * y
        of_c = of_tanh
        in_product = in_slope = g
        if self.mistake == "tanh-twice":
            of_c = of_tanh = lambda y: (1 - y * y) ** 2
        if self.mistake == "tanh-of-tanh":
            of_c = of_tanh = lambda y: 1 - np.tanh(y) ** 2
        if self.mistake == "tanh-of-c-twice":
            of_c = lambda y: (1 - y * y) ** 2  # noqa: E731
        if self.mistake == "sigmoid-left-out":
            of_sigmoid = np.ones_like
        if self.mistake.startswith("i-for-g"):
            in_product = i
            in_slope = i if self.mistake.endswith("everywhere") else g
        if self.mistake == "unknown":
            in_product = 0.9 * g
        d_c = d_c + d_h * o * of_c(t)
        d_a = np.stack(
            [
                d_c * in_product * of_sigmoid(i),
                d_c * c_before * of_sigmoid(f),
                d_c * i * of_tanh(in_slope),
                d_h * t * of_sigmoid(o),
            ]
        )
        d_w = {
            "w_ih": d_a.mT @ x,
            "w_hh": d_a.mT @ (h if self.mistake == "late-h" else h_before),
            "b": d_a.sum(1),
        }
        d_before = (d_a @ w["w_hh"]).sum(0)
        return d_w, (d_a @ w["w_ih"]).sum(0), (d_before, d_c * f)


def _by_hand(mistake):
    def factory(spec, cell, device):
        return NumpyNetwork(spec, _ByHand(cell, mistake), device)

    return factory


for _mistake in GRADIENTS:
    globals()[_mistake.replace("-", "_")] = _by_hand(_mistake)
