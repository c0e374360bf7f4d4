"""Implementations that keep the memory in their names, in MiB."""

import numpy as np

from harness import declare_implementation

for mib in (250, 260, 900):
    declare_implementation(
        f"keeps-{mib}", framework="numpy", cells=["rnn"], factory=f"heavy:keeps_{mib}"
    )


def keeps_250(spec, cell, device):
    return _network(spec, cell, device, 250)


def keeps_260(spec, cell, device):
    return _network(spec, cell, device, 260)


def keeps_900(spec, cell, device):
    return _network(spec, cell, device, 900)


def _network(spec, cell, device, mib):
    from implementations.numpy_reference.network import NumpyNetwork

    network = NumpyNetwork(spec, cell, device)
    if spec.hidden_size > 8:  # the networks of the certificate are smaller
        network.kept = np.ones(mib << 17)
    return network
