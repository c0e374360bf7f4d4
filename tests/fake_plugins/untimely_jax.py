"""A correct implementation that compiles in every call."""

from harness import declare_implementation

declare_implementation(
    "builds-always",
    framework="jax",
    cells=["rnn"],
    factory="untimely_jax:builds_always",
)


def builds_always(spec, cell, device):
    import jax

    from implementations.cells.equations import rnn
    from implementations.jax_backend import scan
    from implementations.jax_backend.network import JaxNetwork

    def layer(name, input_size, hidden_size):
        return scan.layer(rnn, cell, input_size, hidden_size)

    class BuildsAlways(JaxNetwork):
        """Compiles in every call on long sequences, as in a timing."""

        def place(self, batch):
            self.is_long = batch.inputs.shape[1] >= 60
            return super().place(batch)

        def forward(self, placed, state=None):
            if self.is_long:
                jax.jit(lambda x: x + 1)(0.0)  # a new function
            return super().forward(placed, state)

    return BuildsAlways(spec, cell, device, layer)
