"""The id of a trial, and which trials of a run are done."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness.registry import Registry
from harness.run.execution import Execution
from harness.run.job import Options
from harness.run.plan import fingerprint as sources
from harness.run.plan.derived import gradients_trial
from harness.run.plan.fingerprint import source_hashes
from harness.run.plan.plan import make_plan
from harness.run.plan.todo import OTHER_ID, planned
from harness.store import RunFolder
from harness.suite import load_suite
from harness.trial import LearningSettings, SpeedSettings, Trial
from tests import helpers
from tests.helpers import REGISTRY

LATE = """\
def late():
    import importlib
    return importlib.import_module("fastlib")
"""


def _plugin(folder: Path, body: str) -> Path:
    text = (helpers.PLUGINS / "my_gru.py").read_text(encoding="utf-8")
    return helpers.write(folder / "my_gru.py", text + body)


def _trial(implementation: str = "my-gru", **changes: Any) -> Trial:
    found = make_plan(load_suite("smoke", REGISTRY), REGISTRY, "cpu", choices={})
    learning = found.learning[0].candidates[0]
    return replace(learning, implementation=implementation, cell="gru", **changes)


def _id(known: Registry, trial: Trial) -> str:
    return trial.identity(source_hashes(known, trial))


def test_an_id_changes_with_the_source_of_its_plugin_and_not_with_others(
    tmp_path: Path,
) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, body in zip(folders, ("", "", "# more\n"), strict=True):
        folder.mkdir()
        _plugin(folder, body)
    one, same, other = (Registry.discover([f / "my_gru.py"]) for f in folders)
    assert _id(one, _trial()) == _id(same, _trial())
    assert _id(one, _trial()) != _id(other, _trial())
    assert _id(one, _trial("torch-native")) == _id(other, _trial("torch-native"))


@pytest.mark.parametrize("body", ["import fastlib\n", LATE])
@pytest.mark.parametrize("slow", ["slowlib", "parts.slowlib"])
def test_an_id_changes_with_a_module_beside_the_plugin_file_that_it_imports(
    tmp_path: Path, slow: str, body: str
) -> None:
    file = _plugin(tmp_path, body)
    helpers.write(tmp_path / "fastlib.py", f"from {slow} import slow\n")
    neighbour = tmp_path / f"{slow.replace('.', '/')}.py"
    neighbour.parent.mkdir(exist_ok=True)  # without `__init__.py`
    ids = []
    for text in ("slow = 1\n", "slow = 2\n"):
        helpers.write(neighbour, text)
        sources.forget_files()
        ids.append(_id(Registry.discover([file]), _trial()))
        for module in ("fastlib", "slowlib", "parts", "parts.slowlib"):
            sys.modules.pop(module, None)
    assert ids[0] != ids[1]


@pytest.mark.parametrize("layer", ["mine:layer", "mypackage.kern:layer"])
def test_an_id_changes_with_the_relative_imports_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    package = tmp_path / "mypackage"
    (package / "deep").mkdir(parents=True)
    helpers.write(package / "__init__.py", "from .kern import layer\n")
    helpers.write(package / "kern.py", "from .deep.inner import layer\n")
    helpers.write(package / "deep" / "__init__.py", "")
    helpers.write(package / "deep" / "inner.py", "from ..base import layer\n")
    text = "from mypackage import layer\nfrom harness import declare_implementation\n"
    text += "declare_implementation('mine', framework='torch', cells=['gru'], "
    file = helpers.write(tmp_path / "mine.py", f"{text}layer={layer!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ids = []
    for content in ("def layer(*_): 1\n", "def layer(*_): 2\n"):
        helpers.write(package / "base.py", content)
        sources.forget_files()
        ids.append(_id(Registry.discover([file]), _trial("mine")))
        for module in [name for name in sys.modules if name.startswith("mypackage")]:
            sys.modules.pop(module)
    assert ids[0] != ids[1]


def test_an_id_changes_with_the_version_of_a_library_that_a_plugin_file_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages"
    (folder / "gatelib").mkdir(parents=True)
    helpers.write(folder / "gatelib" / "__init__.py", "")
    monkeypatch.syspath_prepend(str(folder))
    file = _plugin(tmp_path, "import gatelib\n")
    ids = []
    for version in ("1.0", "1.0", "2.0"):
        metadata = folder / "gatelib-0.dist-info"
        metadata.mkdir(exist_ok=True)
        helpers.write(
            metadata / "METADATA",
            f"Metadata-Version: 2.1\nName: gatelib\nVersion: {version}\n",
        )
        helpers.write(metadata / "top_level.txt", "gatelib\n")
        sources.forget_files()
        ids.append(_id(Registry.discover([file]), _trial()))
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 5},
        {"length": 11},
        {"hidden_size": 9},
        {"device": "cuda:0"},
        {"task_options": {"symbols": 3}},
        {"settings": LearningSettings(41)},
    ],
)
def test_an_id_changes_with_the_trial(changes: dict[str, Any]) -> None:
    trial = _trial("torch-native")
    assert _id(REGISTRY, trial) != _id(REGISTRY, replace(trial, **changes))


def test_a_field_that_a_later_version_adds_changes_neither_id_nor_key() -> None:
    @dataclass(frozen=True)
    class Later(Trial):
        attention_heads: int = 1

    trial = _trial("torch-native")
    later = Later(**vars(trial))
    assert later.identity({}) == trial.identity({})
    assert later.key() == trial.key()
    assert replace(later, attention_heads=2).identity({}) != trial.identity({})


def test_a_setting_that_a_later_version_adds_changes_neither_id_nor_key() -> None:
    @dataclass(frozen=True)
    class Later(SpeedSettings):
        warm_ups: "int" = 3  # as text, which is how settings are checked

    trial = replace(_trial("torch-native"), measure="speed", settings=SpeedSettings())
    later = replace(trial, settings=Later())
    assert later.identity({}) == trial.identity({})
    assert later.key() == trial.key()
    changed = replace(later, settings=Later(warm_ups=4))
    assert changed.identity({}) != trial.identity({})


def test_the_sources_of_a_trial_are_those_of_its_plugins() -> None:
    sources = source_hashes(REGISTRY, _trial("torch-native"))
    assert set(sources) == {
        "cell gru",
        "implementation torch-native",
        "framework torch",
        "task adding",
    }
    assert len(set(sources.values())) == 4


def test_a_neighbour_that_cannot_be_parsed_does_not_stop_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    helpers.write(tmp_path / "broken_neighbour.py", "def f(:\n")
    (tmp_path / "broken_package").mkdir()
    helpers.write(tmp_path / "broken_package" / "__init__.py", "raise OSError('no')\n")
    text = "from harness import declare_task\n"
    for name, module in (("one", "broken_neighbour"), ("two", "broken_package.task")):
        text += f"declare_task('{name}', factory='{module}:make')\n"
    known = Registry.discover([helpers.write(tmp_path / "tasks_of_mine.py", text)])
    assert known.problems == []
    for name in ("one", "two"):
        assert source_hashes(known, _trial("torch-native", task=name))


def test_an_id_does_not_depend_on_the_number_of_jobs(tmp_path: Path) -> None:
    suite = load_suite("smoke", REGISTRY)
    ids = []
    for jobs in (1, 8):
        run = RunFolder(tmp_path / "run")
        stages = Execution(suite, REGISTRY, run, "cpu", Options(jobs=jobs)).preview()
        ids.append([found.todo.id for _, stage in stages for found in stage])
    assert ids[0] == ids[1]


# --- which trials are done ------------------------------------------------------------


def test_the_reason_why_a_trial_runs_or_not_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tmp_path / "run")
    trial = _trial("torch-native")

    def why(**asked: bool) -> tuple[bool, str]:
        todo = planned(trial, REGISTRY, run, Options(**asked))
        return todo.runs, todo.why

    def commit(outcome: str) -> Path:
        todo = planned(trial, REGISTRY, run)
        attempt = run.begin(trial, todo.id, todo.sources)
        attempt.commit({"outcome": outcome, "reason": None})
        return run.trials / todo.id / "result.json"

    assert why() == (True, "new")
    todo = planned(trial, REGISTRY, run)
    run.begin(trial, todo.id, todo.sources).abandon()
    assert why() == (True, "was interrupted before it was done")
    for outcome in ("crashed", "failed", "out_of_memory", "timeout"):
        commit(outcome)
        retry = "--retry-failed runs it again"
        assert why(retry_failed=True) == (True, f"ended {outcome} before; {retry}")
        retry = "run again with --retry-failed"
        assert why() == (False, f"ended {outcome} before; {retry}")
    for outcome in ("ok", "diverged", "refused"):
        file = commit(outcome)
        assert why() == why(retry_failed=True) == (False, f"done ({outcome})")
        force = f"ended {outcome} before; --force runs it again"
        assert why(force=True) == (True, force)
    commit("unavailable")
    assert why() == (True, "was unavailable before, and is available here")
    monkeypatch.setattr(Registry, "unavailable", lambda *_: "no module 'torch'")
    assert why(retry_failed=True) == (False, "is still unavailable")
    file.write_text("{", encoding="utf-8")
    assert why()[0]
    assert "its result is damaged" in why()[1]


def test_a_trial_with_a_changed_plugin_runs_and_names_the_plugin(
    tmp_path: Path,
) -> None:
    run = RunFolder.create(tmp_path / "run")
    trial = _trial("torch-native")
    todo = planned(trial, REGISTRY, run)
    before = {**todo.sources, "cell gru": "another"}
    attempt = run.begin(trial, trial.identity(before), before)
    attempt.commit({"outcome": "ok", "reason": None})
    todo = planned(trial, REGISTRY, run)
    assert todo.runs
    assert todo.why == "the source of cell gru changed"


def test_a_trial_that_follows_another_one_now_says_so(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    one, two = (gradients_trial(_trial("torch-native"), name) for name in "ab")
    todo = planned(one, REGISTRY, run)
    run.begin(one, todo.id, todo.sources).commit({"outcome": "ok", "reason": None})
    assert planned(two, REGISTRY, run).why == "the trial that it follows changed"


def test_a_trial_of_an_earlier_version_says_so_unless_it_was_measured_again(
    tmp_path: Path,
) -> None:
    run = RunFolder.create(tmp_path / "run")
    trial = _trial("torch-native")
    before = {**planned(trial, REGISTRY, run).sources, "cell gru": "another"}
    ok = {"outcome": "ok", "reason": None}
    run.begin(trial, "an-earlier-id", before).commit(ok)
    assert planned(trial, REGISTRY, run).why == OTHER_ID
    run.begin(trial, trial.identity(before), before).commit(ok)
    assert planned(trial, REGISTRY, run).why == "the source of cell gru changed"
    assert planned(trial, REGISTRY, RunFolder(run.path)).why == (
        "the source of cell gru changed"
    )


def test_a_gradients_trial_belongs_to_one_learning_result() -> None:
    trial = _trial("torch-native")
    one, two = gradients_trial(trial, "a"), gradients_trial(trial, "b")
    assert one.key() != two.key()
    assert one.device == "cpu"
