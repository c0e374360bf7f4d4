import sys

from harness import declare_implementation

declare_implementation("exits", framework="numpy", cells=["rnn"], factory="exits:build")


def build(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    class Exiting(NumpyNetwork):
        def forward(self, placed, state=None):
            sys.exit("no licence")

    return Exiting(spec, cell, device)
