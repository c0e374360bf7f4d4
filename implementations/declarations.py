"""Declarations of the built-in frameworks, cells and implementations."""

from harness.declarations import (
    declare_cell,
    declare_framework,
    declare_implementation,
)

numpy = declare_framework("numpy", module="numpy")

torch = declare_framework(
    "torch",
    module="torch",
    factory="implementations.torch_backend.network:TorchNetwork",
    extra="torch",
)

tensorflow = declare_framework("tensorflow", module="tensorflow", extra="tensorflow")

jax = declare_framework("jax", module="jax", extra="jax")

rnn = declare_cell(
    "rnn",
    factory="implementations.cells.rnn:Rnn",
    summary="tanh Elman network: no gates",
)

gru = declare_cell(
    "gru",
    factory="implementations.cells.gru:Gru",
    summary="reset applied after the recurrent product (the cuDNN form)",
)

gru_reset_before = declare_cell(
    "gru-reset-before",
    factory="implementations.cells.gru:GruResetBefore",
    summary="reset applied to the state before the recurrent product (Cho et al. 2014)",
)

lstm = declare_cell(
    "lstm",
    factory="implementations.cells.lstm:Lstm",
    summary="input, forget and output gates around a cell state",
)

numpy_reference = declare_implementation(
    "numpy-reference",
    framework="numpy",
    factory="implementations.numpy_reference.network:NumpyNetwork",
    cells=["rnn", "gru", "gru-reset-before", "lstm"],
    dtypes=["float32", "float64"],
    summary="the cells' own equations, step by step: the oracle",
)

torch_native = declare_implementation(
    "torch-native",
    framework="torch",
    layer="implementations.torch_backend.native:layer",
    cells=["rnn", "gru", "lstm"],
    devices=["cpu", "cuda"],
    dtypes=["float32", "float64"],
    biases=["canonical", "native"],
    summary="nn.RNN, nn.GRU and nn.LSTM",
)
