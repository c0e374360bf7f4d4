"""Tests that run side by side make a fixture of a module once."""

import pytest


@pytest.fixture(scope="module")
def shared() -> object:
    return object()


def test_tests_that_share_a_fixture_run_in_one_worker(
    shared: object, request: pytest.FixtureRequest
) -> None:
    """Pytest 9.2 with pytest-xdist 3.8 drops the groups and says nothing."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("these tests run one after the other")
    assert "@" in request.node.nodeid
