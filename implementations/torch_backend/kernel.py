"""Which recurrent kernels ran, read from the profiler's events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

T = TypeVar("T")

_FUSED = {
    "aten::mkldnn_rnn_layer": "oneDNN",
    "aten::_cudnn_rnn": "cuDNN",
    "aten::miopen_rnn": "MIOpen",
}
_LOOPED = ("aten::gru", "aten::lstm", "aten::rnn_tanh", "aten::rnn_relu")
_COMPILED = "## Call CompiledFxGraph"
"""What inductor's code records around each call of a graph of its own."""
_LAYER_CALL = "rnn-harness: call of a layer"
OPERATIONS = "torch operations"


def layer_call() -> AbstractContextManager[object]:
    """Return a context that marks the call of a layer for the profiler."""
    return record_function(_LAYER_CALL)


def kernel_of(
    forward: Callable[[], Tensor], backward: Callable[[Tensor], object] | None = None
) -> str:
    """Return the kernels that compute the layers of a pass, each named once.

    Examples are "oneDNN", "ATen loop of aten::gru", "inductor graph", "2 inductor
    graphs" if a call of a layer is in several pieces, and "cuDNN and torch operations"
    for two layers that differ.

    Args:
        forward: Computes the pass and returns outputs; calls layers in `layer_call`.
        backward: Computes gradients from these outputs; None for no gradients.
    """
    outputs, events = _profiled(forward)
    calls = [event for event in events if event.name == _LAYER_CALL]
    named = [name for call in calls for name in _kernels(call, events)]
    kernel = " and ".join(dict.fromkeys(named)) or OPERATIONS
    if backward is None or not any(map(_is_graph, events)):
        return kernel
    _, events = _profiled(lambda: backward(outputs))
    compiled = any(map(_is_graph, events))
    return kernel if compiled else f"{kernel}, backward {OPERATIONS}"


@dataclass(frozen=True)
class _Event:
    """An event that the profiler recorded, in nanoseconds of its clock."""

    name: str
    start_ns: int
    end_ns: int

    def has(self, other: _Event) -> bool:
        """Say whether another event happened within this one."""
        return self.start_ns <= other.start_ns and other.end_ns <= self.end_ns


def _kernels(call: _Event, events: list[_Event]) -> list[str]:
    """Name what ran within one call of a layer."""
    within = [event for event in events if call.has(event)]
    fused = [event for event in within if event.name in _FUSED]
    found = [_FUSED[event.name] for event in fused]
    # An operator of torch decides only in a call whether it loops or uses a kernel.
    found += [
        f"ATen loop of {event.name}"
        for event in within
        if event.name in _LOOPED and not any(map(event.has, fused))
    ]
    graphs = sum(map(_is_graph, within))
    if graphs:
        found.append("inductor graph" if graphs == 1 else f"{graphs} inductor graphs")
    return found or [OPERATIONS]


def _is_graph(event: _Event) -> bool:
    return event.name.startswith(_COMPILED)


def _profiled(run: Callable[[], T]) -> tuple[T, list[_Event]]:
    """Return the result of a call, and those of its events that identify a kernel.

    The events are read as they were recorded. A loop of a thousand time steps has a
    hundred thousand of them, and the profiler's own summary takes ten seconds to sort.
    """
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        found = run()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    telling = {*_FUSED, *_LOOPED, _LAYER_CALL}
    events = [
        _Event(name, event.start_ns(), event.start_ns() + event.duration_ns())
        for event in profiler.profiler.kineto_results.events()
        if (name := event.name()) in telling or name.startswith(_COMPILED)
    ]
    return found, events
