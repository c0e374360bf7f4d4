"""What every test leaves as it found it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator

import pytest

# Environments are chosen in the user's folder; tests and the commands they start have
# one of their own.
_FOLDER = tempfile.TemporaryDirectory(prefix="rnn-harness-tests-")
os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = _FOLDER.name


def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What trials cost and certificates are remembered there: not by other tests."""
    before = os.environ["XDG_CACHE_HOME"]
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ["XDG_CACHE_HOME"] = before


own_cache = pytest.fixture(autouse=True)(_own_cache)
cache_of_module = pytest.fixture(autouse=True, scope="module")(_own_cache)


def _own_path() -> Iterator[None]:
    """Reading a plugin file puts its folder on the path; take it off again."""
    before = [*sys.path]
    yield
    sys.path[:] = before


own_path = pytest.fixture(autouse=True)(_own_path)
path_of_module = pytest.fixture(autouse=True, scope="module")(_own_path)
