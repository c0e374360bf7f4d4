"""What TensorFlow's device probe measures with."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tests import probe_cases as cases

ON_GPU = bool(tf.config.list_physical_devices("GPU"))


@pytest.mark.skipif(ON_GPU, reason="there is a CUDA device")
def test_calls_wait_and_tell_nothing_of_a_gpu_that_is_not_there() -> None:
    cases.assert_waits_and_tells_nothing_of_a_gpu("tensorflow", "float32", "float64")
    cases.assert_refuses("tensorflow", "tf32")
    cases.assert_misses_a_gpu("tensorflow")


def test_bfloat16_is_multiplied() -> None:
    cases.load("tensorflow").matmul(64, "float32", "bf16")()


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="no CUDA device")
def test_a_gpu_tells_its_peak() -> None:
    cases.assert_sees_a_gpu("tensorflow")
