import ctypes
from pathlib import Path

from harness import declare_implementation

declare_implementation(
    "sleeps-in-c", framework="numpy", cells=["rnn"], factory="sleeps_in_c:build"
)


def build(spec, cell, device):
    Path("asleep").touch()
    while True:  # a signal wakes it up
        ctypes.PyDLL(None).sleep(600)  # no other thread of the interpreter runs
