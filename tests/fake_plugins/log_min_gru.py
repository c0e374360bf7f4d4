"""minGRU computed in logarithms (Feng et al. 2024, arXiv:2410.01201, appendix B.3).

Its state must be above zero, because the layer takes its logarithm. Logarithms are
added step by step: the appendix adds them up over the whole sequence first, and then
float32 loses digits that other code keeps.
"""

from dataclasses import replace

from harness import declare_cell, declare_implementation

declare_cell(
    "log-min-gru",
    factory="log_min_gru:cell",
    equations="log_min_gru:equations",
    reference=False,
    states={"h": (0.1, 1.0)},
)
declare_cell(
    "log-min-gru-bare",
    factory="log_min_gru:bare",
    reference=False,
    states={"h": (0.1, 1.0)},
)
declare_cell(
    "log-min-gru-undeclared",
    factory="log_min_gru:undeclared",
    equations="log_min_gru:equations",
    reference=False,
)
declare_implementation(
    "torch-log",
    framework="torch",
    cells=["log-min-gru", "log-min-gru-bare", "log-min-gru-undeclared"],
    layer="log_min_gru:layer",
    dtypes=["float32", "float64"],
)


def _named(name):
    import min_gru  # here, so that its declarations are made once

    found = min_gru.MinGru()
    found.info = replace(found.info, name=name)
    return found


def cell():
    return _named("log-min-gru")


def bare():
    return _named("log-min-gru-bare")


def undeclared():
    return _named("log-min-gru-undeclared")


def equations(ops, w, a, state):
    import min_gru

    return min_gru.equations(ops, w, a, state)


def layer(cell, input_size, hidden_size):
    import torch
    from torch.nn import functional

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w_ih = torch.nn.Parameter(torch.zeros(2, hidden_size, input_size))
            self.b = torch.nn.Parameter(torch.zeros(2, hidden_size))

        def forward(self, x, state=None):
            k, n = (x @ w.T + b for w, b in zip(self.w_ih, self.b, strict=True))
            log_n = torch.where(
                n >= 0, (functional.relu(n) + 0.5).log(), -functional.softplus(-n)
            )
            kept, written = -functional.softplus(k), log_n - functional.softplus(-k)
            log_h = None if state is None else state[0].log()
            outputs = []
            for k_t, w_t in zip(kept, written, strict=True):
                log_h = w_t if log_h is None else torch.logaddexp(k_t + log_h, w_t)
                outputs.append(log_h.exp())
            return torch.stack(outputs), outputs[-1][None]

    return Layer()
