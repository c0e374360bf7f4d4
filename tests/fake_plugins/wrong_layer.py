from harness import declare_implementation

declare_implementation(
    "narrow-gru", framework="torch", cells=["gru"], layer="wrong_layer:layer"
)


def layer(cell, hidden_size):
    from torch.nn import GRU

    return GRU(2, hidden_size)
