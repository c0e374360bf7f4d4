"""How fast TensorFlow multiplies and copies on one device."""

from __future__ import annotations

import sys
from collections.abc import Callable

import tensorflow as tf

from harness.contract import Array, FrameworkState
from implementations.shared.device import Probe
from implementations.shared.keras_state import keras_holders, keras_settings
from implementations.tensorflow_backend.network import find_device

_TRACING = "tensorflow.python.eager.polymorphic_function.tracing_compilation"
_CONFIG = "tensorflow.python.framework.config"
_CONTEXT = "tensorflow.python.eager.context"
"""Private modules, which may move."""


class TensorFlowProbe(Probe):
    """A `DeviceProbe` of TensorFlow's matrix product, memory and allocator.

    Raises:
        UnavailableError: If TensorFlow sees no such device.
    """

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self._device = find_device(device)

    def _matmul(self, size: int, dtype: str, precision: str) -> Callable[[], None]:
        kind = tf.bfloat16 if precision == "bf16" else tf.as_dtype(dtype)
        with tf.device(self._device):
            a, b = (tf.cast(tf.random.normal((size, size)), kind) for _ in range(2))

        def call() -> None:
            if self._on_gpu:  # other code of the process may set this switch
                tf.config.experimental.enable_tensor_float_32_execution(
                    precision == "tf32"
                )
            with tf.device(self._device):
                tf.matmul(a, b)
            self._wait()

        return call

    def _tenth(self, values: Array) -> Array:
        with tf.device(self._device):
            found: Array = tf.multiply(tf.constant(values), 0.1).numpy()
        return found

    def copy(self, size: int) -> Callable[[], None]:
        """Return a call that moves 2 `size` bytes in all and waits.

        It adds an array to another, each of 2/3 `size`: two are read and one is
        written. TensorFlow has no update in place that moves less.
        """
        with tf.device(self._device):
            source = tf.zeros(size // 6, tf.float32)
            target = tf.Variable(tf.zeros_like(source))

        def call() -> None:
            with tf.device(self._device):
                target.assign_add(source, read_value=False)
            self._wait()

        return call

    def _wait(self) -> None:
        # On the CPU a call returns when its work is done.
        if self._on_gpu:
            tf.test.experimental.sync_devices()

    def _peak_bytes(self) -> int:
        name = self._device.removeprefix("/")
        return int(tf.config.experimental.get_memory_info(name)["peak"])

    def reset_peak(self) -> None:
        """Take what tensors hold now as the peak."""
        if self._on_gpu:
            tf.config.experimental.reset_memory_stats(self._device.removeprefix("/"))

    def state(self) -> FrameworkState:
        """Return the time that building graphs took, in µs, and the threads.

        It is not reported when XLA compiles a graph again for other sizes.
        """
        tracing = sys.modules.get(_TRACING)  # private, and may move
        counter = getattr(tracing, "_graph_building_time_counter", None)
        builds = 0 if counter is None else counter.get_cell().value()
        # 0 if it has not been set: then the pinned environment variable applies.
        threads = tf.config.threading.get_intra_op_parallelism_threads()
        settings = {
            "TensorFlow's threads": str(threads),
            "TensorFlow's threads between operations": str(
                tf.config.threading.get_inter_op_parallelism_threads()
            ),
            "TensorFlow's eager functions": str(tf.config.functions_run_eagerly()),
            "TensorFlow's eager mode": str(tf.executing_eagerly()),
            "TensorFlow's optimizer": str(tf.config.optimizer.get_jit()),
            "TensorFlow's TF32": str(
                tf.config.experimental.tensor_float_32_execution_enabled()
            ),
            "TensorFlow's determinism": str(_is_deterministic()),
            "TensorFlow's device": _device(),
            **keras_settings(),
        }
        shared = (*_SHARED, *keras_holders())
        return FrameworkState(builds, threads or None, settings, shared)


_SHARED = (
    tf.math,
    tf.nn,
    tf.linalg,
    tf.raw_ops,
    tf.random,
    tf.Tensor,
    tf.Variable,
    tf.GradientTape,
    tf.Module,
)
"""Where TensorFlow's functions are; `tf` itself is its framework's module."""


def _is_deterministic() -> bool | None:
    ask = getattr(sys.modules.get(_CONFIG), "is_op_determinism_enabled", None)
    return None if ask is None else bool(ask())


def _device() -> str:
    """Return the device that operations are on unless they name another."""
    context = getattr(sys.modules.get(_CONTEXT), "context", None)
    return "" if context is None else str(context().device_name)
