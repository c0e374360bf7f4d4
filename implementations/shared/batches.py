"""Checks of what enters a network, and the form in which every backend takes it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.contract import Array, Batch, NetworkSpec, State, Target, Weights
from harness.errors import InputError


def encode(spec: NetworkSpec, inputs: Array) -> Array:
    """Return reals in the network's dtype, one-hot vectors, or tokens to embed."""
    if spec.inputs.kind == "reals":
        return np.ascontiguousarray(inputs, spec.dtype)
    if spec.inputs.embedded:
        return np.ascontiguousarray(inputs)
    return np.eye(spec.inputs.size, dtype=spec.dtype)[inputs]


def running(batch: Batch) -> Array:
    """Return bool [time, batch], False from a sequence's end on."""
    return np.arange(batch.time_steps)[:, None] < batch.lengths


def check_batch(spec: NetworkSpec, batch: Batch) -> None:
    """Check inputs, lengths, targets and scored positions against a network.

    Raises:
        InputError: Naming what does not fit, and what would.
    """
    check_inputs(spec, batch.inputs, dimensions=2)
    size, time_steps = batch.inputs.shape[:2]
    if size == 0 or time_steps == 0:
        raise InputError(
            f"inputs have shape {batch.inputs.shape}; a batch needs at least 1 "
            "sequence and 1 time step"
        )
    _check_shape("lengths", batch.lengths, (size,))
    _check_integers("lengths", batch.lengths, range(1, time_steps + 1), "time steps")
    positions = (size, spec.readouts(time_steps))
    _check_shape("scored", batch.scored, positions)
    if batch.scored.dtype != bool or not batch.scored.any():
        raise InputError(
            f"scored must be bool with at least one True; it is {batch.scored.dtype} "
            f"with {int(np.count_nonzero(batch.scored))}"
        )
    if spec.target is Target.CLASS:
        _check_shape("targets", batch.targets, positions)
        _check_integers("targets", batch.targets, range(spec.output_size), "classes")
    else:
        _check_shape("targets", batch.targets, (*positions, spec.output_size))
        _check_finite_reals("targets", batch.targets, spec.dtype)


def check_state(spec: NetworkSpec, parts: int, state: State, batch: int) -> None:
    """Check a state: `parts` arrays [layers, batch, hidden].

    Raises:
        InputError: Naming what does not fit, and what would.
    """
    if len(state) != parts:
        raise InputError(f"the state has {len(state)} parts; expected {parts}")
    for part in state:
        _check_shape("the state", part, (spec.num_layers, batch, spec.hidden_size))
        _check_finite_reals("the state", part, spec.dtype)


def check_cotangents(
    spec: NetworkSpec, parts: int, d_outputs: Array, d_final: State, time_steps: int
) -> None:
    """Check cotangents of outputs [batch, readouts, output] and of a final state.

    Raises:
        InputError: Naming what does not fit, and what would.
    """
    check_state(spec, parts, d_final, d_outputs.shape[0])
    expected = (len(d_outputs), spec.readouts(time_steps), spec.output_size)
    _check_shape("cotangents of the outputs", d_outputs, expected)
    _check_finite_reals("cotangents of the outputs", d_outputs, spec.dtype)


def check_weights(
    shapes: Mapping[str, tuple[int, ...]], weights: Weights, dtype: str
) -> None:
    """Check names, shapes, dtype and values of canonical weights.

    Args:
        shapes: The shape of every weight by name.
        weights: Reals within the range of `dtype`.
        dtype: The dtype in which the network computes.

    Raises:
        InputError: Naming what does not fit, and what would.
    """
    for name in shapes:
        if name not in weights:
            raise InputError(f"weight '{name}' is missing; shape {shapes[name]}")
    for name, tensor in weights.items():
        if name not in shapes:
            raise InputError(
                f"weight '{name}' is unknown; expected {', '.join(shapes)}"
            )
        _check_shape(f"weight '{name}'", tensor, shapes[name])
        _check_finite_reals(f"weight '{name}'", tensor, dtype)


def check_inputs(spec: NetworkSpec, inputs: Array, *, dimensions: int) -> None:
    """Check reals [..., input] or tokens [...]; ... are [batch] or [batch, time].

    Raises:
        InputError: Naming what does not fit, and what would.
    """
    before = ("batch", "time")[:dimensions]
    if spec.inputs.kind == "tokens":
        if inputs.ndim != dimensions:
            wanted = ", ".join(before)
            raise InputError(
                f"tokens have shape {inputs.shape}; expected [{wanted}], integers"
            )
        _check_integers("tokens", inputs, range(spec.inputs.size), "symbols")
        return
    if inputs.ndim != dimensions + 1 or inputs.shape[-1] != spec.inputs.size:
        wanted = ", ".join((*before, str(spec.inputs.size)))
        raise InputError(f"inputs have shape {inputs.shape}; expected [{wanted}]")
    _check_finite_reals("inputs", inputs, spec.dtype)


def _check_shape(what: str, found: Array, expected: tuple[int, ...]) -> None:
    if found.shape != expected:
        raise InputError(f"{what}: shape {found.shape}; expected {expected}")


def _check_integers(what: str, found: Array, allowed: range, kind: str) -> None:
    if not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"{what} must be integers, not {found.dtype}")
    if found.size and (found.min() < allowed[0] or found.max() > allowed[-1]):
        raise InputError(
            f"{what} run from {found.min()} to {found.max()}; with {len(allowed)} "
            f"{kind} allowed are {allowed[0]} to {allowed[-1]}"
        )


def _check_finite_reals(what: str, found: Array, dtype: str) -> None:
    """Check that reals are finite, also in the network's dtype."""
    if not np.issubdtype(found.dtype, np.floating):
        raise InputError(f"{what} must be floating-point numbers, not {found.dtype}")
    with np.errstate(over="ignore"):
        finite = np.isfinite(found.astype(dtype, copy=False))
    if finite.all():
        return
    place = tuple(int(i) for i in np.argwhere(~finite)[0])
    number, why = found[place], "; every number must be finite"
    if np.isfinite(number):
        largest = np.finfo(dtype).max
        why = f", which {dtype} cannot hold; its largest number is {largest:.3g}"
    raise InputError(f"{what} holds {number} at {list(place)}{why}")
