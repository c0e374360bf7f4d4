"""The JAX backend, in processes of its own: `tests/frameworks/jax` and `keras_jax`."""

from __future__ import annotations

import pytest

from tests.framework_process import run_framework_tests


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("implementation", ["jax-scan", "keras-jax"])
def test_the_backend_does_what_its_own_tests_ask(implementation: str) -> None:
    run_framework_tests(implementation)
