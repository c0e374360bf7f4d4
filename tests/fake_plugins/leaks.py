"""An implementation that leaves 150 MiB behind in its process, whenever it is built.

It learns so slowly that its memory is seen before it is done.
"""

import time

import numpy as np

from harness import declare_implementation

declare_implementation("leaks", framework="numpy", cells=["rnn"], factory="leaks:build")

left_behind = []


def build(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    class Leaking(NumpyNetwork):
        def train_steps(self, placed):
            time.sleep(0.005 * len(placed))
            return super().train_steps(placed)

    left_behind.append(np.ones(150 << 17))
    return Leaking(spec, cell, device)
