"""Test one framework in each process: `pytest tests/frameworks --framework jax`.

Nothing here is collected without `--framework`: frameworks disturb each other. The
files of `one_framework` test what only one framework, or only Keras, has.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.backends import LONG_FOR, ONLY_FOR, Backend


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--framework", help="whose backend to test in this process")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of other frameworks."""
    # The option is unknown if this folder is not named on the command line.
    framework = config.getoption("--framework", None)
    here = ONLY_FOR.get(collection_path.name, [framework])
    return True if framework is None or framework not in here else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test for each implementation, cell or layer that a backend lists for it."""
    backend = Backend.of(metafunc.config.getoption("--framework"))
    if "implementation" in metafunc.fixturenames:
        long = metafunc.function.__name__ in LONG_FOR.get(backend.framework, [])
        marks = [pytest.mark.long] if long else []
        every = [pytest.param(name, marks=marks) for name in backend.implementations]
        metafunc.parametrize("implementation", every)
    if "template_cell" in metafunc.fixturenames:
        metafunc.parametrize("template_cell", backend.template_cells)
    if "wrong_form" in metafunc.fixturenames:
        metafunc.parametrize("wrong_form", backend.layers.WRONG_FORMS)
    if "wrong_answer" in metafunc.fixturenames:
        metafunc.parametrize("wrong_answer", backend.layers.WRONG_ANSWERS)


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    return Backend.of(request.config.getoption("--framework"))
