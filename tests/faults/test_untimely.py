"""Mistakes in how something is timed, made by plugins: each is caught or marked."""

import numpy as np
import pytest

from harness.store import RunFolder, TrialRecord
from tests import helpers

# So many readings that what is built at each 61st call is in some that are kept.
SECTION = {
    "shapes": [{"batch": 16, "time_steps": 60, "input_size": 2, "hidden_size": 48}],
    "rounds": 30,
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrialRecord]:
    folder = tmp_path_factory.mktemp("untimely")
    names = ("never-waits", "builds-late", "many-threads", "keeps-time")
    helpers.write(folder / "s.toml", helpers.suite(helpers.speed(*names, **SECTION)))
    plugin = helpers.PLUGINS / "untimely.py"
    code, out, err = helpers.run(
        "run", "s.toml", "-o", "r", "--plugin", plugin, cwd=folder
    )
    assert code == 0, out + err
    records = RunFolder.open(folder / "r").records()
    return {r.trial.implementation: r for r in records if r.trial.measure == "speed"}


def kinds(record: TrialRecord) -> set[str]:
    return {reason["kind"] for reason in record.result["unstable"].get("forward", [])}


def test_what_does_not_wait_is_not_certified(
    measured: dict[str, TrialRecord],
) -> None:
    record = measured["never-waits"]
    assert record.value("readback", "ok") == 0
    assert "computed when it was read" in record.result["read_back_at"]


def test_what_builds_while_it_is_timed_is_marked(
    measured: dict[str, TrialRecord],
) -> None:
    assert "jump" in kinds(measured["builds-late"])
    assert measured["builds-late"].value("forward", "shaky") == 1


def test_what_uses_more_threads_than_it_may_is_marked(
    measured: dict[str, TrialRecord],
) -> None:
    record = measured["many-threads"]
    loads = [r.values for r in record.readings if "own_load" in r.values]
    if np.median(loads[0]["own_load"]) < 1.3 and np.mean(loads[0]["other_load"]) > 0.3:
        pytest.skip("others had the cores that it would have taken")
    assert "threads" in kinds(record)
    assert measured["many-threads"].value("forward", "shaky") == 1


def test_what_makes_none_of_these_mistakes_has_none_of_these_marks(
    measured: dict[str, TrialRecord],
) -> None:
    record = measured["keeps-time"]
    assert record.value("readback", "ok") == 1
    assert not {"jump", "threads", "clock"} & kinds(record)
