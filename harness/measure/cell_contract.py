"""Does a cell satisfy its contract? Its initial values and counts agree with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from harness.contract import Cell, LayerSizes, Weights
from harness.errors import PluginError

_SIZES = LayerSizes(input_size=3, hidden_size=5, time_steps=10)


def check_cell(name: str, cell: Cell, schemes: Iterable[str]) -> None:
    """Check the initial values of a cell and the count of its parameters.

    Args:
        name: The declared name.
        cell: The cell.
        schemes: The schemes of initial values that it declares.

    Raises:
        PluginError: If equal generators give different values, or the names, shapes
            and counts of the weights contradict each other.
    """
    problem = next(_problems(cell, schemes), None)
    if problem is not None:
        raise PluginError(name, problem)


def _problems(cell: Cell, schemes: Iterable[str]) -> Iterator[str]:
    shapes = cell.weight_shapes(_SIZES.input_size, _SIZES.hidden_size)
    where = f"for {_SIZES.input_size} inputs and {_SIZES.hidden_size} units"
    for scheme in schemes:
        try:
            one, other = (_drawn(cell, scheme) for _ in range(2))
        except Exception:  # it is reported where a trial draws the values
            continue
        found = {weight: tensor.shape for weight, tensor in one.items()}
        if found != {weight: tuple(shape) for weight, shape in shapes.items()}:
            yield (
                f"initial_weights('{scheme}') has the shapes {found} {where}, and "
                f"weight_shapes says {shapes}; both must be the same"
            )
        for weight, tensor in one.items():
            if not np.array_equal(tensor, other.get(weight, ()), equal_nan=True):
                yield (
                    f"initial_weights('{scheme}') differs in {weight} between two "
                    "calls with equal generators; draw all that is random from the "
                    "rng that it is given"
                )
    count = sum(map(math.prod, shapes.values()))
    said = cell.parameter_counts(_SIZES.input_size, _SIZES.hidden_size)
    if said.get("canonical") != count:
        yield (
            f"parameter_counts says canonical: {said.get('canonical')} {where}, and "
            f"the weights of weight_shapes have {count} numbers; both must be the same"
        )


def _drawn(cell: Cell, scheme: str) -> Weights:
    weights = cell.initial_weights(scheme, np.random.default_rng(0), _SIZES)
    return {name: np.array(tensor) for name, tensor in weights.items()}
