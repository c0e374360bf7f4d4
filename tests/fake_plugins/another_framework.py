"""A framework with workers of its own, and a correct implementation that uses it."""

from harness import declare_framework, declare_implementation

declare_framework("another", modules=["numpy"])
declare_implementation(
    "on-another", framework="another", cells=["rnn"], factory="another_framework:build"
)


def build(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    return NumpyNetwork(spec, cell, device)
