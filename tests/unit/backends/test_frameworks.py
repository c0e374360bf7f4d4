"""Run `tests/frameworks` in one process for each framework that disturbs others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.machine.pinning import worker_environment
from tests import helpers
from tests.frameworks.backends import BACKENDS, Backend
from tests.helpers import REGISTRY

FOLDER = "tests/frameworks"


@pytest.mark.slow
@pytest.mark.timeout(3600)  # the inner tests have their own timeout
@pytest.mark.usefixtures("whole_work")
@pytest.mark.parametrize(
    "selected", ["not long", pytest.param("long", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.framework)
def test_a_backend_passes_its_tests_in_its_own_process(
    backend: Backend, selected: str
) -> None:
    """Run them with the environment of a worker; skip a missing framework."""
    reason = REGISTRY.unavailable(backend.implementations[0])
    if reason is not None:
        pytest.skip(reason)
    framework = REGISTRY.frameworks[backend.framework]
    options = ["--framework", backend.framework, "-q", "-p", "no:cacheprovider"]
    options += ["-m", selected]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", FOLDER, *options],
        cwd=helpers.ROOT,
        env={**worker_environment(1), **framework.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    if done.returncode != 0:
        pytest.fail(f"in {FOLDER}:\n{done.stdout}", pytrace=False)
