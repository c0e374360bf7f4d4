"""What a measurement can be: the range of every unit."""

from __future__ import annotations

import pytest

from harness import quantities
from harness.contract import Quantity


@pytest.mark.parametrize(
    "values",
    [
        quantities.PARITY,
        quantities.LEARNING,
        quantities.GRADIENTS,
        quantities.SPEED,
        quantities.MEMORY,
    ],
)
def test_every_unit_of_a_measure_has_a_range(values: dict[str, Quantity]) -> None:
    for quantity in values.values():
        assert quantities.range_of_unit(quantity.unit) is not quantities.ANY


def test_a_score_of_a_task_has_the_unit_that_the_task_states() -> None:
    """Even if the harness measures something of this name in another unit."""
    for name in ("updates", "error"):
        stated = {name: "nats"}
        assert quantities.range_of("held_out", name, stated) is quantities.ANY
        assert quantities.range_of("readback", name, stated) is not quantities.ANY


@pytest.mark.parametrize("end", [quantities.TIME.least, quantities.TIME.most])
def test_the_ends_of_a_range_are_inside(end: float) -> None:
    assert quantities.TIME.problem([None, end, None]) is None
    said = quantities.TIME.problem([None, end, 2 * quantities.TIME.most])
    assert said == "is 2e+10, but a time in seconds lies between 1e-12 and 1e+10"
