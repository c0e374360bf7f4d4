import os
import signal

from harness import declare_implementation

declare_implementation(
    "crashes-when-timed",
    framework="numpy",
    cells=["rnn"],
    factory="crashes_when_timed:build",
)


def build(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    class Crashing(NumpyNetwork):
        def train_steps(self, placed):
            if len(placed) == 1:  # the certificate takes a hundred at once
                os.kill(os.getpid(), signal.SIGSEGV)
            return super().train_steps(placed)

    return Crashing(spec, cell, device)
