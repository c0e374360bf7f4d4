"""Limit every library to one thread before any of them is imported."""

import os
import sys

import psutil
import pytest

from harness.machine.pinning import pinned_variables

THREADS = 1
_HEAVY = ("torch", "tensorflow", "jax")

PINNED = not any(name in sys.modules for name in _HEAVY)
if PINNED and "--benchmark-only" in sys.argv:  # not for the tests in these files
    os.environ.update(pinned_variables(THREADS))
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@pytest.fixture
def users_cache(own_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the cache of the user, which no other test does."""
    started_with = psutil.Process().environ()
    monkeypatch.setenv("XDG_CACHE_HOME", started_with.get("XDG_CACHE_HOME", ""))


@pytest.fixture(autouse=True)
def _one_thread(request: pytest.FixtureRequest) -> None:
    if not PINNED and request.config.getoption("benchmark_only", default=False):
        pytest.fail("a framework was imported before its threads were pinned")
