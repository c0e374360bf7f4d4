from harness import declare_implementation

declare_implementation(
    "no-vjp", framework="numpy", cells=["rnn"], factory="network_lacks_vjp:build"
)


def build(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    class NoVjp(NumpyNetwork):
        vjp = property()

    return NoVjp(spec, cell, device)
