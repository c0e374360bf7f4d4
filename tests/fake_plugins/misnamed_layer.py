from harness import declare_implementation

declare_implementation(
    "lost-gru", framework="torch", cells=["gru"], layer="misnamed_layer:layr"
)


def layer(cell, input_size, hidden_size):
    from torch.nn import GRU

    return GRU(input_size, hidden_size)
