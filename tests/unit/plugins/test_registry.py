import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.conformance import check_call, check_methods
from harness.contract import Task
from harness.declarations import (
    INITS,
    declare_cell,
    declare_framework,
    declare_implementation,
    declare_task,
)
from harness.errors import MisuseError, PluginError, UnavailableError, suggestion
from harness.loading import build_network, load_cell
from harness.registry import Registry
from tests import helpers
from tests.helpers import REGISTRY


def discover(name: str, folder: Path) -> Registry:
    return Registry.discover([helpers.plugin(name, folder)])


# --- names ---------------------------------------------------------------------------


def test_the_registry_has_the_built_in_plugins() -> None:
    assert set(REGISTRY.cells) >= {"rnn", "gru", "gru-reset-before", "lstm"}
    assert set(REGISTRY.tasks) >= {"adding", "copy-memory"}
    assert set(REGISTRY.implementations) >= {"numpy-reference", "torch-native"}
    assert REGISTRY.problems == []


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [
        ("cell", "ltsm", "lstm"),
        ("cell", "gru-reset-befor", "gru-reset-before"),
        ("task", "addin", "adding"),
        ("task", "copy_memory", "copy-memory"),
        ("implementation", "torch-nativ", "torch-native"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(kind: str, name: str, meant: str) -> None:
    with pytest.raises(MisuseError) as raised:
        getattr(REGISTRY, kind)(name)
    assert str(raised.value) == f"unknown {kind} '{name}'; did you mean '{meant}'?"


def test_a_name_that_resembles_no_other_gets_the_list() -> None:
    with pytest.raises(
        MisuseError, match="unknown task 'xyzzy'; known: adding, copy-m"
    ):
        REGISTRY.task("xyzzy")
    assert suggestion("x", []) == "; none is known"


# --- unusable files -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "raises_on_import",
            "RuntimeError: the licence of this plugin has run out "
            "(raises_on_import.py:1)",
        ),
        ("syntax_error", "SyntaxError: '(' was never closed (syntax_error.py:3)"),
        (
            "missing_module",
            "ModuleNotFoundError: No module named 'a_module_nobody_has' "
            "(missing_module.py:1)",
        ),
        ("declares_nothing", "declares nothing; call declare_implementation"),
        (
            "declares_str_cells",
            "implementation 'one-cell': cells must be a list of names, such as "
            "['gru'], or 'equations' or 'reference', not 'gru' "
            "(declares_str_cells.py:3)",
        ),
        ("name_taken", "adding: the task name is taken (built in)"),
        (
            "unknown_framework",
            "my-gru: unknown framework 'troch'; did you mean 'torch'?",
        ),
        ("unknown_cell", "my-lstm: unknown cell 'ltsm'; did you mean 'lstm'?"),
    ],
)
def test_an_unusable_file_is_reported_and_stops_nothing_else(
    name: str, message: str, tmp_path: Path
) -> None:
    file = helpers.plugin(name, tmp_path)
    registry = Registry.discover([file, helpers.PLUGINS / "my_gru.py"])
    (problem,) = registry.problems
    assert message in str(problem)
    assert set(registry.tasks) == set(REGISTRY.tasks)  # a file declares all or nothing
    assert set(registry.cells) == set(REGISTRY.cells)
    assert set(registry.implementations) == {*REGISTRY.implementations, "my-gru"}
    assert registry.implementation("my-gru").framework == "torch"


def test_a_path_that_is_not_a_python_file_is_reported(tmp_path: Path) -> None:
    text = helpers.write(tmp_path / "plugin.txt", "")
    registry = Registry.discover([tmp_path / "none.py", text, tmp_path])
    shown = [str(problem) for problem in registry.problems]
    assert "none.py: no such plugin file" in shown[0]
    assert "plugin.txt: a plugin file must end in .py" in shown[1]
    assert "no such plugin file" in shown[2]


def test_the_error_for_an_unknown_name_mentions_an_unusable_file(
    tmp_path: Path,
) -> None:
    registry = discover("syntax_error", tmp_path)
    with pytest.raises(MisuseError, match=r"unknown cell 'half'.*syntax_error\.py:3"):
        registry.cell("half")


def test_a_file_that_is_given_twice_is_read_once(tmp_path: Path) -> None:
    file = helpers.plugin("my_gru", tmp_path)
    registry = Registry.discover([file, file.parent / "." / file.name])
    assert registry.problems == []
    assert registry.files == (file.resolve(),)


