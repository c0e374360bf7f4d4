"""A cell's step over a sequence, and its backward step back through the sequence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.contract import Array, Saved, State, Steps, Weights


def run_forward(
    cell: Steps, weights: Weights, x: Array, state: State, active: Array | None
) -> tuple[Array, State, list[Saved]]:
    """Run one layer over x [time, batch, input].

    From the end of a sequence on, where `active` [time, batch, 1] is False, its state
    does not change and its output is zero. `active` is None if no sequence is padded.

    Returns:
        Outputs [time, batch, hidden], the final state, and what each time step has
        saved for the backward pass.
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
    return outputs, state, saved


def run_backward(
    cell: Steps,
    weights: Weights,
    saved: Sequence[Saved],
    active: Array | None,
    d_outputs: Array,
    d_final: State,
    *,
    answers: bool,
) -> tuple[Weights, Array, list[State]]:
    """Pull cotangents of the outputs and of the final state back through one layer.

    Args:
        cell: The recurrence that ran.
        weights: The layer's canonical weights.
        saved: What each time step has saved.
        active: As in `run_forward`.
        d_outputs: Cotangents of the outputs [time, batch, hidden].
        d_final: Cotangents of the final state, parts [batch, hidden].
        answers: Whether the readout reads the outputs, and no layer above does.

    Returns:
        Gradients of the weights, of x [time, batch, input], and the gradient for the
        state after t time steps, t from 0 to time. What continues from that state does
        not compute its time step again: the layer above has taken its input of step t,
        but an answer of step t is read from the state.
    """
    d_weights = {name: np.zeros_like(tensor) for name, tensor in weights.items()}
    d_x = [d_outputs] * len(saved)
    d_states = [d_final] * (len(saved) + 1)
    d_state = d_final
    for t in reversed(range(len(saved))):
        runs = None if active is None else active[t]
        d_output = d_outputs[t] if runs is None else d_outputs[t] * runs
        continued, d_state = d_state, (d_state[0] + d_output, *d_state[1:])
        d_states[t + 1] = d_state if answers else continued
        through = d_state if runs is None else tuple(d * runs for d in d_state)
        d_w, d_x[t], before = cell.step_backward(weights, saved[t], through)
        for name, d_tensor in d_w.items():
            d_weights[name] += d_tensor
        if runs is not None:
            # Beyond its end a sequence's state did not change.
            before = tuple(b + d * ~runs for b, d in zip(before, d_state, strict=True))
        d_state = before
    d_states[0] = d_state
    return d_weights, np.stack(d_x), d_states
