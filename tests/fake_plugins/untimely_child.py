"""A correct implementation with a child process that computes, too."""

import subprocess
import sys

from harness import declare_implementation
from implementations.numpy_reference.network import NumpyNetwork

declare_implementation(
    "busy-child", framework="numpy", cells=["rnn"], factory="untimely_child:BusyChild"
)

CHILD = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
while True: pass
"""


class BusyChild(NumpyNetwork):
    """Keeps a child process busy during its lifetime."""

    def __init__(self, spec, cell, device):
        super().__init__(spec, cell, device)
        self.child = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE
        )

    def __del__(self):
        self.child.communicate()
