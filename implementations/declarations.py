"""Declarations of the built-in frameworks, cells and implementations."""

from harness.declarations import (
    declare_cell,
    declare_framework,
    declare_implementation,
)

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
    # The profiler writes two lines to standard error each time it is asked what ran.
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
    distributions=["jax"],
    extra="jax",
)

# In a process of its own: Keras takes one backend a process.
keras_jax = declare_framework(
    "keras-jax",
    modules=["keras", "jax"],
    factory="implementations.jax_backend.keras_network:network",
    probe="implementations.jax_backend.probe:JaxProbe",
    distributions=["keras", "jax"],
    extra="keras-jax",
    environment={"KERAS_BACKEND": "jax"},
)

onnxruntime = declare_framework(
    "onnxruntime",
    modules=["onnxruntime", "onnx"],
    distributions=["onnxruntime", "onnx"],
    extra="onnx",
)

rnn = declare_cell(
    "rnn",
    factory="implementations.cells.rnn:Rnn",
    equations="implementations.cells.equations:rnn",
    summary="tanh Elman network: no gates",
)

rnn_relu = declare_cell(
    "rnn-relu",
    factory="implementations.cells.rnn:RnnRelu",
    equations="implementations.cells.equations:rnn_relu",
    summary="rectified linear units; canonical initial values make it an integrator",
)

gru = declare_cell(
    "gru",
    factory="implementations.cells.gru:Gru",
    equations="implementations.cells.equations:gru",
    summary="reset applied after the recurrent product (the cuDNN form)",
)

gru_reset_before = declare_cell(
    "gru-reset-before",
    factory="implementations.cells.gru:GruResetBefore",
    equations="implementations.cells.equations:gru_reset_before",
    summary="reset applied to the state before the recurrent product (Cho et al. 2014)",
)

lstm = declare_cell(
    "lstm",
    factory="implementations.cells.lstm:Lstm",
    equations="implementations.cells.equations:lstm",
    summary="input, forget and output gates around a cell state",
)

numpy_reference = declare_implementation(
    "numpy-reference",
    framework="numpy",
    factory="implementations.numpy_reference.network:NumpyNetwork",
    cells="reference",
    dtypes=["float32", "float64"],
    summary="the cells' own equations, step by step: the oracle",
)

torch_native = declare_implementation(
    "torch-native",
    framework="torch",
    layer="implementations.torch_backend.native:layer",
    cells=["rnn", "rnn-relu", "gru", "lstm"],
    devices=["cpu", "cuda"],
    dtypes=["float32", "float64"],
    precisions=["highest", "tf32", "bf16"],
    biases=["canonical", "native"],
    summary="nn.RNN, nn.GRU and nn.LSTM",
)

torch_loop = declare_implementation(
    "torch-loop",
    framework="torch",
    loop="implementations.torch_backend.loop:layer",
    cells="equations",
    devices=["cpu", "cuda"],
    dtypes=["float32", "float64"],
    precisions=["highest", "tf32", "bf16"],
    summary="the equations in torch operations, a Python loop over time",
)

torch_compile = declare_implementation(
    "torch-compile",
    framework="torch",
    loop="implementations.torch_backend.compiled:layer",
    cells="equations",
    devices=["cpu", "cuda"],
    dtypes=["float32", "float64"],
    summary="the equations compiled by torch.compile, for any length at once",
)

torch_cuda_graph = declare_implementation(
    "torch-cuda-graph",
    framework="torch",
    factory="implementations.torch_backend.cuda_graph:network",
    cells=["rnn", "rnn-relu", "gru", "lstm"],
    devices=["cuda"],
    dtypes=["float32", "float64"],
    precisions=["highest", "tf32"],
    summary="nn.RNN, nn.GRU and nn.LSTM, each pass recorded once and replayed",
)

tensorflow_keras = declare_implementation(
    "tensorflow-keras",
    framework="tensorflow",
    layer="implementations.tensorflow_backend.stock:layer",
    cells=["rnn", "rnn-relu", "gru", "gru-reset-before", "lstm"],
    devices=["cpu", "cuda"],
    dtypes=["float32", "float64"],
    biases=["canonical", "native"],
    summary="keras.layers.SimpleRNN, GRU and LSTM on TensorFlow",
)

tensorflow_loop = declare_implementation(
    "tensorflow-loop",
    framework="tensorflow",
    loop="implementations.tensorflow_backend.loop:layer",
    cells="equations",
    devices=["cpu", "cuda"],
    dtypes=["float32", "float64"],
    summary="the equations in tf.while_loop under tf.function",
)

jax_scan = declare_implementation(
    "jax-scan",
    framework="jax",
    loop="implementations.jax_backend.scan:layer",
    cells="equations",
    devices=["cpu", "cuda"],
    dtypes=["float32", "float64"],
    summary="the equations in jax.lax.scan under jit",
)

keras_on_jax = declare_implementation(
    "keras-jax",
    framework="keras-jax",
    layer="implementations.jax_backend.stock:layer",
    cells=["rnn", "rnn-relu", "gru", "gru-reset-before", "lstm"],
    devices=["cpu", "cuda"],
    biases=["canonical", "native"],
    summary="keras.layers.SimpleRNN, GRU and LSTM on JAX",
)

onnx_inference = declare_implementation(
    "onnxruntime",
    framework="onnxruntime",
    factory="implementations.onnx_backend.network:OnnxNetwork",
    cells=["rnn", "rnn-relu", "gru", "gru-reset-before", "lstm"],
    devices=["cpu", "cuda"],
    trains=False,
    summary="ONNX's RNN, GRU and LSTM nodes: inference only",
)
