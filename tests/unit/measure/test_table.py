"""Properties of every entry in the table of measures."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from harness.analysis.frame import frame
from harness.analysis.run import JudgedRun
from harness.cli.exits import DONE, NO, NOT_ALL_OK, verdict
from harness.measure import MEASURES, most_updates
from harness.run.estimate.model import CostModel
from harness.run.plan.fingerprint import CERTIFIED_WITH, source_hashes
from harness.run.plan.plan import make_plan
from harness.store import Reading, TrialRecord
from harness.suite import built_in_suites, load_suite
from harness.trial import SETTINGS, Trial
from tests.helpers import REGISTRY

each_measure = pytest.mark.parametrize("name", MEASURES)


@pytest.fixture(scope="module")
def planned() -> dict[str, Trial]:
    """Return a trial of every measure that the built-in suites ask for."""
    trials: list[Trial] = []
    for suite in built_in_suites():
        plan = make_plan(load_suite(suite, REGISTRY), REGISTRY, "cpu", choices={})
        trials += plan.first
        trials += [trial for session in plan.speed.values() for trial in session]
        trials += [trial for group in plan.learning for trial in group.candidates]
    return {trial.measure: trial for trial in trials}


@each_measure
def test_a_built_in_suite_asks_for_every_measure(
    name: str, planned: dict[str, Trial]
) -> None:
    assert name in planned


@each_measure
def test_the_cost_of_a_trial_of_every_measure_is_estimated(
    name: str, planned: dict[str, Trial]
) -> None:
    work = MEASURES[name].work(REGISTRY, planned[name])
    assert work.time_steps + work.start_s > 0


@each_measure
def test_every_measure_either_runs_by_itself_or_is_timed_in_turns(name: str) -> None:
    measure = MEASURES[name]
    assert (measure.run is None) != (measure.meter is None)


@each_measure
def test_a_measure_that_counts_updates_says_how_many(
    name: str, planned: dict[str, Trial]
) -> None:
    """Other trials have no checkpoint to continue from."""
    asked = getattr(planned[name].settings, "updates", 0)
    assert most_updates(planned[name]) == asked
    assert (asked > 0) == (name == "learning")


@each_measure
def test_an_id_covers_libraries_and_processor_if_later_runs_use_the_result(
    name: str, planned: dict[str, Trial]
) -> None:
    covered = {*CERTIFIED_WITH} <= {*source_hashes(REGISTRY, planned[name])}
    assert covered == MEASURES[name].cached == (name == "parity")


@each_measure
@pytest.mark.parametrize("yes", [True, False])
def test_a_no_is_an_exit_code_of_its_own(
    name: str, yes: bool, planned: dict[str, Trial]
) -> None:
    readings = (Reading("certificate", {"certified": yes}),)
    record = TrialRecord("id", planned[name], "ok", None, {}, readings)
    asks = MEASURES[name].verdict is not None
    assert asks == (name == "parity")
    assert verdict([record]) == (NO if asks and not yes else DONE)
    unclear = replace(record, readings=())
    assert verdict([unclear]) == (NO if asks else DONE)
    assert verdict([record, replace(record, outcome="crashed")]) == (
        NO if asks and not yes else NOT_ALL_OK
    )


@each_measure
def test_the_frame_leaves_out_the_optimizer_of_a_trial_that_runs_others(
    name: str, planned: dict[str, Trial]
) -> None:
    record = TrialRecord("id", planned[name], "ok", None, {})
    rows = frame(JudgedRun([record], {}))
    assert rows["learning_rate"].isna().all() == (name == "parity")
    assert MEASURES[name].own_optimizers == (name == "parity")


def test_no_setting_has_the_name_of_a_field_of_a_trial() -> None:
    """It would be ignored where trials are compared as questions."""
    assert not {*SETTINGS} & {each.name for each in fields(Trial)}


def test_a_trial_of_a_measure_of_a_later_version_disturbs_nothing(
    planned: dict[str, Trial],
) -> None:
    trial = replace(planned["parity"], measure="of-later")
    record = TrialRecord("id", trial, "ok", None, {"wall_time_s": 1.0})
    assert verdict([record]) == DONE
    assert CostModel(REGISTRY, [record]).known == 0
