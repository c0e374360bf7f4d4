import os

from harness import declare_implementation

declare_implementation(
    "exits-hard", framework="numpy", cells=["rnn"], factory="exits_hard:build"
)


def build(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    class Exiting(NumpyNetwork):
        def forward(self, placed, state=None):
            os._exit(7)

    return Exiting(spec, cell, device)
