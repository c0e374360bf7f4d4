"""The differences between backends that share the tests in `tests/frameworks`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from harness.contract import Inputs, NetworkSpec, Target
from harness.loading import load_cell
from tests.backend_cases import REGISTRY, SPEC, draw_weights

CELLS = ["rnn", "rnn-relu", "gru", "gru-reset-before", "lstm"]
SMALL = replace(
    SPEC, inputs=Inputs("reals", 2), num_layers=1, target=Target.REAL, cell="gru"
)

ONLY_FOR = {
    "test_jax.py": ["jax"],
    "test_jax_state_gradients.py": ["jax"],
    "test_keras.py": ["keras-jax", "tensorflow"],
    "test_keras_jax.py": ["keras-jax"],
    "test_tensorflow.py": ["tensorflow"],
    # keras-jax uses the optimiser, the loss and the probe of jax.
    "test_planted.py": ["jax", "tensorflow"],
    "test_probe.py": ["jax", "tensorflow"],
    "test_plugin_file.py": ["jax", "tensorflow"],
}
"""Files that other frameworks leave out; any other file is of every framework."""

LONG_FOR = {
    "keras-jax": [
        "test_training_resumes_from_weights_and_optimiser_state",
        "test_loading_weights_resets_the_moments",
        "test_later_calls_do_not_change_what_was_read_or_placed",
    ],
}
"""Tests for `make test-all`: what they are about is jax's, where they always run."""


@dataclass(frozen=True)
class Backend:
    """A framework's backend.

    Attributes:
        framework: Its name.
        implementations: Its implementations, which are compared with the reference.
        network: Module and name of the class that builds a network of layers.
        rounding: The largest error allowed in each dtype that it supports.
        differences: An implementation, and the dtype of its finite differences.
        template_cells: Cells for which `rnn-harness new` writes a layer.
        loop: The name of its loop over time.
        fused: The kernel on a GPU if it differs, by implementation and cell.
    """

    framework: str
    implementations: tuple[str, ...]
    network: str
    rounding: Mapping[str, float]
    differences: tuple[str, str]
    template_cells: tuple[str, ...]
    loop: str
    fused: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @staticmethod
    def of(framework: str) -> Backend:
        return next(b for b in BACKENDS if b.framework == framework)

    @property
    def layers(self) -> Any:
        """Return the module with the layers of `test_layers.py`."""
        kind = "jax" if self.framework == "jax" else "keras"
        return importlib.import_module(f"tests.frameworks.{kind}_layers")

    @property
    def version(self) -> str:
        """Return the name and version of its library: "jax 0.8.0"."""
        name = self.framework.rpartition("-")[2]
        return f"{name} {importlib.import_module(name).__version__}"

    def on_gpu(self) -> bool:
        """Say whether the framework of this process sees a GPU."""
        if self.framework == "tensorflow":
            import tensorflow

            return bool(tensorflow.config.list_physical_devices("GPU"))
        import jax

        return bool(jax.default_backend() == "gpu")

    def default_dtype(self) -> str:
        """Return the default dtype of the framework of this process."""
        if self.framework == "tensorflow":
            import keras

            return str(keras.config.dtype_policy().name)
        from jax import numpy

        return str(numpy.zeros(1).dtype)

    def kernel_on_gpu(self, implementation: str, cell: str) -> str:
        return self.fused.get((implementation, cell), self.loop)

    def network_of(
        self, layer: Callable[..., Any], spec: NetworkSpec = SMALL, device: str = "cpu"
    ) -> Any:
        """Build a network of the layers of `layer(cell, input_size, hidden_size)`."""
        module, _, name = self.network.partition(":")
        build = getattr(importlib.import_module(module), name)
        network = build(spec, load_cell(REGISTRY, spec.cell), device, layer)
        network.load_weights(draw_weights(spec))
        return network

    def compiled(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a function that the framework compiles at its first call."""
        if self.framework == "tensorflow":
            import tensorflow

            return cast(Callable[[Any], Any], tensorflow.function(function))
        import jax

        return jax.jit(function)

    def parameters(self, network: Any) -> dict[str, Any]:
        """Return the parameters of the layers of a network by name, in NumPy."""
        held = network._weights
        return {n: p.__array__() for n, p in held.items() if n.startswith("layer")}


# Nine time steps in float64; in float32 the errors are near 1e-7.
BACKENDS = (
    Backend(
        "jax",
        ("jax-scan",),
        network="implementations.jax_backend.network:JaxNetwork",
        rounding={"float64": 1e-13},
        differences=("jax-scan", "float64"),
        # Its gru has a whole certificate in tests/unit/plugins/test_docs_plugins.py.
        template_cells=("rnn-relu", "gru-reset-before", "lstm"),
        loop="XLA while loop",
    ),
    Backend(
        "keras-jax",
        ("keras-jax",),
        network="implementations.jax_backend.keras_network:network",
        rounding={"float32": 1e-5},
        differences=("keras-jax", "float32"),
        # The template of tensorflow is used here; its other cells are tested there.
        template_cells=("lstm",),
        loop="XLA while loop",
    ),
    Backend(
        "tensorflow",
        ("tensorflow-keras", "tensorflow-loop"),
        network="implementations.tensorflow_backend.network:TensorFlowNetwork",
        rounding={"float64": 1e-14},
        differences=("tensorflow-loop", "float64"),
        template_cells=("rnn-relu", "gru-reset-before", "lstm"),
        loop="TensorFlow while loop",
        fused={("tensorflow-keras", c): "cuDNN" for c in ("gru", "lstm")},
    ),
)
