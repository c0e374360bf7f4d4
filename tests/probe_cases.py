"""What must hold for the device probe of every framework, on a CPU and a GPU."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from harness.contract import DeviceProbe
from harness.errors import RefusedError, UnavailableError
from harness.loading import load_probe
from harness.machine.peak import fastest_s
from tests.helpers import REGISTRY

FASTEST_FLOP_PER_S = 1e13
"""No CPU reaches it with one thread; a product that is not waited for seems to."""


def load(framework: str, device: str = "cpu") -> DeviceProbe:
    probe = load_probe(REGISTRY, framework, device)
    assert probe is not None
    return probe


def assert_waits_and_reports_nothing_about_a_gpu(framework: str, *dtypes: str) -> None:
    probe = load(framework)
    for dtype in dtypes:
        call_s = fastest_s(probe.matmul(1024, dtype, "highest"))
        assert 2 * 1024**3 / call_s < FASTEST_FLOP_PER_S
    copy_s = fastest_s(probe.copy(2**26))
    assert 2 * 2**26 / copy_s < FASTEST_FLOP_PER_S
    assert probe.peak_bytes() is None
    probe.reset_peak()
    assert probe.timer() is None


def assert_multiplies(framework: str, precision: str, dtype: str) -> None:
    """Assert that a call for a float32 network multiplies matrices of a dtype."""
    call = load(framework).matmul(64, "float32", precision)
    used = inspect.getclosurevars(call).nonlocals
    for matrix in (used["a"], used["b"]):
        assert tuple(matrix.shape) == (64, 64)
        assert re.search(rf"\b{dtype}\b", str(matrix.dtype))
        assert float(matrix[0, 0]) != float(matrix[0, 1])
    call()


def assert_tries_subnormal_numbers(framework: str) -> None:
    """XLA and TensorFlow set them to zero; torch and numpy do not unless asked to."""
    found = load(framework).flushes_subnormals()
    assert found is (framework in ("jax", "tensorflow"))


def assert_refuses(framework: str, precision: str) -> None:
    with pytest.raises(RefusedError, match=f", not at {precision}|TF32 is"):
        load(framework).matmul(64, "float32", precision)


def assert_reports_a_missing_gpu(framework: str) -> None:
    with pytest.raises(UnavailableError, match="cuda:0 is not there"):
        load(framework, "cuda:0")


def assert_reports_a_gpu(framework: str) -> None:
    probe = load(framework, "cuda:0")
    probe.reset_peak()
    call = probe.matmul(2048, "float32", "highest")
    call()
    peak_bytes = probe.peak_bytes()
    assert peak_bytes is not None
    assert peak_bytes >= 3 * 4 * 2048**2
    timer = probe.timer()
    if timer is not None:
        timer.start()
        call()
        device_s = timer.stop()
        assert 2 * 2048**3 / 2e15 < device_s < 10


def assert_reports_builds(
    probe: DeviceProbe, function: Callable[[Any], Any], first: Any, other: Any
) -> None:
    """Call a compiled function with two arguments of different shapes."""
    for argument in (first, other):
        before = probe.state().builds
        function(argument)
        built = probe.state().builds
        assert built > before
        for _ in range(3):
            function(argument)
        assert probe.state().builds == built
