"""`rnn-harness new`: files to start from, and the names it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.loading import load_cell, load_task
from harness.registry import Registry
from harness.scaffold import NewPlugin, write_plugin
from tests import helpers
from tests.helpers import REGISTRY
from tests.template_cases import CELLS, assert_template_computes

FRAMEWORKS = ["torch", "tensorflow", "jax", "keras-jax", "numpy"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
) -> tuple[int, str, str]:
    return helpers.call(["new", *arguments], monkeypatch, capsys)


# --- written files --------------------------------------------------------------------


def cells_of(framework: str) -> list[str]:
    return ["gru"] if framework == "numpy" else CELLS


@pytest.fixture
def written(here: Path) -> list[Path]:
    """Write every kind of file and return their paths."""
    plugins = [
        NewPlugin("implementation", f"own-{cell}-{name}", name, cell)
        for name in FRAMEWORKS
        for cell in cells_of(name)
    ]
    plugins += [NewPlugin("cell", "own-cell"), NewPlugin("task", "own-task")]
    return [here / write_plugin(plugin, REGISTRY) for plugin in plugins]


@pytest.mark.parametrize(
    "command",
    ["implementation my-gru --framework torch", "cell my-gru", "task my-gru"],
)
def test_the_file_and_the_next_command_are_printed(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = new(monkeypatch, capsys, *command.split())
    assert (code, out) == (0, "my_gru.py\nnext: rnn-harness check my_gru.py\n")
    assert Registry.discover([Path("my_gru.py")]).problems == []


def test_every_written_file_has_its_declaration_and_is_short(
    written: list[Path],
) -> None:
    registry = Registry.discover(written)
    assert registry.problems == []
    for name in FRAMEWORKS:
        for cell in cells_of(name):
            declared = registry.implementation(f"own-{cell}-{name}")
            assert (declared.framework, declared.cells) == (name, (cell,))
    assert load_cell(registry, "own-cell").info.name == "own-cell"
    assert load_task(registry, "own-task", {}).info.name == "own-task"
    loops = {n for n, d in registry.implementations.items() if "own-cell" in d.cells}
    assert loops == {"torch-loop", "torch-compile", "tensorflow-loop", "jax-scan"}
    for file in written:
        lines = [line for line in file.read_text().splitlines() if line]
        most = 50 if file.name in ("own_cell.py", "own_task.py") else 36
        assert len(lines) <= most, file.name


def test_written_files_are_formatted(written: list[Path], here: Path) -> None:
    pytest.importorskip("ruff")
    for words in (["format", "--check"], ["check", "--select", "E,F,W"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--isolated", here],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_reading_written_files_imports_no_framework(written: list[Path]) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom harness.registry import Registry\n"
        "found = Registry.discover(map(Path, sys.argv[1:]))\n"
        "assert found.problems == []\n"
        "heavy = ('torch', 'tensorflow', 'keras', 'jax')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    files = [str(file) for file in written]
    done = subprocess.run(
        [sys.executable, "-c", code, *files], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("cell", CELLS)
def test_a_torch_template_computes_its_cell(cell: str, here: Path) -> None:
    pytest.importorskip("torch")
    assert_template_computes("torch", cell, here)


def test_the_numpy_template_computes_its_cell(here: Path) -> None:
    assert_template_computes("numpy", "gru", here)


def test_a_file_with_another_name_declares_the_plugin_that_was_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "my files").mkdir()
    code, out, _ = new(monkeypatch, capsys, "cell", "copy", "-o", "my files/two.py")
    assert code == 0
    assert out == "my files/two.py\nnext: rnn-harness check 'my files/two.py'\n"
    registry = Registry.discover([here / "my files" / "two.py"])
    assert load_cell(registry, "copy").info.name == "copy"


def test_a_framework_that_is_not_installed_is_reported_with_the_file(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    helpers.without_modules(monkeypatch, "jax")
    code, out, err = new(
        monkeypatch, capsys, "implementation", "my-gru", "--framework", "jax"
    )
    assert code == 0
    assert out.startswith("my_gru.py\n")
    assert "no module 'jax'; pip install 'rnn-harness[jax]'" in err


# --- refusals -------------------------------------------------------------------------


REFUSED = [
    ("implementaton my-gru", ["'implementaton'", "did you mean 'implementation'?"]),
    ("implementation my-gru", ["needs --framework: torch, tensorflow, jax,"]),
    (
        "implementation my-gru --framework troch",
        ["unknown framework 'troch'", "did you mean 'torch'? Allowed: torch, tens"],
    ),
    ("implementation my-gru --framework cobol", ["allowed: torch, tensorflow, jax"]),
    (
        "implementation my-gru --framework onnxruntime",
        ["no template of a layer in 'onnxruntime'; there is one in torch"],
    ),
    (
        "implementation my-gru --framework torch --cell gur",
        ["unknown cell 'gur'", "did you mean 'gru'?", "gru-reset-before, lstm"],
    ),
    (
        "implementation my-gru --framework numpy --cell lstm",
        ["no template of the cell 'lstm' in numpy; begin with gru"],
    ),
    ("cell my-cell --framework torch", ["--framework is for an implementation"]),
    ("task my-task --cell gru", ["--cell is for an implementation, not for a task"]),
    ("implementation MyGRU --framework jax", ["'MyGRU'", "did you mean 'my-gru'?"]),
    ("cell my_cell", ["lower-case letters", "did you mean 'my-cell'?"]),
    ("cell ..", ["cell name '..': use lower-case letters"]),
    (
        "implementation torch-native --framework torch",
        ["'torch-native' is taken (built in)", "'my-torch-native'"],
    ),
    ("cell gru", ["the cell name 'gru' is taken (built in)"]),
    ("task adding", ["the task name 'adding' is taken"]),
    ("task copy", ["would hide the module 'copy'", "-o my_copy.py"]),
    ("cell torch", ["would hide the module 'torch'"]),
    ("cell tasks", ["would hide the module 'tasks'"]),
    ("cell pandas", ["would hide the module 'pandas'"]),
    ("cell class", ["'class' is not a name for a Python module", "-o my_class.py"]),
    ("cell 2gru", ["'2gru' is not a name for a Python module", "-o my_2gru.py"]),
    ("cell my-cell -o my-cell.py", ["choose another file, such as -o my_cell.py"]),
    ("cell my-cell -o my_cell.txt", ["must end in .py"]),
    ("cell my-cell -o nowhere/my_cell.py", ["there is no folder nowhere"]),
    ("cell my-cell -o /proc/my_cell.py", ["cannot be written"]),
    ("cell my-cell -o mine.py", ["mine.py exists and is left as it is"]),
    ("cell my-cell -o link.py", ["link.py exists and is left as it is"]),
]


@pytest.mark.parametrize(("command", "messages"), REFUSED, ids=[c for c, _ in REFUSED])
def test_an_invalid_request_is_reported_and_nothing_is_written(
    command: str,
    messages: list[str],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    helpers.write(here / "mine.py", "mine")
    (here / "link.py").symlink_to("nowhere")
    code, out, err = new(monkeypatch, capsys, *command.split())
    assert (code, out) == (2, "")
    assert err.startswith("rnn-harness: ")
    assert err.count("\n") == 1
    for words in messages:
        assert words in err
    assert (here / "mine.py").read_text() == "mine"
    assert sorted(f.name for f in here.iterdir()) == ["link.py", "mine.py"]


def test_a_second_file_of_the_same_name_leaves_the_first_as_it_is(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(monkeypatch, capsys, "task", "my-task")[0] == 0
    before = helpers.snapshot(here)
    code, _, err = new(monkeypatch, capsys, "cell", "my-task")
    assert code == 2
    assert "my_task.py exists" in err
    assert helpers.snapshot(here) == before


def test_a_name_that_a_plugin_file_declares_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(monkeypatch, capsys, "cell", "my-cell")[0] == 0
    code, _, err = new(
        monkeypatch, capsys, "cell", "my-cell", "-o", "b.py", "--plugin", "my_cell.py"
    )
    assert code == 2
    assert "the cell name 'my-cell' is taken (my_cell.py)" in err
