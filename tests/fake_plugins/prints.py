import os
import sys

from harness import declare_implementation

declare_implementation(
    "prints", framework="numpy", cells=["rnn"], factory="prints:build"
)
print("to the print while it is read")


def build(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    class Printing(NumpyNetwork):
        def forward(self, placed, state=None):
            print("to the print")
            sys.stdout.buffer.write(b"\x00{}\n")
            os.write(1, b"to the descriptor\n")
            return super().forward(placed, state)

    return Printing(spec, cell, device)
