"""An implementation that leaves 150 MiB behind in its process, whenever it is built."""

import numpy as np

from harness import declare_implementation

declare_implementation("leaks", framework="numpy", cells=["rnn"], factory="leaks:build")

left_behind = []


def build(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    left_behind.append(np.ones(150 << 17))
    return NumpyNetwork(spec, cell, device)
