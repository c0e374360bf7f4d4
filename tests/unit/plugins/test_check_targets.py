"""What `rnn-harness check` certifies for the targets on its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import MisuseError
from harness.registry import Registry
from harness.run.certify import CheckRequest, cells_of, implementations_of
from harness.scaffold import NewPlugin, write_plugin
from tests import helpers
from tests.helpers import REGISTRY

MIN_GRU = helpers.PLUGINS / "min_gru.py"


@pytest.fixture
def ugrnn(tmp_path: Path) -> Path:
    file = tmp_path / "ugrnn.py"
    return write_plugin(NewPlugin("cell", "ugrnn", file=file), REGISTRY)


def pairs(registry: Registry, request: CheckRequest) -> list[tuple[str, str]]:
    return [(t.implementation, t.cell) for t in request.trials(registry)]


def test_a_cell_without_an_implementation_in_its_file_uses_the_built_in_ones(
    ugrnn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers.without_modules(monkeypatch, "jax")
    registry = Registry.discover([ugrnn, MIN_GRU])
    assert cells_of(registry, [ugrnn]) == ("ugrnn",)
    assert implementations_of(registry, [ugrnn]) == ()
    request = CheckRequest((), cells=("ugrnn",))
    loops = ("torch-loop", "torch-compile", "tensorflow-loop")
    assert sorted(pairs(registry, request)) == sorted((n, "ugrnn") for n in loops)


def test_a_cell_with_an_implementation_in_its_file_uses_that_alone() -> None:
    registry = Registry.discover([MIN_GRU])
    assert cells_of(registry, [MIN_GRU]) == ()
    assert implementations_of(registry, [MIN_GRU]) == ("torch-parallel",)


def test_an_expression_selects_some_of_the_named_targets(ugrnn: Path) -> None:
    registry = Registry.discover([ugrnn])
    names = ("numpy-reference",)
    request = CheckRequest(names, expression="gru or lstm")
    both = [("numpy-reference", "gru"), ("numpy-reference", "lstm")]
    assert pairs(registry, request) == both
    with pytest.raises(MisuseError, match="did you mean 'lstm'"):
        CheckRequest(names, expression="lstn").trials(registry)


def test_a_target_that_is_named_twice_is_certified_once() -> None:
    request = CheckRequest(("numpy-reference",), cells=("gru",), expression="gru")
    assert pairs(REGISTRY, request).count(("numpy-reference", "gru")) == 1


def test_having_nothing_to_certify_is_reported(
    ugrnn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = ("torch", "tensorflow", "jax", "keras", "onnx", "onnxruntime")
    helpers.without_modules(monkeypatch, *absent)
    code, out, err = helpers.call(["check", str(ugrnn)], monkeypatch, capsys)
    assert (code, out) == (5, "")
    assert "no implementation that is available here computes ugrnn" in err
    command = ["check", "numpy-reference", "-k", "gru and lstm"]
    code, out, err = helpers.call(command, monkeypatch, capsys)
    assert (code, out) == (5, "")
    assert "-k 'gru and lstm' leaves nothing to certify" in err
