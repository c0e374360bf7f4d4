"""An LSTM with layer normalisation (Ba, Kiros & Hinton 2016, arXiv:1607.06450).

Normalising divides by a spread that may be small, and so rounding grows: at some
weights no float32 code is within the usual tolerance. `norm-lstm` has a reference, and
`norm-lstm-bare` has none.
"""

import math

import numpy as np

from harness import declare_cell, declare_implementation
from harness.contract import CellInfo

MISTAKES = ("no-epsilon", "forget-negated", "half-gradient", "detached")

declare_cell("norm-lstm", factory="norm_lstm:NormLstm")
declare_cell("norm-lstm-bare", factory="norm_lstm:Bare", reference=False)
declare_implementation(
    "torch-norm",
    framework="torch",
    cells=["norm-lstm", "norm-lstm-bare"],
    layer="norm_lstm:layer",
    dtypes=["float32", "float64"],
)
for mistake in MISTAKES:
    declare_implementation(
        f"torch-norm-{mistake}",
        framework="torch",
        cells=["norm-lstm"],
        layer=f"norm_lstm:{mistake.replace('-', '_')}",
    )

EPSILON = 1e-5


def normalized(x):
    centered = x - x.mean(-1, keepdims=True)
    spread = np.sqrt((centered * centered).mean(-1, keepdims=True) + EPSILON)
    return centered / spread, spread


def normalized_backward(d, y, spread):
    mean = (d * y).mean(-1, keepdims=True)
    return (d - d.mean(-1, keepdims=True) - y * mean) / spread


def sigmoid(a):
    return (1 + np.tanh(a / 2)) / 2


class NormLstm:
    """a = LN(W x) + LN(U h') + b, c = f ⊙ c' + i ⊙ g, h = o ⊙ tanh(LN(c))."""

    info = CellInfo(
        name="norm-lstm",
        gates=("i", "f", "g", "o"),
        state_parts=("h", "c"),
        keep_bias=("b", 1),
        source="Ba, Kiros & Hinton (2016), arXiv:1607.06450, equations 20 to 22",
    )

    def weight_shapes(self, input_size, hidden_size):
        return {
            "w_ih": (4, hidden_size, input_size),
            "w_hh": (4, hidden_size, hidden_size),
            "b": (4, hidden_size),
        }

    def initial_weights(self, scheme, rng, sizes):
        if scheme not in ("canonical", "chrono"):
            raise ValueError(f"unknown initial values '{scheme}'")
        shapes = self.weight_shapes(sizes.input_size, sizes.hidden_size)
        bound = 1 / math.sqrt(sizes.hidden_size)
        weights = {n: rng.uniform(-bound, bound, s) for n, s in shapes.items()}
        weights["b"] *= 0
        weights["b"][1] = 1
        if scheme == "chrono":
            weights["b"][1] = np.log(
                rng.uniform(1, sizes.time_steps - 1, shapes["b"][1])
            )
            weights["b"][0] = -weights["b"][1]
        return weights

    def flops(self, input_size, hidden_size):
        return 8 * hidden_size * (input_size + hidden_size) + 60 * hidden_size

    def parameter_counts(self, input_size, hidden_size):
        shapes = self.weight_shapes(input_size, hidden_size)
        return {"canonical": sum(map(math.prod, shapes.values()))}

    def step(self, w, x, state):
        h, c = state
        size = h.shape[-1]
        wx, of_x = normalized(x @ w["w_ih"].reshape(4 * size, -1).T)
        uh, of_h = normalized(h @ w["w_hh"].reshape(4 * size, -1).T)
        a = wx + uh + w["b"].ravel()
        i, f, g, o = (a[:, k * size : (k + 1) * size] for k in range(4))
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        after = f * c + i * g
        nc, of_c = normalized(after)
        t = np.tanh(nc)
        return (o * t, after), (x, h, c, wx, of_x, uh, of_h, i, f, g, o, nc, of_c, t)

    def step_backward(self, w, saved, d_state):
        x, h, c, wx, of_x, uh, of_h, i, f, g, o, nc, of_c, t = saved
        d_h, d_c = d_state
        d_c = d_c + normalized_backward(d_h * o * (1 - t * t), nc, of_c)
        d_a = np.concatenate(
            [
                d_c * g * i * (1 - i),
                d_c * c * f * (1 - f),
                d_c * i * (1 - g * g),
                d_h * t * o * (1 - o),
            ],
            axis=1,
        )
        d_wx = normalized_backward(d_a, wx, of_x)
        d_uh = normalized_backward(d_a, uh, of_h)
        d_w = {
            "w_ih": (d_wx.T @ x).reshape(w["w_ih"].shape),
            "w_hh": (d_uh.T @ h).reshape(w["w_hh"].shape),
            "b": d_a.sum(0).reshape(w["b"].shape),
        }
        d_x = d_wx @ w["w_ih"].reshape(len(d_wx[0]), -1)
        d_before = d_uh @ w["w_hh"].reshape(len(d_uh[0]), -1)
        return d_w, d_x, (d_before, d_c * f)


class Bare(NormLstm):
    info = CellInfo(**{**vars(NormLstm.info), "name": "norm-lstm-bare"})
    step = None
    step_backward = None


def layer(cell, input_size, hidden_size, epsilon=EPSILON, cut=None, sign=1):
    import torch
    from torch.nn.functional import layer_norm

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w_ih = torch.nn.Parameter(torch.zeros(4, hidden_size, input_size))
            self.w_hh = torch.nn.Parameter(torch.zeros(4, hidden_size, hidden_size))
            self.b = torch.nn.Parameter(torch.zeros(4, hidden_size))

        def forward(self, x, state=None):
            w, u = self.w_ih.flatten(0, 1), self.w_hh.flatten(0, 1)
            h, c = [x.new_zeros(x.shape[1], hidden_size)] * 2
            if state is not None:
                h, c = (part[0] for part in state)
            wx = layer_norm(x @ w.T, (4 * hidden_size,), eps=epsilon)
            outputs = []
            for t, wx_t in enumerate(wx):
                if cut is not None and t % cut == 0:
                    h, c = h.detach(), c.detach()
                uh = layer_norm(h @ u.T, (4 * hidden_size,), eps=epsilon)
                i, f, g, o = (wx_t + uh + self.b.flatten()).chunk(4, 1)
                f = torch.sigmoid(sign * f)
                c = f * c + torch.sigmoid(i) * torch.tanh(g)
                normal = layer_norm(c, (hidden_size,), eps=epsilon)
                h = torch.sigmoid(o) * torch.tanh(normal)
                outputs.append(h)
            return torch.stack(outputs), (h[None], c[None])

    return Layer()


def no_epsilon(cell, input_size, hidden_size):
    """Adds another epsilon, as another framework does."""
    return layer(cell, input_size, hidden_size, epsilon=1e-3)


def forget_negated(cell, input_size, hidden_size):
    return layer(cell, input_size, hidden_size, sign=-1)


def half_gradient(cell, input_size, hidden_size):
    found = layer(cell, input_size, hidden_size)
    found.b.register_hook(lambda gradient: gradient / 2)
    return found


def detached(cell, input_size, hidden_size):
    return layer(cell, input_size, hidden_size, cut=25)
