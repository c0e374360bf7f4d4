"""Implementations that change the process they run in, and one that does not."""

from harness import declare_implementation

for name in (
    "patches-numpy",
    "raises-on-overflow",
    "changes-when-freed",
    "keeps-a-child-busy",
    "takes-its-time",
    "rounds-decimals",
    "needs-decimals",
    "tells-its-parent-to-stop",
    "beside-them",
):
    declare_implementation(
        name,
        framework="numpy",
        cells=["rnn"],
        factory=f"changes:{name.replace('-', '_')}",
    )

for name in (
    "detects-anomalies",
    "more-threads",
    "no-gradients",
    "other-precision",
    "plain-torch",
):
    declare_implementation(
        name,
        framework="torch",
        cells=["rnn"],
        layer=f"changes:{name.replace('-', '_')}",
    )


def patches_numpy(spec, cell, device):
    import numpy as np

    tanh = np.tanh
    np.tanh = lambda *given, **named: 1.001 * tanh(*given, **named)
    return beside_them(spec, cell, device)


def raises_on_overflow(spec, cell, device):
    import numpy as np

    np.seterr(over="raise")
    return beside_them(spec, cell, device)


def changes_when_freed(spec, cell, device):
    import numpy as np

    from implementations.numpy_reference.network import NumpyNetwork

    class Network(NumpyNetwork):
        def __del__(self):
            np.seterr(over="raise")

    return Network(spec, cell, device)


def keeps_a_child_busy(spec, cell, device):
    import subprocess
    import sys

    # It sleeps when it is first looked at, and computes while its neighbour is asked.
    code = "import time\ntime.sleep(0.5)\nwhile True: pass"
    subprocess.Popen([sys.executable, "-c", code])
    return beside_them(spec, cell, device)


def takes_its_time(spec, cell, device):
    import time

    from implementations.numpy_reference.network import NumpyNetwork

    class Slow(NumpyNetwork):
        def forward(self, placed, state=None):
            time.sleep(0.1)
            return super().forward(placed, state)

    return Slow(spec, cell, device)


def rounds_decimals(spec, cell, device):
    import decimal

    decimal.getcontext().prec = 3
    return beside_them(spec, cell, device)


def needs_decimals(spec, cell, device):
    import decimal

    assert decimal.getcontext().prec == 28
    return beside_them(spec, cell, device)


def tells_its_parent_to_stop(spec, cell, device):
    import os
    import signal
    import time

    from implementations.numpy_reference.network import NumpyNetwork

    class Slow(NumpyNetwork):
        def train_steps(self, placed):
            time.sleep(0.02 * len(placed))  # so that another one is chosen to learn
            return super().train_steps(placed)

    os.kill(os.getppid(), signal.SIGUSR1)
    return Slow(spec, cell, device)


def beside_them(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    return NumpyNetwork(spec, cell, device)


def detects_anomalies(cell, input_size, hidden_size):
    import torch

    torch.autograd.set_detect_anomaly(True)
    return plain_torch(cell, input_size, hidden_size)


def more_threads(cell, input_size, hidden_size):
    import torch

    torch.set_num_threads(2)
    return plain_torch(cell, input_size, hidden_size)


def no_gradients(cell, input_size, hidden_size):
    import torch

    torch.set_grad_enabled(False)
    return plain_torch(cell, input_size, hidden_size)


def other_precision(cell, input_size, hidden_size):
    import torch

    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    return plain_torch(cell, input_size, hidden_size)


def plain_torch(cell, input_size, hidden_size):
    import torch

    return torch.nn.RNN(input_size, hidden_size)
