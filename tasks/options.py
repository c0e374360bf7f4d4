"""Checks of a task's options."""

from __future__ import annotations


def whole_number(task: str, name: str, value: int, *, at_least: int) -> int:
    """Return a value that is a whole number and large enough.

    Raises:
        ValueError: If it is of another type, such as `True`, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(
            f"{task}: {name} must be a whole number of at least {at_least}, "
            f"not {value!r}"
        )
    return value
