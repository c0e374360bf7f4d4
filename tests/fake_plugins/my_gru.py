# nn.GRU's call, (x [time, batch, input], h0) -> (y, h_n), and nn.GRU's weight layout
from harness import declare_implementation

declare_implementation("my-gru", framework="torch", cells=["gru"], layer="my_gru:layer")


def layer(cell, input_size, hidden_size):
    from torch.nn import GRU

    return GRU(input_size, hidden_size)
