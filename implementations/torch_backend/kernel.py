"""Which recurrent kernel ran, read from the profiler's events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")

_FUSED = {
    "aten::mkldnn_rnn_layer": "oneDNN",
    "aten::_cudnn_rnn": "cuDNN",
    "aten::miopen_rnn": "MIOpen",
}
_LOOPED = ("aten::gru", "aten::lstm", "aten::rnn_tanh", "aten::rnn_relu")
_COMPILED = "## Call CompiledFxGraph"
"""What inductor's code records around each call of a graph of its own."""
OPERATIONS = "torch operations"


def kernel_of(
    forward: Callable[[], Tensor],
    backward: Callable[[Tensor], object],
    layers: int,
    device: torch.device,
) -> str:
    """Return what computes layers: "oneDNN", "cuDNN", "inductor graph" and the like.

    Args:
        forward: A training pass; returns outputs.
        backward: Computes gradients from these outputs.
        layers: How many of them the pass has.
        device: Where they run.
    """
    outputs, seen = _events(forward, device)
    for event, library in _FUSED.items():
        if event in seen:
            return library
    for event in _LOOPED:
        if event in seen:
            return f"ATen loop of {event}"
    graphs = _graphs(seen)
    if graphs == 0:
        return OPERATIONS
    kernel = "inductor graph"
    if graphs != layers:  # a graph that broke into several
        kernel = f"{graphs} inductor graphs in {layers} layers"
    _, backwards = _events(lambda: backward(outputs), device)
    return kernel if _graphs(backwards) else f"{kernel}, backward {OPERATIONS}"


def _events(run: Callable[[], T], device: torch.device) -> tuple[T, dict[str, int]]:
    """Return what a call gave, and how often each event happened in it."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        found = run()
    return found, {event.key: event.count for event in profiler.key_averages()}


def _graphs(seen: dict[str, int]) -> int:
    return sum(n for event, n in seen.items() if event.startswith(_COMPILED))
