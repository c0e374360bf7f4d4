import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.registry import Registry
from harness.run.availability import build_each
from tests import helpers

HEAVY = (
    "torch", "tensorflow", "keras", "jax", "onnx", "onnxruntime", "pandas",
    "matplotlib", "scipy", "numpy",
)  # fmt: skip

LOADED = """
import sys
from harness.cli import main
sys.argv = ["rnn-harness", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print("loaded:", *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "--json"], ["--help"], ["run", "--help"]]
)
def test_list_and_help_import_nothing_heavy(
    arguments: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(heavy=HEAVY), *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stderr.strip() == "loaded:"
    assert done.stdout


def test_a_dry_run_imports_no_framework(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOADED.format(heavy=HEAVY[:6])]
    done = subprocess.run(
        [*command, "run", "frameworks", "--dry-run"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stderr.strip() == "loaded:"
    assert "numpy-reference" in done.stdout


def _list(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
) -> tuple[int, str, str]:
    return helpers.call(["list", *arguments], monkeypatch, capsys)


def test_every_plugin_is_listed_with_what_it_offers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = _list(monkeypatch, capsys)
    assert code == 0
    for name in ("gru-reset-before", "copy-memory", "numpy-reference", "torch-native"):
        assert name in out
    assert "torch; rnn, rnn-relu, gru, lstm; on cpu, cuda" in out


def test_an_absent_framework_is_listed_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(helpers.PLUGINS / "absent_framework.py")
    code, out, _ = _list(monkeypatch, capsys, "--plugin", file)
    assert code == 0
    hint = "no module 'tidalflow.core'; pip install 'rnn-harness[tidal]'"
    assert f"unavailable: {hint}" in out
    assert "(from absent_framework.py)" in out
    _, out, _ = _list(monkeypatch, capsys, "--json", "--plugin", file)
    listed = {i["name"]: i for i in json.loads(out)["implementations"]}
    assert listed["tidal-gru"]["unavailable"] == f"unavailable: {hint}"
    assert listed["numpy-reference"]["unavailable"] is None


def test_what_a_plugin_file_prints_is_not_part_of_the_json(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = str(helpers.PLUGINS / "prints.py")
    code, out, err = _list(monkeypatch, capfd, "--json", "--plugin", file)
    assert code == 0
    assert "prints" in {i["name"] for i in json.loads(out)["implementations"]}
    assert "to the print while it is read" in err


def test_the_output_is_one_json_document_even_if_problems_are_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(helpers.PLUGINS / "raises_on_import.py")
    code, out, err = _list(monkeypatch, capsys, "--json", "--plugin", file)
    assert code == 2
    document = json.loads(out)
    assert set(document) == {"cells", "tasks", "implementations", "not_usable"}
    (problem,) = document["not_usable"]
    assert problem["plugin"] == "raises_on_import.py"
    assert "the licence" in problem["reason"]
    assert "the licence" in err


def test_probing_builds_each_implementation_and_reports_why_one_fails(
    tmp_path: Path,
) -> None:
    text = """\
import os

from harness import declare_implementation

for name in ("unlicensed", "dies"):
    declare_implementation(name, framework="numpy", cells=["rnn"], factory=f"p:{name}")


def unlicensed(spec, cell, device):
    raise OSError("the licence has run out")


def dies(spec, cell, device):
    os._exit(3)
"""
    registry = Registry.discover([helpers.write(tmp_path / "p.py", text)])
    names = ("unlicensed", "dies", "numpy-reference")
    registry.implementations = {n: registry.implementations[n] for n in names}
    assert dict(build_each(registry)) == {
        "unlicensed": "failed: unlicensed: OSError: the licence has run out (p.py:10)",
        "dies": "crashed: the worker of dies exited with 3",
        "numpy-reference": None,
    }
