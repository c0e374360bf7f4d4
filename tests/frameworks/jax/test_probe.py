"""What JAX's device probe measures with."""

from __future__ import annotations

import jax
import pytest

from tests import probe_cases as cases

ON_GPU = jax.default_backend() == "gpu"


@pytest.mark.skipif(ON_GPU, reason="there is a CUDA device")
def test_calls_wait_and_tell_nothing_of_a_gpu_that_is_not_there() -> None:
    cases.assert_waits_and_tells_nothing_of_a_gpu("jax", "float32", "float64")
    cases.assert_refuses("jax", "tf32")
    cases.assert_misses_a_gpu("jax")


def test_bfloat16_is_multiplied() -> None:
    cases.load("jax").matmul(64, "float32", "bf16")()


def test_what_is_traced_or_compiled_is_told_and_what_runs_again_is_not() -> None:
    probe = cases.load("jax")
    double = jax.jit(lambda x: 2 * x)
    cases.assert_tells_what_is_built(probe, double, jax.numpy.ones(2), 3.0)
    assert probe.state().threads is None


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="no CUDA device")
def test_a_gpu_tells_its_peak() -> None:
    cases.assert_sees_a_gpu("jax")
