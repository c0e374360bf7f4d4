"""Which recurrent kernel ran, read from the profiler's events."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

_FUSED = {
    "aten::mkldnn_rnn_layer": "oneDNN",
    "aten::_cudnn_rnn": "cuDNN",
    "aten::miopen_rnn": "MIOpen",
}
_LOOPED = ("aten::gru", "aten::lstm", "aten::rnn_tanh", "aten::rnn_relu")


def kernel_of(run: Callable[[], object], device: torch.device) -> str:
    """Return "oneDNN", "cuDNN", "ATen loop of aten::gru" or "torch operations"."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        run()
    seen = {event.key for event in profiler.key_averages()}
    for event, library in _FUSED.items():
        if event in seen:
            return library
    for event in _LOOPED:
        if event in seen:
            return f"ATen loop of {event}"
    return "torch operations"
