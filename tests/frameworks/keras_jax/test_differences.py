"""Finite differences of keras-jax, which computes in float32 alone."""

from __future__ import annotations

import pytest

from tests.difference_cases import dtype_of_differences


def test_differences_are_taken_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dtype_of_differences("keras-jax", monkeypatch) == "float32"
