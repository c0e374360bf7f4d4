"""min-gru with mistakes, which some of its single time steps share.

float64 is not declared, as it is tried even if it is undeclared.
"""

from harness import declare_implementation

for mistake in (
    "looks-ahead",
    "forgets-state",
    "mixes-batch",
    "wrong-gradient",
    "exchanged-gate",
    "tanh-candidate",
    "in-single",
    "wrong-in-single",
):
    function = mistake.replace("-", "_")
    declare_implementation(
        f"min-gru-{mistake}",
        framework="torch",
        cells=["min-gru", "min-gru-bare"],
        layer=f"min_gru_mistakes:{function}",
    )


def _changed(cell, input_size, hidden_size, change):
    import min_gru

    layer = min_gru.layer(cell, input_size, hidden_size)

    class Changed(type(layer)):
        def forward(self, x, state=None):
            return change(super().forward, x, state)

    layer.__class__ = Changed
    return layer


def looks_ahead(cell, input_size, hidden_size):
    """Sees the next input, as a bidirectional layer does."""

    def change(forward, x, state):
        return forward((x + x.roll(-1, 0)) / 2, state)

    return _changed(cell, input_size, hidden_size, change)


def forgets_state(cell, input_size, hidden_size):
    """Starts from a zero state and ignores the one that is passed."""
    return _changed(
        cell, input_size, hidden_size, lambda forward, x, state: forward(x, None)
    )


def mixes_batch(cell, input_size, hidden_size):
    """Lets a sequence see the one before it in the batch."""

    def change(forward, x, state):
        return forward(x.cumsum(1), state)

    return _changed(cell, input_size, hidden_size, change)


def wrong_gradient(cell, input_size, hidden_size):
    """Halves the gradient of a bias, both in a sequence and in a single time step."""

    def change(forward, x, state):
        return forward(x, state)

    layer = _changed(cell, input_size, hidden_size, change)
    layer.b.register_hook(lambda gradient: gradient / 2)
    return layer


def exchanged_gate(cell, input_size, hidden_size):
    """Uses z in place of 1 - z."""
    return _with_methods(
        cell, input_size, hidden_size, gate=lambda self, a: 1 - a.sigmoid()
    )


def tanh_candidate(cell, input_size, hidden_size):
    """Bounds the candidate, which has no upper bound."""
    return _with_methods(
        cell, input_size, hidden_size, candidate=lambda self, a: a.tanh()
    )


def _with_methods(cell, input_size, hidden_size, **methods):
    import min_gru

    layer = min_gru.layer(cell, input_size, hidden_size)
    layer.__class__ = type("Changed", (type(layer),), methods)
    return layer


def in_single(cell, input_size, hidden_size):
    """Is right, but computes in float32 whatever the dtype."""
    import min_gru
    import torch

    layer = min_gru.layer(cell, input_size, hidden_size)

    class Single(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w_ih, self.b = layer.w_ih, layer.b

        def forward(self, x, state=None):
            single = {n: p.float() for n, p in self.named_parameters()}
            given = (x.float(), None if state is None else state.float())
            outputs, final = torch.func.functional_call(layer, single, given)
            return outputs.to(x.dtype), final.to(x.dtype)

    return Single()


def wrong_in_single(cell, input_size, hidden_size):
    """Computes in float32 too, with half the gradient of a bias."""
    layer = in_single(cell, input_size, hidden_size)
    layer.b.register_hook(lambda gradient: gradient / 2)
    return layer
