"""The layers of torch three times: original, copied, and 10 % slower."""

import time

from harness import declare_implementation

CELLS = ["rnn", "gru", "lstm"]
SHARE = 0.10

for name in ("original", "copy", "slower"):
    declare_implementation(
        name, framework="torch", cells=CELLS, factory=f"ten_per_cent:{name}"
    )


def original(spec, cell, device):
    from implementations.torch_backend.native import layer
    from implementations.torch_backend.network import TorchNetwork

    return TorchNetwork(spec, cell, device, layer)


def copy(spec, cell, device):
    return original(spec, cell, device)


def slower(spec, cell, device):
    from implementations.torch_backend.native import layer
    from implementations.torch_backend.network import TorchNetwork

    class Slower(TorchNetwork):
        """Each call is prolonged by a share of its own time."""

        def forward(self, placed, state=None):
            return _prolonged(lambda: super(Slower, self).forward(placed, state))

        def loss_and_gradients(self, placed):
            return _prolonged(lambda: super(Slower, self).loss_and_gradients(placed))

        def train_steps(self, placed):
            return _prolonged(lambda: super(Slower, self).train_steps(placed))

    return Slower(spec, cell, device, layer)


def _prolonged(call):
    """Compute for another tenth of the processor's time, on one thread.

    A loop that waits for the wall clock may be suspended on a busy machine, and then
    takes longer than a tenth.
    """
    start_s = time.thread_time()
    handle = call()
    handle.wait()
    end_s = time.thread_time() + SHARE * (time.thread_time() - start_s)
    while time.thread_time() < end_s:
        pass
    return handle
