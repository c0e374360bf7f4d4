"""minGRU (Feng et al. 2024, arXiv:2410.01201): a cell of a plugin.

Its gate and candidate do not depend on the state, so all time steps can be computed at
once. It has no NumPy reference: implementations are compared with its equations.
"""

import math

import numpy as np

from harness import declare_cell, declare_implementation
from harness.contract import CellInfo

declare_cell(
    "min-gru",
    factory="min_gru:MinGru",
    equations="min_gru:equations",
    reference=False,
    inits=["canonical", "chrono"],
    summary="gate and candidate from the input alone",
)
declare_implementation(
    "torch-parallel",
    framework="torch",
    cells=["min-gru"],
    layer="min_gru:layer",
    dtypes=["float32", "float64"],
)


class MinGru:
    """z = σ(W_z x + b_z), n = g(W_n x + b_n), h = (1 - z) ⊙ h' + z ⊙ n."""

    info = CellInfo(
        name="min-gru",
        gates=("z", "n"),
        state_parts=("h",),
        keep_bias=None,
        source="Feng et al. (2024), arXiv:2410.01201, algorithm 6",
    )

    def weight_shapes(self, input_size, hidden_size):
        return {"w_ih": (2, hidden_size, input_size), "b": (2, hidden_size)}

    def initial_weights(self, scheme, rng, sizes):
        if scheme not in ("canonical", "chrono"):
            raise ValueError(f"unknown initial values '{scheme}'")
        shapes = self.weight_shapes(sizes.input_size, sizes.hidden_size)
        bound = 1 / math.sqrt(sizes.input_size)
        weights = {"w_ih": rng.uniform(-bound, bound, shapes["w_ih"])}
        weights["b"] = np.zeros(shapes["b"])
        if scheme == "chrono":  # z forgets, so a long memory needs a negative bias
            weights["b"][0] = -np.log(rng.uniform(1, sizes.time_steps, shapes["b"][1]))
        return weights

    def flops(self, input_size, hidden_size):
        return 4 * hidden_size * input_size + 10 * hidden_size

    def parameter_counts(self, input_size, hidden_size):
        shapes = self.weight_shapes(input_size, hidden_size)
        return {"canonical": sum(map(math.prod, shapes.values()))}


def equations(ops, w, a, state):
    (h,) = state
    a_z, a_n = a
    z = ops.sigmoid(a_z)
    n = ops.relu(a_n) + ops.sigmoid(-ops.relu(-a_n))  # a + 1/2 above 0, else σ(a)
    return ((1 - z) * h + z * n,)


def layer(cell, input_size, hidden_size):
    """Return the parallel form: h_t = k_t h_{t-1} + w_t as a prefix scan by doubling.

    The logarithms of the paper's appendix lose small parts of gradients in float32.
    """
    import torch
    from torch.nn import functional

    class Parallel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w_ih = torch.nn.Parameter(torch.zeros(2, hidden_size, input_size))
            self.b = torch.nn.Parameter(torch.zeros(2, hidden_size))

        def gate(self, a):
            return torch.sigmoid(a)

        def candidate(self, a):
            return functional.relu(a) + torch.sigmoid(-functional.relu(-a))

        def forward(self, x, state=None):
            a_z, a_n = (x @ w.T + b for w, b in zip(self.w_ih, self.b, strict=True))
            z, n = self.gate(a_z), self.candidate(a_n)
            kept, written, span = 1 - z, z * n, 1
            while span < len(x):  # both cover `span` time steps
                before = written.new_zeros(span, *written.shape[1:])
                written = written + kept * torch.cat([before, written[:-span]])
                kept = kept * torch.cat([torch.ones_like(before), kept[:-span]])
                span *= 2
            outputs = written if state is None else written + kept * state
            return outputs, outputs[-1:]

    return Parallel()