def test_a_file_that_exits_on_import_does_not_end_the_command(tmp_path: Path) -> None:
    file = helpers.write(tmp_path / "leaves.py", "import sys\nsys.exit('bye')\n")
    (problem,) = Registry.discover([file]).problems
    assert str(problem) == "leaves.py: SystemExit: bye (leaves.py:2)"


def test_a_file_that_imports_an_absent_framework_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = "raise ModuleNotFoundError('no torch', name='torch')\n"
    helpers.write(tmp_path / "absent" / "torch.py", missing)
    monkeypatch.syspath_prepend(tmp_path / "absent")
    file = helpers.write(tmp_path / "eager.py", "import torch\n")
    (problem,) = Registry.discover([file]).problems
    assert isinstance(problem, UnavailableError)
    assert "no module 'torch'; pip install 'rnn-harness[torch]'" in str(problem)


@pytest.mark.parametrize(
    "name", ["GRU", "gru_2", "my gru", "-gru", "gru--2", "grü", ""]
)
def test_names_are_lower_case_words_joined_by_hyphens(name: str) -> None:
    with pytest.raises(ValueError, match="use lower-case letters, digits and"):
        declare_cell(name, factory="a:b")


@pytest.mark.parametrize(
    "factory", ["", "module", "module:", ":call", "a:b:c", "a b:c"]
)
def test_a_factory_is_a_module_and_a_callable(factory: str) -> None:
    with pytest.raises(
        ValueError, match="factory must be of the form 'module:callable'"
    ):
        declare_task("mine", factory=factory)


def test_an_implementation_has_a_factory_or_a_layer_and_some_cells() -> None:
    for given in ({}, {"factory": "a:b", "layer": "a:b"}):
        with pytest.raises(ValueError, match="give one of factory, layer and loop"):
            declare_implementation("x", framework="torch", cells=["gru"], **given)
    with pytest.raises(ValueError, match="cells must be a list of names"):
        declare_implementation("x", framework="torch", cells=[], factory="a:b")


@pytest.mark.parametrize(
    "inits",
    ["chrono", [], ["canonical"], ["canonical", "chrono", None], [*INITS, "a\x1bb"]],
)
def test_initial_values_are_names_and_include_those_of_a_certificate(
    inits: Any,
) -> None:
    with pytest.raises(ValueError, match="inits must be a list of names, of lower-"):
        declare_cell("mine", factory="a:b", inits=inits)


# --- absent frameworks ----------------------------------------------------------------


def test_an_absent_framework_is_unavailable_with_the_command_that_installs_it(
    tmp_path: Path,
) -> None:
    registry = discover("absent_framework", tmp_path)
    assert registry.problems == []
    assert registry.unavailable("tidal-gru") == (
        "unavailable: no module 'tidalflow.core'; pip install 'rnn-harness[tidal]'"
    )
    assert registry.unavailable("numpy-reference") is None


def test_building_a_network_of_an_absent_framework_gives_the_same_error(
    tmp_path: Path,
) -> None:
    registry = discover("absent_framework", tmp_path)
    cell = load_cell(registry, "gru")
    with pytest.raises(UnavailableError, match=r"pip install 'rnn-harness\[tidal\]'"):
        build_network(registry, "tidal-gru", object(), cell, "cpu")  # type: ignore[arg-type]


def test_a_missing_submodule_of_an_installed_framework_is_an_error(
    tmp_path: Path,
) -> None:
    text = "import numpy.no_such_part\n"
    (problem,) = Registry.discover([helpers.write(tmp_path / "odd.py", text)]).problems
    assert not isinstance(problem, UnavailableError)
    assert "No module named 'numpy.no_such_part' (odd.py:1)" in str(problem)


