"""Mistakes in what a network starts from: the given state, or zeros where none is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from harness.contract import Array, CellInfo, State

Starts = tuple[State, State | None]
"""What a network starts from where a state is given, and where none is."""


def given_states(info: CellInfo, state: State) -> Iterator[tuple[str, Starts]]:
    """Yield mistakes, and what each network with one starts from."""
    names, parts = info.state_parts, range(len(state))
    zeros = tuple(np.zeros_like(part) for part in state)
    ones = tuple(np.ones_like(part) for part in state)
    yield "the initial state is ignored", (zeros, None)
    yield "it starts at ones where no state is given", (state, ones)
    for k in parts if len(state) > 1 else ():
        words = f"the given state {names[k]} is ignored"
        yield words, (_with(state, k, zeros), None)
        words = f"{names[k]} starts at ones where no state is given"
        yield words, (state, _with(zeros, k, ones))
    for k in parts:
        given = f"the given state {names[k]}"
        tanh = tuple(map(np.tanh, state))
        yield (
            f"matches if {given} goes through tanh first",
            (_with(state, k, tanh), None),
        )
        double = tuple(2 * part for part in state)
        yield f"matches if {given} is counted twice", (_with(state, k, double), None)
        for other in parts:
            if other != k:
                words = f"{given} is used for {names[other]} too"
                same = [state[k]] * len(state)
                yield words, (_with(state, other, same), None)
    if len(state) > 1:
        words = f"the given states {' and '.join(names)} are exchanged"
        yield words, (state[::-1], None)


def _with(state: State, part: int, other: Sequence[Array]) -> State:
    """Return a state with one part taken from another state."""
    return tuple(other[k] if k == part else s for k, s in enumerate(state))
