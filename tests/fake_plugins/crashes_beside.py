import os
import signal

from harness import declare_implementation

for name in ("crashes-beside", "beside-the-crash"):
    declare_implementation(
        name,
        framework="numpy",
        cells=["rnn"],
        factory=f"crashes_beside:{name.replace('-', '_')}",
    )


def beside_the_crash(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    return NumpyNetwork(spec, cell, device)


def crashes_beside(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    class Crashing(NumpyNetwork):
        def train_steps(self, placed):
            if len(placed) == 1:  # the certificate takes a hundred at once
                os.kill(os.getpid(), signal.SIGSEGV)
            return super().train_steps(placed)

    return Crashing(spec, cell, device)
