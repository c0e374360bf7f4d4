"""A framework with a broken installation is unavailable, with the real reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.contract import Inputs, NetworkSpec, Readout, Target
from harness.errors import PluginError, UnavailableError
from harness.loading import build_network, load_cell
from harness.registry import Registry
from tests import helpers

PLUGIN = """\
from harness import declare_framework, declare_implementation

declare_framework("tidal", modules=["tidalflow"], extra="tidal")
declare_implementation(
    "tidal-gru", framework="tidal", cells=["gru"], factory="tidal_plugin:network"
)

def network(spec, cell, device):
    import tidalflow

    return tidalflow.network()
"""

SPEC = NetworkSpec(
    cell="gru",
    inputs=Inputs("reals", 2),
    hidden_size=4,
    output_size=1,
    readout=Readout.LAST,
    target=Target.REAL,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    helpers.write(tmp_path / "tidal_plugin.py", PLUGIN)
    sys.path.append(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tidalflow", raising=False)
    return tmp_path


def build(folder: Path) -> None:
    registry = Registry.discover([folder / "tidal_plugin.py"])
    assert registry.problems == []
    assert registry.unavailable("tidal-gru") is None  # as the module can be found
    build_network(registry, "tidal-gru", SPEC, load_cell(registry, "gru"), "cpu")


def a_package(folder: Path, text: str) -> None:
    (folder / "tidalflow").mkdir()
    helpers.write(folder / "tidalflow" / "__init__.py", text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "raise ImportError('libtidal.so.3: cannot open shared object file')",
            "ImportError: libtidal.so.3: cannot open shared object file",
        ),
        ("import tidalflow.gone", "ModuleNotFoundError: No module named 'tidal"),
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("version = 1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_import_that_fails_half_way_is_unavailable_with_its_reason(
    folder: Path, text: str, reason: str
) -> None:
    a_package(folder, text)
    with pytest.raises(UnavailableError) as raised:
        build(folder)
    assert reason in str(raised.value)
    assert raised.value.plugin == "tidal-gru"
    assert "'tidalflow' is installed but cannot be imported" in str(raised.value)


def test_an_error_after_the_import_is_reported_as_that_of_the_plugin(
    folder: Path,
) -> None:
    a_package(folder, "def network():\n    raise RuntimeError('tide is out')")
    with pytest.raises(PluginError) as raised:
        build(folder)
    assert not isinstance(raised.value, UnavailableError)
    assert "RuntimeError: tide is out" in str(raised.value)
