"""A correct implementation that uses more threads than it was given."""

from harness import declare_implementation

declare_implementation(
    "sets-threads",
    framework="torch",
    cells=["rnn"],
    factory="untimely_torch:sets_threads",
)


def sets_threads(spec, cell, device):
    import torch

    from implementations.torch_backend.native import layer
    from implementations.torch_backend.network import TorchNetwork

    torch.set_num_threads(2)
    return TorchNetwork(spec, cell, device, layer)
