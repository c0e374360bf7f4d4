"""Plugins whose timings are wrong: each is caught or marked."""

from pathlib import Path

import numpy as np
import pytest

from harness.registry import Registry
from harness.store import RunFolder, TrialRecord
from tests import helpers

pytestmark = pytest.mark.alone
Shape = dict[str, int]
SHAPE = {"batch": 16, "time_steps": 60, "input_size": 2, "hidden_size": 48}
ROUNDS = 30
"""So many readings that what is built at each 61st call is in some that are kept."""


def measure(
    folder: Path, plugin: Path, rounds: int, *names: str, shape: Shape = SHAPE
) -> dict[str, TrialRecord]:
    section = helpers.speed(*names, rounds=rounds, shapes=[shape])
    helpers.write(folder / "s.toml", helpers.suite(section))
    code, out, err = helpers.run(
        *("run", "s.toml", "-o", "r", "--no-certify", "--plugin", plugin),
        # Under a memory limit, the highest rates of this machine are not measured.
        *("--memory-limit", "8G"),
        cwd=folder,
    )
    assert code == 0, out + err
    records = RunFolder.open(folder / "r").records()
    return {r.trial.implementation: r for r in records if r.trial.measure == "speed"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrialRecord]:
    names = ("never-waits", "builds-late", "builds-often", "many-threads")
    folder = tmp_path_factory.mktemp("untimely")
    plugin = helpers.PLUGINS / "untimely.py"
    return measure(folder, plugin, ROUNDS, *names, "keeps-time")


def measure_two(
    plugin: str, name: str, honest: str, folder: Path, shape: Shape = SHAPE
) -> dict[str, TrialRecord]:
    """Time a plugin and an honest implementation of its framework."""
    if (reason := Registry.discover().unavailable(honest)) is not None:
        pytest.skip(reason)
    file = helpers.PLUGINS / f"{plugin}.py"
    return measure(folder, file, 6, name, honest, shape=shape)


def marks(record: TrialRecord) -> dict[str, str]:
    """Return the words of each kind of reason why a timing is shaky."""
    found = record.result["unstable"].get("forward", [])
    return {reason["kind"]: reason["words"] for reason in found}


def loads(record: TrialRecord) -> tuple[float, float]:
    """Return the number of cores that it kept busy, and that others did."""
    seen = next(r.values for r in record.readings if "own_load" in r.values)
    return float(np.median(seen["own_load"])), float(np.mean(seen["other_load"]))


def skip_where_others_had_the_cores(record: TrialRecord) -> None:
    own, others = loads(record)
    if own < 1.3 and others > 0.3:
        pytest.skip("other processes used the cores")


def test_a_network_that_does_not_wait_is_not_certified(
    measured: dict[str, TrialRecord],
) -> None:
    record = measured["never-waits"]
    assert record.value("readback", "ok") == 0
    assert "computed when it was read" in record.result["read_back_at"]


def test_a_build_during_timing_is_marked(
    measured: dict[str, TrialRecord],
) -> None:
    assert "jump" in marks(measured["builds-late"])
    assert measured["builds-late"].value("forward", "shaky") == 1


def test_a_build_in_every_fifth_call_is_marked(
    measured: dict[str, TrialRecord],
) -> None:
    record = measured["builds-often"]
    assert record.value("readback", "ok") == 1
    assert "some calls took 1" in marks(record)["uneven"]
    assert record.value("forward", "shaky") == 1


def test_a_compilation_in_every_call_is_marked(tmp_path: Path) -> None:
    measured = measure_two("untimely_jax", "builds-always", "jax-scan", tmp_path)
    words = marks(measured["builds-always"])["built"]
    assert words == "the framework traced or compiled in 6 of 6 turns"
    assert not {"uneven", "built", "threads", "clock"} & set(
        marks(measured["jax-scan"])
    )


def test_using_more_threads_than_allowed_is_marked(
    measured: dict[str, TrialRecord],
) -> None:
    record = measured["many-threads"]
    skip_where_others_had_the_cores(record)
    assert "threads" in marks(record)
    assert measured["many-threads"].value("forward", "shaky") == 1


def test_computing_in_another_process_is_marked(tmp_path: Path) -> None:
    plugin = helpers.PLUGINS / "untimely_child.py"
    record = measure(tmp_path, plugin, 6, "busy-child")["busy-child"]
    assert record.value("readback", "ok") == 1
    skip_where_others_had_the_cores(record)
    assert "cores busy where 1 thread was asked for" in marks(record)["threads"]


def test_setting_a_framework_to_more_threads_is_marked(tmp_path: Path) -> None:
    small = {**SHAPE, "batch": 2, "hidden_size": 4}
    names = ("untimely_torch", "sets-threads", "torch-native")
    measured = measure_two(*names, tmp_path, small)
    words = marks(measured["sets-threads"])["threads"]
    assert words.startswith("was set to 2 threads")
    assert "where 1 thread was asked for" in words
    # It has changed its process, and nobody else is timed in it.
    assert "threads" not in marks(measured["torch-native"])


def test_a_network_without_these_mistakes_has_none_of_these_marks(
    measured: dict[str, TrialRecord],
) -> None:
    record = measured["keeps-time"]
    assert record.value("readback", "ok") == 1
    mistakes = {"jump", "uneven", "built", "threads", "clock"}
    assert not mistakes & set(marks(record))
