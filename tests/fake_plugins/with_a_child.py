import subprocess
import sys

from harness import declare_implementation

declare_implementation(
    "with-a-child", framework="numpy", cells=["rnn"], factory="with_a_child:build"
)


def build(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    # As a pool of data loaders would, it stays while the network does.
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )

    class WithAChild(NumpyNetwork):
        def __del__(self):
            child.stdin.close()
            child.wait()

    return WithAChild(spec, cell, device)
