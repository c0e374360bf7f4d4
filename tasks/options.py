"""Checks of what a task is given."""

from __future__ import annotations


def whole_number(task: str, name: str, value: int, *, at_least: int) -> int:
    """Return a value that is a whole number and large enough.

    Raises:
        ValueError: If it is another type, `True` included, or smaller.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(
            f"{task}: {name} must be a whole number of at least {at_least}, "
            f"not {value!r}"
        )
    return value
