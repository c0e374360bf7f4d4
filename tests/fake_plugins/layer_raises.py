from harness import declare_implementation

declare_implementation(
    "raising-gru", framework="torch", cells=["gru"], layer="layer_raises:layer"
)


def layer(cell, input_size, hidden_size):
    from torch import nn

    class Raising(nn.GRU):
        def forward(self, x, state=None):
            raise RuntimeError("no kernel for this shape")

    return Raising(input_size, hidden_size)
