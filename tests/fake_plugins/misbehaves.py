"""Implementations that each misbehave once."""

import contextlib
import ctypes
import os
import subprocess
import sys
import time

import numpy as np

from harness import declare_implementation
from harness.contract import Forward, Handle

NAMES = [
    "exits-quietly",
    "segfaults-in-c",
    "allocates-without-end",
    "sleeps-in-c",
    "forks-and-hangs",
    "leaves-its-session-and-exits",
    "prints-a-gigabyte",
    "leaves-a-zombie",
    "escapes-and-exits",
    "escapes-and-sleeps",
    "forks-and-goes-on",
    "writes-into-every-pipe",
    "answers-what-nobody-asked",
    "closes-every-file",
    "raises-a-long-text",
    "returns-objects",
]

for name in NAMES:
    declare_implementation(
        name,
        framework="numpy",
        cells=["rnn"],
        factory=f"misbehaves:{name.replace('-', '_')}",
    )


def exits_quietly(spec, cell, device):
    return _network(spec, cell, device, lambda: os._exit(0))


def segfaults_in_c(spec, cell, device):
    return _network(spec, cell, device, lambda: ctypes.string_at(1))


def allocates_without_end(spec, cell, device):
    def allocate():
        kept = []
        while True:
            kept.append(np.ones(1 << 20))

    return _network(spec, cell, device, allocate)


def sleeps_in_c(spec, cell, device):
    # This holds the interpreter's lock, so no signal handler of Python runs.
    return _network(spec, cell, device, lambda: ctypes.PyDLL(None).sleep(1_000_000))


def forks_and_hangs(spec, cell, device):
    def fork():
        code = "import os, time; os.setsid(); os.fork() or time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", code])
        time.sleep(600)

    return _network(spec, cell, device, fork)


def leaves_its_session_and_exits(spec, cell, device):
    def leave():
        code = "import os, time; os.setsid(); os.fork() or time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", code]).wait()
        os._exit(0)

    return _network(spec, cell, device, leave)


def prints_a_gigabyte(spec, cell, device):
    def print_much():
        block = b"to the print\n" * 80_000
        for _ in range(1024):
            os.write(1, block)

    return _network(spec, cell, device, print_much)


def leaves_a_zombie(spec, cell, device):
    def leave():
        if os.fork() == 0:
            os._exit(0)

    return _network(spec, cell, device, leave)


def escapes_and_exits(spec, cell, device):
    def escape():
        _escape()
        os._exit(0)

    return _network(spec, cell, device, escape)


def escapes_and_sleeps(spec, cell, device):
    def escape():
        _escape()
        time.sleep(600)

    return _network(spec, cell, device, escape)


def _escape():
    # Two forks, a session of its own and no variable: nothing names its parent.
    code = (
        "import os, sys, time; os.fork() and os._exit(0); os.setsid();"
        "os.fork() and os._exit(0); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, os.environ[TOKEN], "escaped"]
    subprocess.Popen(command, env={}).wait()


TOKEN = "RNN_HARNESS_TEST"
"""The variable with a word that a test finds in the command lines of what is left."""


def forks_and_goes_on(spec, cell, device):
    return _network(spec, cell, device, os.fork)


def writes_into_every_pipe(spec, cell, device):
    return _network(spec, cell, device, lambda: _write(b"loud\n"))


def answers_what_nobody_asked(spec, cell, device):
    answer = b'{"values": {"request": "another", "found": 1}, "arrays": []}\n'
    return _network(spec, cell, device, lambda: _write(answer))


def _write(line):
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(descriptor, line)


def closes_every_file(spec, cell, device):
    return _network(spec, cell, device, lambda: os.closerange(0, 64))


def raises_a_long_text(spec, cell, device):
    def fail():
        raise ValueError("long " * 10_000_000)

    return _network(spec, cell, device, fail)


def returns_objects(spec, cell, device):
    def found():
        return Forward(np.array([None]), (np.zeros(1),))

    return _network(spec, cell, device, lambda: Handle(lambda: None, found))


done = set()


def _network(spec, cell, device, misbehave):
    from implementations.numpy_reference.network import NumpyNetwork

    class Misbehaving(NumpyNetwork):
        def forward(self, placed, state=None):
            if misbehave.__qualname__ not in done:
                done.add(misbehave.__qualname__)
                instead = misbehave()
                if isinstance(instead, Handle):
                    return instead
            return super().forward(placed, state)

    return Misbehaving(spec, cell, device)
