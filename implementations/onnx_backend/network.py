"""A network that ONNX Runtime computes: inference only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from harness.contract import (
    Array,
    Batch,
    Cell,
    Forward,
    Handle,
    NetworkSpec,
    State,
    Weights,
)
from harness.errors import UnavailableError
from implementations.onnx_backend.graph import build_model
from implementations.onnx_backend.kernel import kernel_of
from implementations.onnx_backend.layout import OnnxLayout
from implementations.shared.batches import (
    check_state,
    check_step,
    check_weights,
    encode,
    host_batch,
)
from implementations.shared.layout import NetworkLayout


@dataclass(frozen=True)
class PlacedBatch:
    """A batch with time first; `lengths` is None where no sequence is padded."""

    x: Array
    lengths: Array | None


class OnnxNetwork:
    """Recurrent nodes with a linear readout, exported from canonical weights.

    Args:
        spec: Sizes and readout; loss and optimiser have no meaning here.
        cell: Names the canonical tensors and the state parts.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        UnavailableError: If ONNX Runtime has no provider for the device.
    """

    def __init__(self, spec: NetworkSpec, cell: Cell, device: str) -> None:
        self._spec = spec
        self._providers = _providers(device)
        self._parts = len(cell.info.state_parts)
        self._shapes = spec.weight_shapes(cell)
        self._layout = NetworkLayout(
            self._shapes,
            [
                OnnxLayout(cell, width, spec.hidden_size)
                for width in spec.layer_input_sizes
            ],
        )
        self._tensors = {
            name: np.zeros(shape, np.float32)
            for name, shape in self._layout.shapes.items()
        }
        self._sessions: dict[bool, ort.InferenceSession] = {}

    def load_weights(self, weights: Weights) -> None:
        """Take canonical weights; they become constants of the graph.

        Raises:
            InputError: If a tensor is missing, misshapen or not finite.
        """
        check_weights(self._shapes, weights, self._spec.dtype)
        laid_out = self._layout.from_canonical(weights)
        self._tensors = {n: np.array(t, np.float32) for n, t in laid_out.items()}
        self._sessions = {}

    def weights(self) -> Weights:
        """Return the canonical weights."""
        return self._layout.values(self._tensors)

    def place(self, batch: Batch) -> PlacedBatch:
        """Put time first and turn tokens of a small vocabulary into one-hot vectors.

        Raises:
            InputError: If the batch does not fit the network.
        """
        host = host_batch(self._spec, batch)
        lengths = None if host.lengths is None else host.lengths.astype(np.int32)
        return PlacedBatch(host.x, lengths)

    def forward(
        self, placed: PlacedBatch, state: State | None = None
    ) -> Handle[Forward]:
        """Compute outputs [batch, readouts, output] and the final state."""
        session = self._session(padded=placed.lengths is not None)
        outputs, *final = session.run(None, self._feed(placed, state))
        found = Forward(outputs, tuple(final))
        return Handle(lambda: None, lambda: found)

    def step(self, x: Array, state: State) -> Handle[Forward]:
        """Advance one time step and answer, whatever the readout."""
        check_step(self._spec, x)
        return self.forward(PlacedBatch(encode(self._spec, x)[None], None), state)

    def _feed(self, placed: PlacedBatch, state: State | None) -> Mapping[str, Array]:
        batch = placed.x.shape[1]
        if state is None:
            size = (self._spec.num_layers, batch, self._spec.hidden_size)
            state = (np.zeros(size, np.float32),) * self._parts
        check_state(self._spec, self._parts, state, batch)
        x = placed.x.astype(np.int64) if self._spec.inputs.embedded else placed.x
        parts = zip(("h", "c"), state, strict=False)
        feed = {"x": x, **{n: p.astype(np.float32) for n, p in parts}}
        if placed.lengths is not None:
            feed["lengths"] = placed.lengths
        return feed

    def _session(self, *, padded: bool) -> ort.InferenceSession:
        if padded not in self._sessions:
            self._sessions[padded] = self._start(padded, _options())
        return self._sessions[padded]

    def _start(self, padded: bool, options: ort.SessionOptions) -> ort.InferenceSession:
        model = build_model(self._spec, self._parts, self._tensors, padded=padded)
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=self._providers
        )

    def kernel(self) -> str:
        """Name the recurrent node and the provider that the profile says ran."""
        shape = (4, 2) if self._spec.inputs.embedded else (4, 2, self._spec.input_size)
        with tempfile.TemporaryDirectory() as folder:
            options = _options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._start(False, options)
            session.run(
                None, self._feed(PlacedBatch(np.zeros(shape, np.float32), None), None)
            )
            return kernel_of(Path(session.end_profiling()))


def _options() -> ort.SessionOptions:
    """Return options with the threads that the process was given."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A spinning thread would disturb whoever is timed beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _providers(device: str) -> list[object]:
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    here = ort.get_available_providers()
    if "CUDAExecutionProvider" not in here:
        raise UnavailableError(
            "onnxruntime",
            f"onnxruntime {ort.__version__} has the providers {', '.join(here)}, so "
            f"{device} is not there",
        )
    # Without a second provider a node that CUDA lacks is an error, not a fall-back.
    # The provider multiplies in TF32 unless told otherwise.
    cuda = {"device_id": int(index or 0), "use_tf32": 0}
    return [("CUDAExecutionProvider", cuda)]
