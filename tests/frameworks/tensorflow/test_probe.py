"""What TensorFlow's device probe measures with."""

from __future__ import annotations

import subprocess
import sys

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


def test_what_is_traced_is_told_and_what_runs_again_is_not() -> None:
    probe = cases.load("tensorflow")
    double = tf.function(lambda x: 2 * x)
    cases.assert_tells_what_is_built(probe, double, tf.ones(2), tf.ones(3))
    # What is freed at once is told, too.
    before = probe.state()
    tf.function(lambda x: 2 * x)(tf.ones(2))
    assert probe.state().builds > before.builds


SET = """\
import tensorflow as tf
from tests import probe_cases as cases
probe = cases.load("tensorflow")
print(probe.state().threads)
tf.config.threading.set_intra_op_parallelism_threads(3)
tf.ones(2)
print(probe.state().threads)
"""


def test_threads_are_told_where_somebody_has_set_them() -> None:
    found = subprocess.check_output([sys.executable, "-c", SET], text=True)
    assert found.split() == ["None", "3"]


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="no CUDA device")
def test_a_gpu_tells_its_peak() -> None:
    cases.assert_sees_a_gpu("tensorflow")