# --- entry points --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise ImportError('libgone.so: no such file')", "ImportError: libgone.so"),
        ("thing = 'text'", "their_tasks:thing of theirs is not a declaration"),
        (
            "from harness.declarations import Declaration\n"
            "thing = Declaration('theirs', 'a:b')",
            "their_tasks:thing of theirs is not a declaration",
        ),
        (
            "from harness import declare_task\n"
            "thing = declare_task('adding', factory='a:b')",
            "the task name is taken",
        ),
        ("import os\nos.abort()", "theirs: ends with SIGABRT when its declarations"),
    ],
)
def test_an_unusable_entry_point_is_reported_and_stops_nothing_else(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers.distribution(tmp_path, monkeypatch, text)
    registry = Registry.discover()
    (problem,) = registry.problems
    assert message in str(problem)
    assert set(registry.implementations) == set(REGISTRY.implementations)
    assert registry.tasks["adding"].origin == "built in"


def test_another_distribution_declares_plugins_without_running_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "import numpy as np\nfrom harness import declare_task\n"
        "np.tanh = None\nthing = declare_task('theirs', factory='their_tasks:make')"
    )
    helpers.distribution(tmp_path, monkeypatch, text)
    registry = Registry.discover()
    assert registry.tasks["theirs"].origin == "theirs"
    assert registry.owners(registry.task("theirs")) == ("theirs",)
    assert np.tanh is not None
    assert "their_tasks" not in sys.modules


# --- signatures ----------------------------------------------------------------------


def test_a_wrong_signature_names_the_argument() -> None:
    def layer(cell: str, hidden_size: int) -> None: ...

    with pytest.raises(PluginError) as raised:
        check_call(layer, ("cell", "input_size", "hidden_size"), "my-gru")
    assert "'input_size'" in str(raised.value)
    assert "expected layer(cell, input_size, hidden_size)" in str(raised.value)
    assert raised.value.plugin == "my-gru"


def refusal(check: Callable[..., None], *arguments: Any) -> str | None:
    """Return the error message of a check, or None."""
    try:
        check(*arguments)
    except PluginError as error:
        return str(error)
    return None


@pytest.mark.parametrize("anything", [lambda **_: None, dict])
def test_a_callable_that_takes_anything_is_accepted(anything: Any) -> None:
    assert refusal(check_call, anything, ("cell", "input_size"), "my-gru") is None


class _Whole:
    info = None

    def time_steps(self, length: int) -> int: ...
    def sample(self, rng: Any, *, batch: int, length: int) -> Any: ...
    def score(self, outputs: Any, batch: Any) -> Any: ...
    def floor(self, *, length: int) -> Any: ...
    def solved(self, loss: float, scores: Any) -> bool: ...
    def first_recalled(self, *, length: int) -> int: ...


def test_a_task_with_every_method_is_accepted() -> None:
    assert refusal(check_methods, _Whole(), Task, "mine") is None


@pytest.mark.parametrize(
    ("method", "wrong", "message"),
    [
        ("sample", lambda self, rng, *, batch: None, "'length'"),
        ("sample", lambda self, *, batch, length: None, "too many positional"),
        ("sample", lambda self, rng, batch, length, more: None, "'more'"),
        ("floor", lambda self: None, "'length'"),
        ("solved", lambda self, loss: None, "too many positional"),
        ("score", 3, "'score' is not callable"),
    ],
)
def test_a_wrong_method_is_named_with_what_is_wrong(
    method: str, wrong: Any, message: str
) -> None:
    broken = type("Broken", (_Whole,), {method: wrong})
    found = refusal(check_methods, broken(), Task, "mine")
    assert found is not None
    assert message in found
    assert f"expected {method}(" in found


@pytest.mark.parametrize("missing", ["info", "sample", "floor", "solved"])
def test_a_missing_method_is_named(missing: str) -> None:
    kept = {n: v for n, v in vars(_Whole).items() if n != missing and n[0] != "_"}
    with pytest.raises(PluginError, match=f"Partial lacks '{missing}', which a Task"):
        check_methods(type("Partial", (), kept)(), Task, "mine")


def test_the_signature_of_a_builtin_function_is_not_checked() -> None:
    odd = type("Odd", (_Whole,), {"floor": staticmethod(min)})
    assert refusal(check_methods, odd(), Task, "mine") is None


def test_a_framework_that_builds_no_layers_refuses_a_layer(tmp_path: Path) -> None:
    text = (
        "from harness import declare_implementation\n"
        "declare_implementation('x', framework='onnxruntime', cells=['gru'],"
        " layer='a:b')\n"
    )
    (problem,) = Registry.discover([helpers.write(tmp_path / "x.py", text)]).problems
    assert "framework 'onnxruntime' builds no layers; give a factory" in str(problem)


def test_a_plugin_can_declare_its_own_framework() -> None:
    framework = declare_framework(
        "mine", modules=["mine_core"], distributions=["mine-lib"]
    )
    assert (framework.distributions, framework.extra) == (("mine-lib",), None)
    assert declare_framework("other", modules=["a", "b"]).distributions == ("a", "b")
