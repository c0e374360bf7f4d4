"""What every test leaves as it found it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


def _own_path() -> Iterator[None]:
    """Reading a plugin file puts its folder on the path; take it off again."""
    before = [*sys.path]
    yield
    sys.path[:] = before


own_path = pytest.fixture(autouse=True)(_own_path)
path_of_module = pytest.fixture(autouse=True, scope="module")(_own_path)
