from harness import declare_cell, declare_implementation
from implementations.cells.rnn import Rnn

declare_cell("one-way", factory="cell_lacks_step_backward:OneWay")
declare_implementation(
    "one-way-numpy",
    framework="numpy",
    cells=["one-way"],
    factory="implementations.numpy_reference.network:NumpyNetwork",
)


class OneWay:
    def __init__(self):
        whole = Rnn()
        self.info = whole.info
        self.weight_shapes = whole.weight_shapes
        self.initial_weights = whole.initial_weights
        self.flops = whole.flops
        self.parameter_counts = whole.parameter_counts
        self.step = whole.step
