"""min-gru with mistakes that its own single time steps share, or do not."""

from harness import declare_implementation

for mistake in ("looks-ahead", "forgets-state", "mixes-batch", "wrong-gradient"):
    function = mistake.replace("-", "_")
    declare_implementation(
        f"min-gru-{mistake}",
        framework="torch",
        cells=["min-gru"],
        layer=f"min_gru_mistakes:{function}",
        dtypes=["float32", "float64"],
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
    """Starts from zero, whatever state is passed."""
    return _changed(
        cell, input_size, hidden_size, lambda forward, x, state: forward(x, None)
    )


def mixes_batch(cell, input_size, hidden_size):
    """Lets a sequence see the one before it in the batch."""

    def change(forward, x, state):
        return forward(x.cumsum(1), state)

    return _changed(cell, input_size, hidden_size, change)


def wrong_gradient(cell, input_size, hidden_size):
    """Halves the gradient of a bias, over a sequence and in a single step alike."""

    def change(forward, x, state):
        return forward(x, state)

    layer = _changed(cell, input_size, hidden_size, change)
    layer.b.register_hook(lambda gradient: gradient / 2)
    return layer
