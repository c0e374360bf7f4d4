"""Correct implementations with wrong timings, each by one of the usual mistakes."""

import hashlib
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from harness import declare_implementation
from harness.contract import Handle
from implementations.numpy_reference.network import NumpyNetwork

for name in (
    "never-waits",
    "builds-late",
    "builds-often",
    "many-threads",
    "keeps-time",
):
    declare_implementation(
        name,
        framework="numpy",
        cells=["rnn"],
        factory=f"untimely:{name.replace('-', '_')}",
    )


class _NeverWaits(NumpyNetwork):
    """Queues the work and waits for it only when the result is read.

    A call drops the work of the call before, unless that has begun.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.pool = ThreadPoolExecutor(1)
        self.queued = Future()

    def forward(self, placed, state=None):
        self.queued.cancel()
        future = self.queued = self.pool.submit(self.late, placed, state)
        return Handle(lambda: None, lambda: future.result().read())

    def late(self, placed, state):
        time.sleep(0.05)
        return super().forward(placed, state)


class _BuildsLate(NumpyNetwork):
    """Builds something in a call long after the first ones."""

    calls = 0

    def forward(self, placed, state=None):
        self.calls += 1
        # About ten calls warm up, and the first reading of a turn is dropped.
        if self.calls % 61 == 0:
            time.sleep(0.3)
        return super().forward(placed, state)


class _BuildsOften(NumpyNetwork):
    """Builds something in every fifth call on long sequences, as in a timing."""

    calls = 0

    def place(self, batch):
        self.is_long = batch.inputs.shape[1] >= 60
        return super().place(batch)

    def forward(self, placed, state=None):
        self.calls += self.is_long
        if self.is_long and self.calls % 5 == 0:
            time.sleep(0.011)
        return super().forward(placed, state)


class _ManyThreads(NumpyNetwork):
    """Computes with eight more threads."""

    def forward(self, placed, state=None):
        block = bytes(1 << 22)
        threads = [
            threading.Thread(target=lambda: hashlib.sha256(block)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        found = super().forward(placed, state)
        for thread in threads:
            thread.join()
        return found


def never_waits(spec, cell, device):
    return _NeverWaits(spec, cell, device)


def builds_late(spec, cell, device):
    return _BuildsLate(spec, cell, device)


def builds_often(spec, cell, device):
    return _BuildsOften(spec, cell, device)


def many_threads(spec, cell, device):
    return _ManyThreads(spec, cell, device)


def keeps_time(spec, cell, device):
    return NumpyNetwork(spec, cell, device)
