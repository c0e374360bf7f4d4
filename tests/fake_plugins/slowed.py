"""A correct implementation that waits at each update while a file exists.

A test that has to reach a trial before it ends makes the file. The file contains the
number of networks of each process that do not wait.
"""

import os
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from harness import declare_implementation
from implementations.numpy_reference.network import NumpyNetwork

declare_implementation(
    "slowed", framework="numpy", cells=["rnn"], factory="slowed:Slowed"
)

numbers = count()


class Slowed(NumpyNetwork):
    """Waits for half a second before updates."""

    def __init__(self, spec, cell, device):
        super().__init__(spec, cell, device)
        self.number = next(numbers)

    def train_steps(self, placed):
        end_s = time.monotonic() + 0.5
        while time.monotonic() < end_s and self.waits():
            time.sleep(0.02)
        return super().train_steps(placed)

    def waits(self):
        with suppress(FileNotFoundError):
            return self.number >= int(Path(os.environ["SLOWED"]).read_text())
        return False
