"""A network that ONNX Runtime computes: inference only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from harness.contract import Array, Batch, Cell, NetworkSpec, Weights
from harness.errors import UnavailableError
from implementations.onnx_backend.graph import build_model
from implementations.onnx_backend.kernel import kernel_of
from implementations.onnx_backend.layout import OnnxLayout
from implementations.shared.device import index_of
from implementations.shared.network import InferenceNetwork, Parts


class OnnxNetwork(InferenceNetwork):
    """Recurrent nodes with a linear readout, exported from canonical weights.

    Args:
        spec: Sizes and readout; loss and optimiser are not used.
        cell: Names the canonical tensors and the state parts.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        UnavailableError: If ONNX Runtime has no provider for the device.
    """

    def __init__(self, spec: NetworkSpec, cell: Cell, device: str) -> None:
        self._providers = _providers(device)
        widths = spec.layer_input_sizes
        super().__init__(
            spec, cell, [OnnxLayout(cell, w, spec.hidden_size) for w in widths]
        )
        self._weights = self._zero_tensors()
        self._sessions: dict[bool, ort.InferenceSession] = {}

    def _padding(self, batch: Batch) -> Array:
        return batch.lengths.astype(np.int32)

    def _assign(self, held: dict[str, Any], arrays: Weights) -> None:
        super()._assign(held, arrays)
        self._sessions = {}  # the weights are constants of their graphs

    def _forward(
        self, x: Array, padding: Array | None, state: Parts
    ) -> tuple[Array, Parts]:
        padded = padding is not None
        if padded not in self._sessions:
            self._sessions[padded] = self._start(padded, _options())
        outputs, *final = self._sessions[padded].run(
            None, self._feed(x, padding, state)
        )
        return outputs, tuple(final)

    def _feed(
        self, x: Array, padding: Array | None, state: Parts
    ) -> Mapping[str, Array]:
        tokens = self._spec.inputs.embedded
        feed = {"x": x.astype(np.int64) if tokens else x}
        feed |= zip(("h", "c"), state, strict=False)
        return feed if padding is None else {**feed, "lengths": padding}

    def _start(self, padded: bool, options: ort.SessionOptions) -> ort.InferenceSession:
        model = build_model(self._spec, self._parts, self._weights, padded=padded)
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=self._providers
        )

    def kernel(self) -> str:
        """Name the recurrent node and the provider that ran, read from a profile."""
        with tempfile.TemporaryDirectory() as folder:
            options = _options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._start(False, options)
            session.run(
                None, self._feed(self._zero_input(4, 2), None, self._zero_state(2))
            )
            return kernel_of(Path(session.end_profiling()))


def _options() -> ort.SessionOptions:
    """Return options with the number of threads that the environment sets."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A spinning thread would disturb other implementations that are timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _providers(device: str) -> list[object]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    here = ort.get_available_providers()
    if "CUDAExecutionProvider" not in here:
        raise UnavailableError(
            "onnxruntime",
            f"onnxruntime {ort.__version__} has the providers {', '.join(here)}, so "
            f"{device} is not there",
        )
    # Without a second provider a node that CUDA lacks is an error, and is not computed
    # elsewhere. The provider multiplies in TF32 unless `use_tf32` is 0.
    cuda = {"device_id": index_of(device), "use_tf32": 0}
    return [("CUDAExecutionProvider", cuda)]
