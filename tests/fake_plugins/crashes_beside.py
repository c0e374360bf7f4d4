from harness import declare_implementation

for name in ("crashes-beside", "beside-the-crash"):
    declare_implementation(
        name,
        framework="numpy",
        cells=["rnn"],
        factory=f"crashes_beside:{name.replace('-', '_')}",
    )


def beside_the_crash(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    return NumpyNetwork(spec, cell, device)


def crashes_beside(spec, cell, device):
    from crashes_when_timed import build

    return build(spec, cell, device)
