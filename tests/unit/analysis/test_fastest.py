"""Which implementation is fastest: it needs a real advantage and a certificate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.analysis.run import JudgedRun
from harness.analysis.speed.fastest import FastestMap, Spot, fastest_maps
from harness.analysis.speed.relative import speed_rows
from harness.analysis.summary import Summary
from harness.report.figures.fastest import spot_words
from harness.report.tables.fastest import fastest_table, fastest_words
from harness.report.terminal import end_of_run
from harness.store import Reading
from tests import fake_runs
from tests.fake_runs import Writer

WOBBLE = (0.9, 1.1, 0.95, 1.05, 0.9, 1.1, 1.0, 1.0)


def timed(
    writer: Writer,
    name: str,
    time_s: float,
    *,
    certified: bool = True,
    factors: Sequence[float] | None = None,
    shaky: bool = False,
    step_s: float | None = None,
    **changes: Any,
) -> None:
    """Commit whole updates of one implementation, and its certificate."""
    budget = {k: v for k, v in changes.items() if k in ("threads", "dtype")}
    broken = None if certified else "grad w_hh"
    fake_runs.parity(writer, name, "gru", broken=broken, **budget)
    trial = fake_runs.shape_trial(name, "gru", **changes)
    phases = {"train_step": 1.0}
    fake_runs.speed(
        writer, trial, time_s, factors=factors, shaky=shaky, step_s=step_s,
        phases=phases,
    )  # fmt: skip


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer.create(tmp_path / "run", {"suite": {"name": "timed"}})


def summary(writer: Writer) -> Summary:
    return fake_runs.summary(writer.run)


def only(writer: Writer) -> Spot:
    (found,) = summary(writer).fastest
    (spot,) = found.spots
    return spot


def test_a_real_advantage_wins(writer: Writer) -> None:
    timed(writer, "slow", 0.0105)
    timed(writer, "fast", 0.0100)
    timed(writer, "slower", 0.0200)
    spot = only(writer)
    assert (spot.winner, spot.runner_up) == ("fast", "slow")
    assert spot.certified == ("fast", "slow", "slower")
    assert spot.ratio == pytest.approx(1.05)
    assert fastest_words(spot) == "fast"
    assert spot_words(spot) == ("fast\n1.05 ×",)


def test_less_than_two_percent_is_not_an_advantage(writer: Writer) -> None:
    timed(writer, "slow", 0.01019)
    timed(writer, "fast", 0.01000)
    timed(writer, "slower", 0.0200)
    spot = only(writer)
    assert (spot.winner, spot.equals) == (None, ("fast", "slow"))
    assert fastest_words(spot) == "fast ≈ slow"
    assert spot_words(spot) == ("fast", "≈ slow")


def test_an_interval_that_holds_one_is_not_an_advantage(writer: Writer) -> None:
    timed(writer, "fast", 0.0100)
    timed(writer, "slow", 0.0103, factors=WOBBLE)
    spot = only(writer)
    assert spot.interval is not None
    assert spot.interval.low <= 1 < spot.interval.high
    assert spot.equals == ("fast", "slow")


def test_a_drift_of_the_machine_does_not_hide_an_advantage(writer: Writer) -> None:
    # The intervals of the times overlap: 10 % each way, with a drift of 25 %.
    timed(writer, "fast", 0.0100)
    timed(writer, "slow", 0.0103)
    assert only(writer).winner == "fast"


def test_without_rounds_the_intervals_of_the_times_decide(writer: Writer) -> None:
    for name, time_s in (("fast", 0.010), ("near", 0.0115), ("far", 0.0130)):
        fake_runs.parity(writer, name, "gru")
        ends = {"time_low_s": 0.9 * time_s, "time_high_s": 1.1 * time_s}
        values = {"time_s": time_s, **ends}
        trial = fake_runs.shape_trial(name, "gru")
        readings = [Reading("forward", values), fake_runs.readback(True)]
        writer.commit(trial, readings=readings)
    assert only(writer).equals == ("fast", "near")


def test_an_uncertified_implementation_never_wins_and_is_named(writer: Writer) -> None:
    timed(writer, "wrong", 0.001, certified=False)
    timed(writer, "right", 0.010)
    timed(writer, "also-wrong", 0.020, certified=False)
    spot = only(writer)
    assert (spot.winner, spot.certified) == ("right", ("right",))
    assert spot.faster_uncertified == ("wrong",)
    (row,) = fastest_table(summary(writer)).rows
    assert row.cells[-1] == "wrong uncertified (faster); also-wrong uncertified"
    assert spot_words(spot) == ("right\nalone †",)


def test_nothing_is_the_fastest_without_a_certificate(writer: Writer) -> None:
    timed(writer, "wrong", 0.001, certified=False)
    timed(writer, "also-wrong", 0.002, certified=False)
    spot = only(writer)
    assert (spot.winner, spot.equals, spot.ratio) == (None, (), None)
    (row,) = fastest_table(summary(writer)).rows
    assert row.cells[4] == "none certified"
    assert row.tone == "doubt"


def test_a_trial_that_did_not_end_ok_is_named(writer: Writer) -> None:
    timed(writer, "fast", 0.01)
    trial = fake_runs.shape_trial("big", "gru")
    writer.commit(trial, outcome="out_of_memory", reason="9 GiB")
    assert only(writer).failures == (("big", "out_of_memory"),)
    unknown = fake_runs.shape_trial("none", "gru", session="never begun")
    writer.commit(unknown, outcome="unavailable", reason="no module")
    assert ("none", "unavailable") in only(writer).failures
    (row,) = fastest_table(summary(writer)).rows
    assert row.cells[-1] == "big out of memory; none unavailable"


def test_the_map_shows_a_size_at_which_all_failed(writer: Writer) -> None:
    timed(writer, "fast", 0.01, batch=1)
    for name in ("fast", "big"):
        trial = fake_runs.shape_trial(name, "gru", batch=64)
        writer.commit(trial, outcome="out_of_memory", reason="9 GiB")
    (found,) = summary(writer).fastest
    assert [(s.batch, s.equals) for s in found.spots] == [(1, ("fast",)), (64, ())]
    assert spot_words(found.spots[1]) == ("out\nof\nmemory",)


def test_shaky_timings_are_marked(writer: Writer) -> None:
    timed(writer, "fast", 0.01)
    timed(writer, "slow", 0.02, shaky=True)
    assert spot_words(only(writer)) == ("fast\n2.00 × shaky",)
    (row,) = fastest_table(summary(writer)).rows
    assert (row.cells[4], row.cells[8]) == ("fast", "slow (shaky)")


def test_sessions_are_not_mixed_and_the_latest_counts(writer: Writer) -> None:
    timed(writer, "early", 0.001, session="a")
    timed(writer, "late", 0.010, session="b")
    spot = only(writer)
    assert (spot.winner, spot.certified, spot.session) == ("late", ("late",), "b")


@pytest.mark.parametrize(
    "changes",
    [{"threads": 2}, {"dtype": "float64"}, {"time_steps": 50}, {"num_layers": 2}],
)
def test_different_conditions_have_separate_maps(
    writer: Writer, changes: dict[str, Any]
) -> None:
    timed(writer, "one", 0.01)
    timed(writer, "other", 0.02, **changes)
    maps = summary(writer).fastest
    assert [[s.certified for s in m.spots] for m in maps] == [[("one",)], [("other",)]]


def test_single_time_steps_have_batch_one_whatever_the_batch_of_the_trial(
    writer: Writer,
) -> None:
    for batch in (1, 64):
        for width in (64, 128):
            sizes = {"batch": batch, "hidden_size": width}
            timed(writer, "a", 0.01, step_s=1e-4, session=f"{batch} {width}", **sizes)
    maps = {found.phase: found for found in summary(writer).fastest}
    assert [(s.batch, s.hidden_size) for s in maps["stream"].spots] == [
        (1, 64),
        (1, 128),
    ]
    assert len(maps["train_step"].spots) == 4


def test_single_time_steps_have_one_map_whatever_the_other_sizes(
    writer: Writer,
) -> None:
    for steps in (20, 80):
        for name in ("torch-native", "jax-scan"):
            timed(writer, name, 0.01, step_s=1e-4, time_steps=steps, session=f"{steps}")
    maps = [m for m in summary(writer).fastest if m.phase == "stream"]
    assert [m.where for m in maps] == ["input size 64"]
    assert [spot.session for spot in maps[0].spots] == ["80"]


def test_the_fastest_is_the_one_that_no_other_beats_in_most_rounds(
    writer: Writer,
) -> None:
    timed(writer, "torch-native", 0.010, factors=[1.0] * 8)
    timed(writer, "jax-scan", 0.011, factors=[0.6] * 8)
    spot = only(writer)
    assert (spot.winner, spot.runner_up) == ("jax-scan", "torch-native")
    assert spot.ratio == pytest.approx(1 / 0.66)


def test_a_single_implementation_has_no_table_of_the_fastest(writer: Writer) -> None:
    timed(writer, "alone", 0.01)
    found = summary(writer)
    assert len(found.fastest) == 1
    assert fastest_table(found).rows == ()


def test_a_run_of_many_sizes_ends_with_the_fastest(tmp_path: Path) -> None:
    run = fake_runs.sweep(tmp_path / "run")
    console = Console(width=150, force_terminal=False)
    with console.capture() as capture:
        console.print(end_of_run(fake_runs.summary(run)))
    shown = capture.get()
    assert "fastest certified" in shown
    assert "× fastest" not in shown, "the timings are for `show`"


def test_many_equal_implementations_are_counted(writer: Writer) -> None:
    for name in "abcde":
        timed(writer, name, 0.01)
    spot = only(writer)
    assert fastest_words(spot) == "a ≈ b ≈ c ≈ 2 more"
    assert spot_words(spot) == ("a", "≈ b\n+ 3 more")


def test_the_fastest_is_named_with_its_library_and_kernel(writer: Writer) -> None:
    timed(writer, "b", 0.02)
    ran = {"framework": "jax 0.9.1", "kernel": "XLA while loop"}
    fake_runs.parity(writer, "a", "gru", facts=ran)
    fake_runs.speed(writer, fake_runs.shape_trial("a", "gru"), 0.01, **ran)
    table = fastest_table(summary(writer))
    shown = dict(zip(table.blocks[0].head, table.rows[-1].cells, strict=True))
    assert shown["phase"] == "train step"
    assert (shown["fastest certified"], shown["library"]) == ("a", "jax 0.9.1")
    assert shown["kernel"] == "XLA while loop"


def test_the_title_of_a_map_has_the_common_conditions(writer: Writer) -> None:
    timed(writer, "a", 0.01)
    timed(writer, "b", 0.01)
    (found,) = summary(writer).fastest
    assert isinstance(found, FastestMap)
    (block,) = fastest_table(summary(writer)).blocks
    assert block.title == "100 time steps · input size 64 · 1 thread · float32"


def test_one_turn_cannot_show_an_advantage(writer: Writer) -> None:
    for name, time_s in (("torch-native", 0.01), ("jax-scan", 0.02)):
        trial = fake_runs.speed_trial(name, "gru")
        fake_runs.parity(writer, name, "gru")
        values = {"time_s": time_s, "time_low_s": time_s, "time_high_s": time_s}
        once = {"sample_s": [time_s, time_s], "round": [0, 0]}
        writer.commit(
            trial,
            readings=[
                Reading("forward", {**values, "shaky": 1}),
                Reading("forward", once, [0, 1], "readings"),
                fake_runs.readback(True),
            ],
            session="one, 2026-01-01 10:00:00",
        )
    rows = speed_rows(JudgedRun.read(writer.run))
    assert [row.time for row in rows] == [None, None]
    ((spot,),) = [found.spots for found in fastest_maps(rows)]
    assert set(spot.equals) == {"torch-native", "jax-scan"}
    assert spot.interval is None
