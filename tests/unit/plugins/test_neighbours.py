"""Each plugin file finds the modules beside it, and no other plugin's."""

import importlib
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.registry import Registry
from tests import helpers

DECLARED = """
from harness import declare_task

declare_task("{task}", factory="{task}:make")
"""

Files = dict[str, str]


def plugin(folder: Path, body: str, files: Files, task: str | None = None) -> Path:
    """Write a plugin file and what lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        helpers.write(folder / name, text)
    task = task or f"plug{folder.name}"
    return helpers.write(folder / f"{task}.py", DECLARED.format(task=task) + body)


def makers(*files: Path) -> list[Any]:
    """Return the function `make` of each plugin file, all read in one process."""
    importlib.invalidate_caches()
    registry = Registry.given("[]")
    return [registry.module_of(file.resolve()).make for file in files]


@pytest.fixture(autouse=True)
def own_modules() -> Iterator[None]:
    """Restore what Python has loaded."""
    before = dict(sys.modules)
    yield
    for name in {*sys.modules} - {*before}:
        del sys.modules[name]


AT_ONCE = "import core\ndef make(): return core.VALUE\n"
FROM = "from core import VALUE\ndef make(): return VALUE\n"
LATE = "def make():\n    from core import VALUE\n    return VALUE\n"
LATE_MODULE = "def make():\n    import core as c\n    return c.VALUE\n"
BY_NAME = """
import importlib
def make(): return importlib.import_module("core").VALUE
"""
BY_FUNCTION = """
def make():
    from importlib import import_module
    return import_module("core").VALUE
"""
BUILT_IN = 'def make(): return __import__("core").VALUE\n'
EXECUTED = """
def make():
    found = {}
    exec("from core import VALUE", found)
    return found["VALUE"]
"""
FOUND = """
import importlib.util
assert importlib.util.find_spec("core").origin.endswith("core.py")
assert importlib.util.find_spec("nowhere") is None
def make():
    spec = importlib.util.find_spec("core")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.VALUE
"""
BY_PATH = """
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
def make():
    spec = spec_from_file_location("x", Path(__file__).with_name("between.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.value()
"""
RELATIVE = "from .core import VALUE\ndef make(): return VALUE\n"
THROUGH = "import between\ndef make(): return between.value()\n"
IN_PACKAGE = "import parts.deep\ndef make(): return parts.deep.VALUE\n"
FROM_PACKAGE = "def make():\n    from parts import deep\n    return deep.VALUE\n"
OF_PACKAGE = """
def make():
    import importlib
    return importlib.import_module("parts.deep").VALUE
"""
ON_THE_PATH = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent / "lib"))
import helper
def make(): return helper.VALUE
"""
ON_THE_PATH_LATE = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent / "lib"))
def make():
    import helper
    return helper.VALUE
"""
ITS_FOLDER_ON_THE_PATH = """
def make():
    import sys
    from pathlib import Path
    sys.path.insert(0, str(Path(__file__).parent))
    import core
    return core.VALUE
"""


@pytest.mark.parametrize(
    "body",
    [
        AT_ONCE,
        FROM,
        LATE,
        LATE_MODULE,
        BY_NAME,
        BY_FUNCTION,
        BUILT_IN,
        EXECUTED,
        FOUND,
        BY_PATH,
        RELATIVE,
        THROUGH,
        IN_PACKAGE,
        FROM_PACKAGE,
        OF_PACKAGE,
        ON_THE_PATH,
        ON_THE_PATH_LATE,
        ITS_FOLDER_ON_THE_PATH,
    ],
)
def test_two_files_use_their_own_module_of_one_name(tmp_path: Path, body: str) -> None:
    for order in (("a", "b"), ("b", "a")):
        files = [
            plugin(
                tmp_path / "".join(order) / name,
                body,
                {
                    "core.py": f"VALUE = {name!r}\n",
                    "lib/helper.py": f"VALUE = {name!r}\n",
                    "between.py": "def value():\n    import core\n"
                    "    return core.VALUE\n",
                    "parts/__init__.py": "from . import inner\n",
                    "parts/inner.py": "from core import VALUE\n",
                    "parts/deep.py": "from .inner import VALUE\n",
                },
            )
            for name in order
        ]
        made = makers(*files)
        # Called in another order than they were read, and twice.
        assert [made[1](), made[0](), made[1](), made[0]()] == [*order[::-1]] * 2
    if body != ITS_FOLDER_ON_THE_PATH:
        assert not {"core", "between", "parts"} & {*sys.modules}


# --- what is a neighbour --------------------------------------------------------------


def test_a_module_of_python_or_installed_comes_before_a_neighbour(
    tmp_path: Path,
) -> None:
    shadows = {
        f"{name}.py": "FAKE = 1\n" for name in ("json", "numpy", "implementations")
    }
    names = "import json, numpy, implementations\n"
    body = f"{names}def make():\n    {names}    return json, numpy, implementations\n"
    (make,) = makers(plugin(tmp_path / "a", body, shadows))
    assert not any(hasattr(module, "FAKE") for module in make())


@pytest.mark.parametrize("other", ["core.py", "core/__init__.py", "core/x.py"])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_neighbour_comes_before_a_module_that_only_the_path_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, loaded: bool
) -> None:
    """As for a script; with another plugin's folder on PYTHONPATH, say."""
    plugin(tmp_path / "elsewhere", "", {other: "VALUE = 'elsewhere'\n"})
    file = plugin(tmp_path / "a", LATE, {"core.py": "VALUE = 'a'\n"})
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    if loaded:
        importlib.import_module("core")
    (make,) = makers(file)
    assert make() == "a"


