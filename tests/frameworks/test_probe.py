"""The device probe of a framework."""

from __future__ import annotations

import numpy as np
import pytest

from tests import probe_cases as cases
from tests.frameworks.backends import Backend


def test_calls_wait_and_report_nothing_about_a_gpu_on_the_cpu(
    backend: Backend,
) -> None:
    if backend.on_gpu():
        pytest.skip("there is a CUDA device")
    framework = backend.framework
    cases.assert_waits_and_reports_nothing_about_a_gpu(framework, "float32", "float64")
    cases.assert_refuses(framework, "tf32")
    cases.assert_tries_subnormal_numbers(framework)
    cases.assert_reports_a_missing_gpu(framework)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("highest", "float32"), ("bf16", "bfloat16")]
)
def test_the_probe_multiplies_matrices_of_the_right_dtype(
    backend: Backend, precision: str, dtype: str
) -> None:
    cases.assert_multiplies(backend.framework, precision, dtype)


def test_compiling_is_reported_and_a_second_call_is_not(backend: Backend) -> None:
    double = backend.compiled(lambda x: 2 * x)
    first, other = np.ones(2, np.float32), np.ones(3, np.float32)
    cases.assert_reports_builds(cases.load(backend.framework), double, first, other)


@pytest.mark.gpu
def test_a_gpu_reports_its_peak(backend: Backend) -> None:
    if not backend.on_gpu():
        pytest.skip("no CUDA device")
    cases.assert_reports_a_gpu(backend.framework)
