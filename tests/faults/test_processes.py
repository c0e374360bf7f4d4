"""No plugin changes what another one computes, how long it takes, or what is judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.errors import PluginError
from harness.loading import load_cell
from harness.machine.process_state import ProcessState
from harness.registry import Registry
from harness.run.job import STOPPED_FROM_ELSEWHERE
from harness.store import RunFolder, TrialRecord
from tests import helpers
from tests.faults.conftest import Call
from tests.helpers import needs_torch

CHANGES = helpers.PLUGINS / "changes.py"
POISONS = helpers.PLUGINS / "poisons.py"


def records(folder: Path, *names: str) -> dict[str, TrialRecord]:
    """Return the records of these implementations by name."""
    every = RunFolder.open(folder).records()
    found = {r.trial.implementation: r for r in every}
    return {name: found[name] for name in names}


def changed(found: dict[str, TrialRecord]) -> dict[str, list[str] | None]:
    """Return what each implementation has changed of its process."""
    return {n: r.result.get("changed_process") for n, r in found.items()}


def timed(folder: Path, call: Call, *names: str) -> dict[str, TrialRecord]:
    """Time these implementations in one session without certificates."""
    section = helpers.speed(*names, phases=["forward"])
    helpers.write(folder / "s.toml", helpers.suite(section))
    selected = f"speed and ({' or '.join(names)})"
    command = ("run", "s.toml", "-o", "out", "--no-certify", "-k", selected)
    code, out, err = call(*command, "--plugin", CHANGES, cwd=folder)
    assert code == 0, out + err
    return records(folder / "out", *names)


@pytest.mark.slow
def test_a_certificate_is_judged_where_no_plugin_can_change_a_function(
    tmp_path: Path, call: Call
) -> None:
    names = ["patches-numpy", "raises-on-overflow", "beside-them", "numpy-reference"]
    helpers.write(tmp_path / "s.toml", helpers.suite(helpers.speed(*names)))
    selected = f"parity and ({' or '.join(names)})"
    command = ("run", "s.toml", "-o", "out", "-j", 1, "-k", selected)
    code, _, err = call(*command, "--plugin", CHANGES, cwd=tmp_path)
    assert code == 3, err
    found = records(tmp_path / "out", *names)
    certified = {n: r.value("certificate", "certified") for n, r in found.items()}
    assert certified == dict.fromkeys(names, 1) | {"patches-numpy": 0}
    assert changed(found) == {
        "patches-numpy": ["numpy.tanh"],
        "raises-on-overflow": ["numpy's error handling"],
        "beside-them": None,
        "numpy-reference": None,
    }
    kernel = found["raises-on-overflow"].result["kernel"]
    assert kernel.endswith("; changes numpy's error handling")
    # Those that change it leave no process to others, nor do two owners share one.
    workers = {n: r.result["worker"] for n, r in found.items()}
    assert len(set(workers.values())) == len(names)


@needs_torch
@pytest.mark.slow
def test_a_session_times_those_apart_that_change_their_process(
    tmp_path: Path, call: Call
) -> None:
    names = ["plain-torch", "detects-anomalies", "more-threads", "no-gradients"]
    names += ["other-precision", "torch-native"]
    found = timed(tmp_path, call, *names)
    assert changed(found) == {
        "plain-torch": None,
        "detects-anomalies": ["torch's anomaly mode (was False, is True)"],
        "more-threads": [
            "threads of libgomp (was 1, is 2)",
            "torch's threads (was 1, is 2)",
        ],
        "no-gradients": ["torch's grad mode (was True, is False)"],
        "other-precision": [
            "torch's float32 precision of mkldnn matmul (was none, is bf16)"
        ],
        "torch-native": None,
    }
    workers = {n: r.result["worker"] for n, r in found.items()}
    assert len(set(workers.values())) == len(workers)


@pytest.mark.slow
def test_what_changes_at_the_end_of_a_session_is_nobody_elses(
    tmp_path: Path, call: Call
) -> None:
    names = ["changes-when-freed", "beside-them"]
    found = timed(tmp_path, call, *names)
    assert changed(found) == {
        "changes-when-freed": ["numpy's error handling"],
        "beside-them": None,
    }


@pytest.mark.slow
def test_a_child_that_computes_later_is_its_makers(tmp_path: Path, call: Call) -> None:
    found = changed(timed(tmp_path, call, "keeps-a-child-busy", "takes-its-time"))
    assert found["takes-its-time"] is None
    named = {each.partition(" (")[0] for each in found["keeps-a-child-busy"]}
    assert named == {"a process left computing"}


@pytest.mark.slow
def test_what_fails_beside_another_is_asked_once_more_in_a_process_of_its_own(
    tmp_path: Path, call: Call
) -> None:
    """Nobody compares how decimals are rounded."""
    names = ["rounds-decimals", "needs-decimals"]
    helpers.write(tmp_path / "s.toml", helpers.suite(helpers.speed(*names)))
    selected = f"parity and ({' or '.join(names)})"
    command = ("run", "s.toml", "-o", "out", "-j", 1, "-k", selected)
    code, out, err = call(*command, "--plugin", CHANGES, cwd=tmp_path)
    assert code == 0, out + err
    found = records(tmp_path / "out", *names)
    certified = {n: r.value("certificate", "certified") for n, r in found.items()}
    assert certified == dict.fromkeys(names, 1)
    beside = (tmp_path / "out").rglob("log.txt")
    assert any("asked once more without them" in log.read_text() for log in beside)


@pytest.mark.slow
def test_a_trial_that_is_told_to_stop_from_elsewhere_is_not_lost(
    tmp_path: Path, call: Call
) -> None:
    telling = "tells-its-parent-to-stop"

    def outcomes(*names: str) -> dict[str, str]:
        learning = helpers.learning(
            implementations=names,
            seeds=[0],
            cells=["rnn"],
            updates=60,
            evaluate_every=20,
        )
        folder = "-".join(names)
        helpers.write(tmp_path / "s.toml", helpers.suite(learning))
        selected = f"learning and ({' or '.join(names)})"
        command = ("run", "s.toml", "-o", folder, "-j", 1, "--no-certify")
        call(*command, "-k", selected, "--plugin", CHANGES, cwd=tmp_path)
        every = RunFolder.open(tmp_path / folder).records()
        found = [r for r in every if r.trial.measure == "learning"]
        return {r.trial.implementation: f"{r.outcome} {r.reason}" for r in found}

    assert outcomes(telling) == {telling: f"crashed {STOPPED_FROM_ELSEWHERE}"}
    # It is timed first, in the worker in which the other one learns.
    assert outcomes(telling, "beside-them") == {"beside-them": "ok None"}


@pytest.mark.slow
@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.long)])
def test_what_is_built_in_changes_nothing_of_its_process(
    slow: bool, tmp_path: Path, call: Call
) -> None:
    quick = {"numpy-reference", "torch-native"}
    names = [
        name
        for name, declared in helpers.REGISTRY.implementations.items()
        if helpers.REGISTRY.unavailable(name) is None
        and "cpu" in declared.devices
        and (name not in quick) is slow
    ]
    trained = [n for n in names if helpers.REGISTRY.implementation(n).trains]
    learning = [
        helpers.learning(implementations=[n], seeds=[0], updates=20, evaluate_every=20)
        for n in trained
    ]
    timed = helpers.speed(*trained, phases=["forward", "train_step"])
    inferred = helpers.speed(*names, phases=["forward", "stream"])
    helpers.write(tmp_path / "s.toml", helpers.suite(*learning, timed, inferred))
    command = ("run", "s.toml", "-o", "out", "-j", 1, "--no-certify")
    call(*command, cwd=tmp_path)
    every = RunFolder.open(tmp_path / "out").records()
    ended = {(r.trial.measure, r.trial.implementation): r for r in every}
    assert ended.keys() >= {("learning", n) for n in trained}
    assert ended.keys() >= {("speed", n) for n in names}
    for record in every:
        assert (record.outcome, record.reason) == ("ok", None)
        assert "changed_process" not in record.result
        assert "changes" not in record.result.get("kernel", "")


@pytest.mark.slow
def test_a_task_that_changes_the_judging_process_is_refused_alone(
    tmp_path: Path, call: Call
) -> None:
    suite = helpers.suite(
        helpers.learning(task="poisons", seeds=[0], updates=20, evaluate_every=20),
        helpers.learning(seeds=[0], updates=20, evaluate_every=20),
    )
    helpers.write(tmp_path / "s.toml", suite)
    command = ("run", "s.toml", "-o", "out", "-j", 1, "--no-certify")
    selected = ("-k", "learning", "--plugin", POISONS)
    code, _, err = call(*command, *selected, cwd=tmp_path)
    assert code == 4, err
    every = RunFolder.open(tmp_path / "out").records()
    ended = {r.trial.task: (r.outcome, r.reason) for r in every}
    assert ended["adding"] == ("ok", None)
    outcome, reason = ended["poisons"]
    assert outcome in ("refused", "failed")
    assert "a cell or a task has changed numpy's error handling" in str(reason)


def test_a_cell_that_changes_a_function_is_refused_and_the_change_undone() -> None:
    add = np.add
    registry = Registry.discover([POISONS])
    with pytest.raises(PluginError, match=r"poisons: changes numpy\.add when it is"):
        load_cell(registry, "poisons")
    assert np.add is add
    assert load_cell(registry, "gru").info.name == "gru"


def test_reading_a_file_changes_nothing_here(tmp_path: Path) -> None:
    text = (
        "import os\nimport numpy as np\nfrom harness import declare_task\n"
        "np.tanh = None\nos.chdir('/')\nnp.seterr(all='raise')\n"
        "declare_task('mine', factory='mine:make')\n"
    )
    before = ProcessState()
    registry = Registry.discover([helpers.write(tmp_path / "mine.py", text)])
    assert "mine" in registry.tasks
    assert before.changes() == []


@pytest.mark.slow
def test_check_says_that_a_task_changes_its_process(tmp_path: Path, call: Call) -> None:
    code, out, _ = call("check", POISONS, cwd=tmp_path)
    assert code != 0
    assert "process unchanged          BROKEN" in out
    assert "changes numpy's error handling" in out