def test_a_folder_without_init_comes_after_a_module_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin beside the repository `core/` of a package `core`, say."""
    file = plugin(tmp_path, LATE, {"core/core/__init__.py": "VALUE = 'package'\n"}, "x")
    monkeypatch.syspath_prepend(str(tmp_path / "core"))
    (make,) = makers(file)
    assert make() == "package"


def test_a_folder_that_is_on_the_path_too_has_each_module_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    body = "def make():\n    import core\n    return core\n"
    (make,) = makers(plugin(tmp_path, body, {"core.py": ""}, "x"))
    assert make() is importlib.import_module("core")


def test_a_neighbour_may_import_the_plugin_file_and_declare_for_it(
    tmp_path: Path,
) -> None:
    late = DECLARED.format(task="late") + "def make():\n    import x\n    return x\n"
    file = helpers.write(tmp_path / "x.py", "from late import *\n")
    helpers.write(tmp_path / "late.py", late)
    registry = Registry.given("[]")
    (declared,) = registry.read_file(file)
    assert declared.file == file
    module = registry.module_named("late", declared)
    assert module.make() is registry.module_of(file)


def test_a_neighbour_that_is_missing_has_the_name_that_the_author_wrote(
    tmp_path: Path,
) -> None:
    for name, text in (("a", "import parts.none\n"), ("b", "import none\n")):
        file = plugin(tmp_path / name, text, {"parts/__init__.py": ""})
        (problem,) = Registry.discover([file]).problems
        named = text.split()[1]
        assert f"No module named '{named}' (plug{name}.py:5)" in str(problem)


def test_a_file_that_is_read_again_uses_its_neighbours_as_they_are_now(
    tmp_path: Path,
) -> None:
    """Also if the text has the same length and was written in the same second."""
    file = plugin(tmp_path / "a", LATE, {"core.py": "VALUE = 1\n"})
    (before,) = makers(file)
    assert before() == 1
    plugin(tmp_path / "a", LATE, {"core.py": "VALUE = 2\n"})
    (now,) = makers(file)
    assert (now(), before()) == (2, 1)
    assert not [*tmp_path.rglob("*.pyc")]


def test_classes_of_neighbours_know_their_module(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    text += "@dataclass\nclass Size:\n    hidden: int = 3\n"
    body = "from core import Size\ndef make(): return Size()\n"
    (make,) = makers(plugin(tmp_path / "a", body, {"core.py": text}))
    assert pickle.loads(pickle.dumps(make())) == make()


def test_other_code_finds_no_neighbour(tmp_path: Path) -> None:
    """An installed library must not take `triton.py` for what it looks for."""
    body = "def make():\n    import core\n    return core\n"
    (make,) = makers(plugin(tmp_path / "a", body, {"core.py": ""}))
    make()
    with pytest.raises(ModuleNotFoundError, match="No module named 'core'"):
        importlib.import_module("core")
    assert importlib.util.find_spec("core") is None


@pytest.mark.slow
@helpers.needs_torch
def test_a_compiled_function_may_import_a_neighbour(tmp_path: Path) -> None:
    body = """
import torch

@torch.compile(backend="eager")
def double(x):
    from core import twice
    return twice(x) + 1

def make(): return double(torch.ones(2)).tolist()
"""
    files = [
        plugin(tmp_path / name, body, {"core.py": f"def twice(x): return {n} * x\n"})
        for n, name in enumerate("ab", 2)
    ]
    assert [make() for make in makers(*files)] == [[3, 3], [4, 4]]


# --- certificates ---------------------------------------------------------------------

CORE = (helpers.ROOT / "harness/templates/implementation-numpy.py.txt").read_text()
CERTIFIED = """
from harness import declare_implementation

declare_implementation(
    "{name}", framework="numpy", cells=["gru"], layer="plug_{name}:layer"
)


def layer(cell, input_size, hidden_size):
    from core import layer

    return layer(cell, input_size, hidden_size)
"""


@pytest.mark.slow
def test_of_two_files_with_a_core_each_the_wrong_one_alone_is_broken(
    tmp_path: Path,
) -> None:
    core = CORE.replace("$declaration", "")
    wrong = core.replace("z * h + (1 - z) * n", "(1 - z) * h + z * n")
    assert wrong != core
    for name, text in (("right", core), ("wrong", wrong)):
        (tmp_path / name).mkdir()
        helpers.write(tmp_path / name / "core.py", text)
        text = CERTIFIED.format(name=name)
        helpers.write(tmp_path / name / f"plug_{name}.py", text)
    files = [tmp_path / name / f"plug_{name}.py" for name in ("right", "wrong")]
    code, out, err = helpers.run("check", *files, "--json", cwd=tmp_path)
    assert code == 3, err
    found = {
        each["implementation"]: each["checks"]["certificate"]["certified"]
        for each in json.loads(out)
    }
    assert found == {"right": True, "wrong": False}
