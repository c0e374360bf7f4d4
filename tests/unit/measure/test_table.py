"""Properties of every entry in the table of measures."""

from __future__ import annotations

from dataclasses import fields

import pytest

from harness.measure import MEASURES
from harness.run.plan.plan import make_plan
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


def test_no_setting_has_the_name_of_a_field_of_a_trial() -> None:
    """It would be ignored where trials are compared as questions."""
    assert not {*SETTINGS} & {each.name for each in fields(Trial)}
