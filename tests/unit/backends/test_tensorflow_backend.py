"""The TensorFlow backend, in a process of its own: `tests/frameworks/tensorflow`."""

from __future__ import annotations

import pytest

from tests.framework_process import run_framework_tests


@pytest.mark.slow
@pytest.mark.timeout(900)  # the inner tests have their own
def test_the_backend_does_what_its_own_tests_ask() -> None:
    run_framework_tests("tensorflow-keras")
