import subprocess
import sys

from harness import declare_implementation

declare_implementation(
    "with-a-child", framework="numpy", cells=["rnn"], factory="with_a_child:build"
)


def build(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    # Like a pool of data loaders, it lives as long as the network.
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )

    class WithAChild(NumpyNetwork):
        def __del__(self):
            child.stdin.close()
            child.wait()

    return WithAChild(spec, cell, device)
