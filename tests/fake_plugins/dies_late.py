import os

from harness import declare_implementation

declare_implementation(
    "dies-late", framework="numpy", cells=["rnn"], factory="dies_late:build"
)


def build(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    class DyingLate(NumpyNetwork):
        def kernel(self):  # called when a session is over
            os._exit(7)

    return DyingLate(spec, cell, device)
