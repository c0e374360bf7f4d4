"""Networks that write into what they are given."""

from harness import declare_implementation

NAMES = [
    "zeroes-inputs",
    "zeroes-targets",
    "zeroes-targets-later",
    "doubles-cotangents",
    "returns-the-given-state",
    "scales-weights",
    "leaves-all-alone",
]

for name in NAMES:
    declare_implementation(
        name,
        framework="numpy",
        cells=["gru"],
        factory=f"writes:{name.replace('-', '_')}",
    )


def zeroes_inputs(spec, cell, device):
    def place(network, batch):
        batch.inputs[...] = 0
        return network.place(batch)

    return _network(spec, cell, device, place=place)


def zeroes_targets(spec, cell, device):
    def place(network, batch):
        batch.targets[...] = 0
        return network.place(batch)

    return _network(spec, cell, device, place=place)


def zeroes_targets_later(spec, cell, device):
    given = []

    def place(network, batch):
        given.append(batch)
        return network.place(batch)

    def train_steps(network, placed):
        for batch in given:
            batch.targets[...] = 0
        return network.train_steps(
            [network.place(batch) for batch in given[-len(placed) :]]
        )

    return _network(spec, cell, device, place=place, train_steps=train_steps)


def doubles_cotangents(spec, cell, device):
    def vjp(network, placed, state, d_outputs, d_final):
        d_outputs *= 2
        return network.vjp(placed, state, d_outputs, d_final)

    return _network(spec, cell, device, vjp=vjp)


def returns_the_given_state(spec, cell, device):
    # Right, but a caller who uses the state again finds another one.
    def forward(network, placed, state=None):
        found = network.forward(placed, state)
        for given, part in zip(state or (), found.read().state, strict=False):
            given[...] = part
        return found

    return _network(spec, cell, device, forward=forward)


def scales_weights(spec, cell, device):
    def load_weights(network, weights):
        network.load_weights(weights)
        weights["readout.w"] *= 2

    return _network(spec, cell, device, load_weights=load_weights)


def leaves_all_alone(spec, cell, device):
    return _network(spec, cell, device)


def _network(spec, cell, device, **methods):
    from implementations.numpy_reference.network import NumpyNetwork

    network = NumpyNetwork(spec, cell, device)

    def around(method):
        return lambda self, *given: method(network, *given)

    members = {name: around(method) for name, method in methods.items()}
    return type("Writing", (_Around,), members)(network)


class _Around:
    def __init__(self, network):
        self.network = network

    def __getattr__(self, name):
        return getattr(self.network, name)
