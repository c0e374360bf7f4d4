"""Implementations that leave something behind which ends their process later."""

import os
from pathlib import Path

from harness import declare_implementation

FILE = "LEAVES_BEHIND"
"""The variable with the file to which each network that is built adds a line."""

for name in ("arms", "innocent", "also-innocent", "dies", "learns-on"):
    declare_implementation(
        name,
        framework="numpy",
        cells=["rnn"],
        factory=f"leaves_behind:{name.replace('-', '_')}",
    )

left = []


def arms(spec, cell, device):
    left.append("a trap, as a timer would be")
    return _network(spec, cell, device, "arms", lambda placed: None)


def innocent(spec, cell, device):
    return _network(spec, cell, device, "innocent", _trap)


def also_innocent(spec, cell, device):
    return _network(spec, cell, device, "also-innocent", _trap)


def dies(spec, cell, device):
    return _network(spec, cell, device, "dies", lambda placed: os._exit(3))


def learns_on(spec, cell, device):
    calls = []

    def late(placed):
        calls.extend([1] if len(placed) == 10 else [])
        if len(calls) > 1:
            _trap()

    return _network(spec, cell, device, "learns-on", late)


def _trap(placed=None):
    if left:
        os._exit(3)


def _network(spec, cell, device, name, act):
    from implementations.numpy_reference.network import NumpyNetwork

    with Path(os.environ[FILE]).open("a") as file:
        file.write(f"{name}\n")

    class Network(NumpyNetwork):
        def train_steps(self, placed):
            act(placed)
            return super().train_steps(placed)

    return Network(spec, cell, device)
