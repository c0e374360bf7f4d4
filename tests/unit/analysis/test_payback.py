"""When a costly first call has paid back, compared with adding up every call."""

from pathlib import Path

import pytest

from harness.analysis.speed.payback import Payback, payback, paybacks
from harness.analysis.speed.timings import SpeedRow
from harness.report.tables.first_calls import first_calls_table, paid_back
from tests import fake_runs
from tests.fake_runs import Writer

PHASES = {"train_step": 1.0}
NEXT_TO_NOTHING_S = 1e-9


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer.create(tmp_path / "run", {"suite": {"name": "timed"}})


def timed(
    writer: Writer, name: str, first_s: float, time_s: float, *, certified: bool = True
) -> None:
    fake_runs.parity(writer, name, "gru", broken=None if certified else "grad w_hh")
    trial = fake_runs.speed_trial(name, "gru")
    fake_runs.speed(writer, trial, time_s, first_call_s=first_s, phases=PHASES)


def rows(writer: Writer) -> dict[str, SpeedRow]:
    found = fake_runs.summary(writer.run).speed
    return {row.implementation: row for row in found}


def found(writer: Writer) -> dict[str, Payback]:
    return {
        each.row.implementation: each for each in paybacks(list(rows(writer).values()))
    }


def first_even(
    first_s: float, time_s: float, other_first_s: float, other_s: float
) -> int:
    """Return after how many calls the first one has taken no more time in total."""
    ours, theirs, calls = first_s, other_first_s, 1
    while ours > theirs:
        ours, theirs, calls = ours + time_s, theirs + other_s, calls + 1
    return calls


@pytest.mark.parametrize(
    ("first_s", "time_s"), [(14.0, 0.005), (0.8, 0.0071), (0.03, 0.001), (2.0, 0.0099)]
)
def test_the_number_of_calls_is_that_of_adding_up_each_call(
    writer: Writer, first_s: float, time_s: float
) -> None:
    timed(writer, "plain", 0.02, 0.01)
    timed(writer, "compiled", first_s, time_s)
    calls = found(writer)["compiled"].calls
    assert calls is not None
    expected = first_even(first_s, time_s, 0.02, 0.01)
    assert expected - 1 < calls <= expected + 1e-6


def test_the_interval_is_from_both_ends_of_both_times(writer: Writer) -> None:
    # The invented interval is 10 % each way.
    timed(writer, "plain", NEXT_TO_NOTHING_S, 0.010)
    timed(writer, "compiled", 1.0, 0.005)
    each = found(writer)["compiled"]
    assert each.calls == pytest.approx(1 + 1.0 / 0.005)
    assert each.low == pytest.approx(1 + 1.0 / (0.011 - 0.0045))
    assert each.high == pytest.approx(1 + 1.0 / (0.009 - 0.0055))


def test_payback_may_be_never_if_the_times_may_be_equal(writer: Writer) -> None:
    timed(writer, "plain", NEXT_TO_NOTHING_S, 0.0100)
    timed(writer, "compiled", 1.0, 0.0095)
    each = found(writer)["compiled"]
    assert each.high is None
    assert paid_back(each).endswith(", never]")


def test_an_implementation_that_is_not_faster_later_never_pays_back(
    writer: Writer,
) -> None:
    timed(writer, "plain", NEXT_TO_NOTHING_S, 0.010)
    timed(writer, "compiled", 1.0, 0.010)
    each = found(writer)["compiled"]
    assert paid_back(each) == "never: not faster later"


def test_an_implementation_whose_first_call_costs_no_more_pays_back_at_once(
    writer: Writer,
) -> None:
    timed(writer, "plain", 1.0, 0.010)
    timed(writer, "wrong", 0.5, 0.005, certified=False)
    each = found(writer)["wrong"]
    assert each.calls == 1
    assert paid_back(each) == "at once"


def test_all_are_compared_with_the_cheapest_certified_implementation(
    writer: Writer,
) -> None:
    timed(writer, "wrong", NEXT_TO_NOTHING_S, 0.002, certified=False)
    timed(writer, "plain", 0.1, 0.020)
    timed(writer, "compiled", 5.0, 0.001)
    every = found(writer)
    against = {name: each.against for name, each in every.items()}
    assert {row.implementation for row in against.values() if row} == {"plain"}
    assert every["plain"].is_cheapest


def test_nothing_is_compared_without_a_certified_implementation(
    writer: Writer,
) -> None:
    timed(writer, "wrong", 1.0, 0.01, certified=False)
    each = found(writer)["wrong"]
    assert (each.against, each.calls) == (None, None)
    assert paid_back(each) is None


def test_sessions_are_not_mixed(writer: Writer) -> None:
    for name, session in (("plain", "a"), ("compiled", "b")):
        fake_runs.parity(writer, name, "gru")
        trial = fake_runs.speed_trial(name, "gru", session=session)
        fake_runs.speed(writer, trial, 0.01, phases=PHASES)
    assert all(each.is_cheapest for each in found(writer).values())


def test_the_table_has_every_first_call_and_marks_doubts(writer: Writer) -> None:
    timed(writer, "plain", 0.02, 0.01)
    timed(writer, "compiled", 14.0, 0.005)
    timed(writer, "wrong", 1.0, 0.001, certified=False)
    table = first_calls_table(fake_runs.summary(writer.run))
    assert {row.cells[3:5] for row in table.rows} == {("torch 2.13.0", "aten::gru")}
    shown = {row.cells[1]: row.cells[7:] for row in table.rows}
    assert shown["plain"] == ("–", "cheapest at first")
    assert shown["compiled"][0] == "plain"
    assert shown["compiled"][1].startswith("2.8k calls [")
    assert shown["wrong · uncertified"][1].startswith("110 calls [")


def test_a_row_can_be_compared_with_any_other(writer: Writer) -> None:
    timed(writer, "a", 1.0, 0.01)
    timed(writer, "b", 2.0, 0.005)
    known = rows(writer)
    assert payback(known["b"], known["a"]).calls == pytest.approx(201)
    assert payback(known["a"], known["b"]).calls is None
