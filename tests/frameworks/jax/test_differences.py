"""Finite differences of jax-scan."""

from __future__ import annotations

import pytest

from tests.difference_cases import dtype_of_differences


def test_differences_are_taken_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dtype_of_differences("jax-scan", monkeypatch) == "float64"
