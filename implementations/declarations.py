"""Declarations of the built-in frameworks, cells and implementations."""

from functools import partial

from harness.declarations import (
    CellDeclaration,
    declare_cell,
    declare_framework,
    declare_implementation,
)

# --- frameworks ----------------------------------------------------------------------

numpy = declare_framework(
    "numpy",
    modules=["numpy"],
    factory="implementations.numpy_reference.network:NumpyNetwork",
    probe="implementations.numpy_reference.probe:NumpyProbe",
)

torch = declare_framework(
    "torch",
    modules=["torch"],
    factory="implementations.torch_backend.network:TorchNetwork",
    probe="implementations.torch_backend.probe:TorchProbe",
    extra="torch",
    # Otherwise the profiler writes two lines to standard error whenever it runs.
    environment={"KINETO_LOG_LEVEL": "6"},
)

tensorflow = declare_framework(
    "tensorflow",
    modules=["tensorflow", "keras"],
    factory="implementations.tensorflow_backend.network:TensorFlowNetwork",
    probe="implementations.tensorflow_backend.probe:TensorFlowProbe",
    distributions=["tensorflow", "tensorflow-cpu", "keras"],
    extra="tensorflow",
    environment={"KERAS_BACKEND": "tensorflow"},
)

jax = declare_framework(
    "jax",
    modules=["jax"],
    factory="implementations.jax_backend.network:JaxNetwork",
    probe="implementations.jax_backend.probe:JaxProbe",
    extra="jax",
)

# A framework of its own, because Keras has one backend in a process.
keras_jax = declare_framework(
    "keras-jax",
    modules=["keras", "jax"],
    factory="implementations.jax_backend.keras_network:network",
    probe="implementations.jax_backend.probe:JaxProbe",
    extra="keras-jax",
    environment={"KERAS_BACKEND": "jax"},
)

onnxruntime = declare_framework(
    "onnxruntime", modules=["onnxruntime", "onnx"], extra="onnx"
)

# --- cells ---------------------------------------------------------------------------


def _cell(name: str, factory: str, summary: str) -> CellDeclaration:
    """Declare a cell whose equations are a function of its name."""
    return declare_cell(
        name,
        factory=f"implementations.cells.{factory}",
        equations=f"implementations.cells.equations:{name.replace('-', '_')}",
        inits=["canonical", "zero-bias", "chrono", "native-torch", "native-keras"],
        summary=summary,
    )


rnn = _cell("rnn", "rnn:Rnn", "tanh Elman network: no gates")
rnn_relu = _cell(
    "rnn-relu",
    "rnn:RnnRelu",
    "rectified linear units; canonical initial values make it an integrator",
)
gru = _cell(
    "gru", "gru:Gru", "reset applied after the recurrent product (the cuDNN form)"
)
gru_reset_before = _cell(
    "gru-reset-before",
    "gru:GruResetBefore",
    "reset applied to the state before the recurrent product (Cho et al. 2014)",
)
lstm = _cell("lstm", "lstm:Lstm", "input, forget and output gates around a cell state")

# --- implementations -----------------------------------------------------------------

_IN_TORCH = ["rnn", "rnn-relu", "gru", "lstm"]
"""The cells for which torch has layers."""

_EVERY_CELL = ["rnn", "rnn-relu", "gru", "gru-reset-before", "lstm"]

_on_any_device = partial(declare_implementation, devices=["cpu", "cuda"])
_in_any_dtype = partial(_on_any_device, dtypes=["float32", "float64"])
_of_equations = partial(_in_any_dtype, cells="equations")
_of_keras = partial(
    _on_any_device,
    layer="implementations.keras_layers:stock",
    cells=_EVERY_CELL,
    biases=["canonical", "native"],
)

numpy_reference = declare_implementation(
    "numpy-reference",
    framework="numpy",
    factory="implementations.numpy_reference.network:NumpyNetwork",
    cells="reference",
    dtypes=["float32", "float64"],
    summary="the cells' own equations, step by step; in float64 the reference for all",
)

torch_native = _in_any_dtype(
    "torch-native",
    framework="torch",
    layer="implementations.torch_backend.native:layer",
    cells=_IN_TORCH,
    precisions=["highest", "tf32", "bf16"],
    biases=["canonical", "native"],
    summary="nn.RNN, nn.GRU and nn.LSTM",
)

torch_loop = _of_equations(
    "torch-loop",
    framework="torch",
    loop="implementations.torch_backend.loop:layer",
    precisions=["highest", "tf32", "bf16"],
    summary="the equations in torch operations, a Python loop over time",
)

torch_compile = _of_equations(
    "torch-compile",
    framework="torch",
    loop="implementations.torch_backend.compiled:layer",
    summary="the equations compiled by torch.compile, for any length at once",
)

torch_cuda_graph = declare_implementation(
    "torch-cuda-graph",
    framework="torch",
    factory="implementations.torch_backend.cuda_graph:GraphNetwork",
    cells=_IN_TORCH,
    devices=["cuda"],
    dtypes=["float32", "float64"],
    precisions=["highest", "tf32"],
    summary="nn.RNN, nn.GRU and nn.LSTM, each pass recorded once and replayed",
)

tensorflow_keras = _of_keras(
    "tensorflow-keras",
    framework="tensorflow",
    dtypes=["float32", "float64"],
    summary="keras.layers.SimpleRNN, GRU and LSTM on TensorFlow",
)

tensorflow_loop = _of_equations(
    "tensorflow-loop",
    framework="tensorflow",
    loop="implementations.tensorflow_backend.loop:layer",
    summary="the equations in tf.while_loop under tf.function",
)

jax_scan = _of_equations(
    "jax-scan",
    framework="jax",
    loop="implementations.jax_backend.scan:layer",
    summary="the equations in jax.lax.scan under jit",
)

keras_on_jax = _of_keras(
    "keras-jax",
    framework="keras-jax",
    summary="keras.layers.SimpleRNN, GRU and LSTM on JAX",
)

onnx_inference = _on_any_device(
    "onnxruntime",
    framework="onnxruntime",
    factory="implementations.onnx_backend.network:OnnxNetwork",
    cells=_EVERY_CELL,
    trains=False,
    summary="ONNX's RNN, GRU and LSTM nodes: inference only",
)
