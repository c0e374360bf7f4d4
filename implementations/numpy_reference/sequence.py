"""Run a cell's step over a sequence, and its backward step back through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from harness.contract import Array, Saved, State, Weights


class StepLayer(Protocol):
    """One time step forward, and back, of a layer, in the dtype it is given."""

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """As `ReferenceCell.step`."""

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """As `ReferenceCell.step_backward`."""


@dataclass(frozen=True)
class Trace:
    """What the way forward leaves for the way back."""

    saved: list[Any]
    active: Array | None


def run_forward(
    cell: StepLayer, weights: Weights, x: Array, state: State, active: Array | None
) -> tuple[Array, State, Trace]:
    """Run one layer over x [time, batch, input].

    A sequence that has ended (`active` [time, batch, 1] is False) holds its state and
    answers zero; None means that every sequence is active throughout.

    Returns:
        Outputs [time, batch, hidden], the final state and the trace for the way back.
    """
    saved = []
    outputs = np.empty((len(x), *state[0].shape), dtype=state[0].dtype)
    for t, x_t in enumerate(x):
        new, kept = cell.step(weights, x_t, state)
        saved.append(kept)
        if active is None:
            state, outputs[t] = new, new[0]
        else:
            state = tuple(
                np.where(active[t], a, b) for a, b in zip(new, state, strict=True)
            )
            outputs[t] = new[0] * active[t]
    return outputs, state, Trace(saved, active)


def run_backward(
    cell: StepLayer,
    weights: Weights,
    trace: Trace,
    d_outputs: Array,
    d_final: State,
) -> tuple[Weights, Array, list[State]]:
    """Pull cotangents of the outputs and of the final state back through one layer.

    Args:
        cell: The recurrence that ran.
        weights: The layer's canonical weights.
        trace: What `run_forward` returned.
        d_outputs: Cotangents of the outputs [time, batch, hidden].
        d_final: Cotangents of the final state, parts [batch, hidden].

    Returns:
        Gradients of the weights, of x [time, batch, input], and the total derivative
        for the state after t time steps, t from 0 to time.
    """
    d_weights = {name: np.zeros_like(tensor) for name, tensor in weights.items()}
    d_x = [d_outputs] * len(trace.saved)
    d_states = [d_final] * (len(trace.saved) + 1)
    d_state = d_final
    for t in reversed(range(len(trace.saved))):
        active = None if trace.active is None else trace.active[t]
        d_output = d_outputs[t] if active is None else d_outputs[t] * active
        d_state = (d_state[0] + d_output, *d_state[1:])
        d_states[t + 1] = d_state
        through = d_state if active is None else tuple(d * active for d in d_state)
        d_w, d_x[t], before = cell.step_backward(weights, trace.saved[t], through)
        for name, d_tensor in d_w.items():
            d_weights[name] += d_tensor
        if active is not None:
            # Where the sequence had ended, the state was only handed on.
            before = tuple(
                b + d * ~active for b, d in zip(before, d_state, strict=True)
            )
        d_state = before
    d_states[0] = d_state
    return d_weights, np.stack(d_x), d_states
