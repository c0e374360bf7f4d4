"""Tests of a framework in a process of its own: frameworks disturb each other.

`tests/frameworks/FRAMEWORK` holds them, hyphens written as underscores; pytest collects
that folder only where it is named on the command line.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.machine.pinning import worker_environment
from harness.registry import Registry

HERE = Path(__file__).resolve().parent


def run_framework_tests(implementation: str) -> None:
    """Run the tests of an implementation's framework; fail with what they printed.

    The process has the environment of a worker: one thread, and the framework's own
    variables. Skipped, with the reason, where the framework is not installed.
    """
    registry = Registry.discover()
    reason = registry.unavailable(implementation)
    if reason is not None:
        pytest.skip(reason)
    framework = registry.framework_of(implementation)
    folder = HERE / "frameworks" / framework.name.replace("-", "_")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(folder), "-q", "-p", "no:cacheprovider"],
        cwd=HERE.parent,
        env={**worker_environment(1), **framework.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    if done.returncode != 0:
        pytest.fail(f"in {folder.relative_to(HERE)}:\n{done.stdout}", pytrace=False)
