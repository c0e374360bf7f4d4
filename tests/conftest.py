"""The order of tests, and caches and paths that tests do not share."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What the assertions of these compare is shown, as it is for a test file.
for _name in ("backend", "difference", "probe", "template"):
    pytest.register_assert_rewrite(f"tests.{_name}_cases")
pytest.register_assert_rewrite("tests.helpers", "tests.planted")


@pytest.hookimpl(tryfirst=True)  # xdist then reads the groups
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Begin with slow tests, so that no worker of xdist ends long after the others.

    Tests that share a fixture of their module run in one worker, others in any.
    """
    units = {item: _module_shared(item) or item.nodeid for item in items}
    slow = {units[item] for item in items if item.get_closest_marker("slow")}
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        if units[item] != item.nodeid:
            item.add_marker(pytest.mark.xdist_group(units[item]))
    items.sort(key=lambda item: units[item] not in slow)


def _module_shared(item: pytest.Item) -> str | None:
    """Return the module of a test with a fixture of module scope, or None."""
    module = item.nodeid.partition("::")[0]
    known = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
    of_module = [f for found in known for f in found if f.baseid == module]
    return module if any(f.scope != "function" for f in of_module) else None


# Drawing a value may take long on a busy machine. Each run draws the same values.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

# The config and the cache of the user are in the user's folders. Tests, and the
# commands that they start, use other folders.
_FOLDER = tempfile.TemporaryDirectory(prefix="rnn-harness-tests-")
atexit.register(_FOLDER.cleanup)
os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = _FOLDER.name

# JAX compiles a program once for all tests, however often they build it. Workers of
# xdist and tests that run pytest themselves inherit the folder.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{_FOLDER.name}/jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give each test its own cache, which holds costs of trials and certificates."""
    before = os.environ["XDG_CACHE_HOME"]
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ["XDG_CACHE_HOME"] = before


own_cache = pytest.fixture(autouse=True)(_own_cache)
cache_of_module = pytest.fixture(autouse=True, scope="module")(_own_cache)


def _own_path() -> Iterator[None]:
    """Remove the folders that reading plugin files puts on the path."""
    before = [*sys.path]
    yield
    sys.path[:] = before


own_path = pytest.fixture(autouse=True)(_own_path)
path_of_module = pytest.fixture(autouse=True, scope="module")(_own_path)


SMALL_WORK = Path(__file__).parent / "small_work"


@pytest.fixture(autouse=True, scope="module")
def small_work() -> Iterator[None]:
    """Certify at two shapes, measure the machine with small arrays, draw no figures.

    It is so in the processes that tests start. A whole certificate takes many seconds:
    the tests of certificates make it in their own process, or ask for `whole_work`.
    """
    path = filter(None, (str(SMALL_WORK), os.environ.get("PYTHONPATH")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        yield


@pytest.fixture
def whole_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certify at all shapes and draw figures, as users do, in processes of a test."""
    path = os.environ["PYTHONPATH"].split(os.pathsep)
    path.remove(str(SMALL_WORK))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
