"""What is shown beside a time: peak, doubt, memory, differences of machines."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness.analysis.speed import relative
from harness.analysis.speed.conditions import budget_of
from harness.analysis.speed.latency import SHARES, latency
from harness.analysis.speed.relative import Ratio, fastest_of, paired_ratio
from harness.analysis.speed.timings import SpeedRow
from harness.analysis.summary import Summary
from harness.intervals import Interval, fewest_to_enclose
from harness.machine.peak import Peak, Rate
from harness.report.header import NAMES
from harness.report.tables.fastest import fastest_table
from harness.report.tables.first_calls import first_calls_table
from harness.report.tables.form import ends
from harness.report.tables.latency import latency_table
from harness.report.tables.peaks import peaks_table
from harness.report.tables.rates import rates_table
from harness.report.tables.shaky import shaky_table
from harness.report.tables.solve_time import solve_table
from harness.report.tables.speed import speed_table
from harness.report.terminal import render
from harness.report.text import percent, seconds, size, times
from harness.run.plan.derived import memory_trial
from harness.store import Reading, to_json
from harness.trial import Conditions, SpeedSettings
from tests import fake_runs
from tests.fake_runs import Writer


def summary(writer: Writer) -> Summary:
    return fake_runs.summary(writer.run)


def row(found: Summary, phase: str = "train_step", **asked: Any) -> SpeedRow:
    (kept,) = (
        each
        for each in found.speed
        if each.phase == phase and all(getattr(each, k) == v for k, v in asked.items())
    )
    return kept


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer.create(tmp_path / "run", {"suite": {"name": "timed"}})


def certified(writer: Writer, *names: str, **changes: Any) -> None:
    for name in names:
        fake_runs.parity(writer, name, "gru", **changes)


# --- ratios --------------------------------------------------------------------------


def turns(*factors: float, base: float = 1.0) -> dict[int, float]:
    return {n: base * f for n, f in enumerate(factors)}


def interval(base: Mapping[int, float], new: Mapping[int, float]) -> Interval | None:
    found = paired_ratio(base, new)
    assert found is not None
    return found.interval


def test_a_slow_round_does_not_change_its_ratio() -> None:
    drift = [1.0, 1.4, 1.8, 2.2, 2.6, 3.0, 3.4, 3.8]
    base, new = turns(*drift), turns(*drift, base=1.1)
    found = paired_ratio(base, new)
    assert found is not None
    assert found.interval is not None
    assert found.value == pytest.approx(1.1)
    assert (found.interval.low, found.interval.high) == pytest.approx((1.1, 1.1))


def test_only_rounds_in_common_are_paired() -> None:
    base = turns(1, 1, 1, 1, 1, 1, 1)
    new = {n: 2.0 if n < 6 else 50.0 for n in (0, 1, 2, 3, 4, 5, 90, 91, 92)}
    found = paired_ratio(base, new)
    assert found is not None
    assert found.value == pytest.approx(2.0)
    assert paired_ratio(base, {7: 1.0}) is None
    assert interval({0: 1.0}, {0: 1.0}) is None, "one round has no interval"


def test_a_ratio_of_too_few_rounds_has_no_interval() -> None:
    assert interval(turns(*[1] * 5), turns(0.9, 1.3, 1.0, 1.0, 1.0)) is None
    assert interval(turns(*[1] * 6), turns(0.9, 1.3, *[1.0] * 4)) is not None


def test_the_interval_of_a_ratio_holds_the_truth_at_its_stated_rate() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        drift = np.exp(np.cumsum(0.1 * rng.standard_normal(20)))
        one, other = np.exp(0.05 * rng.standard_normal((2, 20)))
        base = {n: float(t) for n, t in enumerate(drift * one)}
        new = {n: float(t) for n, t in enumerate(1.1 * drift * other)}
        found = interval(base, new)
        assert found is not None
        held += found.low <= 1.1 <= found.high
    # 95 % of 200, minus three standard deviations.
    assert held >= 180
    assert held < 200, "an interval that always holds it says nothing"


def test_without_rounds_the_ends_of_both_intervals_count() -> None:
    assert Interval(4.0, 6.0).over(Interval(1.0, 2.0)) == Interval(2.0, 6.0)


def test_the_ratio_of_a_row_is_paired_and_has_an_interval(writer: Writer) -> None:
    certified(writer, "torch-native", "jax-scan")
    fake_runs.speed(writer, fake_runs.speed_trial("torch-native", "gru"), 0.01)
    factors = [1.0, 1.1, 1.0, 1.2, 1.0, 1.1, 1.2, 1.1]
    slower = fake_runs.speed_trial("jax-scan", "gru")
    fake_runs.speed(writer, slower, 0.02, factors=factors)
    found = summary(writer)
    assert row(found, implementation="torch-native").relative == 1.0
    assert row(found, implementation="torch-native").relative_interval is None
    other = row(found, implementation="jax-scan")
    assert other.relative == pytest.approx(2 * 1.1)
    interval = other.relative_interval
    assert interval is not None
    assert 2.0 <= interval.low < 2.2 < interval.high <= 2.4


# --- different conditions are separate ------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 2},
        {"dtype": "float64"},
        {"precision": "tf32"},
        {"device": "cuda:0"},
        {"hidden_size": 128},
        {"batch": 64},
        {"num_layers": 2},
    ],
)
def test_timings_of_different_conditions_share_neither_block_nor_ratio(
    writer: Writer, changes: dict[str, Any]
) -> None:
    certified(writer, "torch-native")
    certified(writer, "jax-scan", **{k: v for k, v in changes.items() if k in BUDGET})
    fake_runs.speed(writer, fake_runs.speed_trial("torch-native", "gru"), 0.01)
    # Each implementation has one condition only, so none varies within it.
    other = fake_runs.speed_trial("jax-scan", "gru", **changes)
    fake_runs.speed(writer, other, 0.02)
    found = summary(writer)
    assert len({each.heading for each in found.speed}) == 2
    assert {each.relative for each in found.speed} == {1.0}
    for table in (speed_table(found), rates_table(found)):
        assert [len({r.implementation for r in b.rows}) for b in table.blocks] == [1, 1]


BUDGET = ("threads", "dtype", "precision", "device")


def test_the_budget_is_printed_above_every_block(writer: Writer) -> None:
    fake_runs.speed(writer, fake_runs.speed_trial("torch-native", "gru"), 0.01)
    found = summary(writer)
    (block,) = speed_table(found).blocks
    assert block.title == "adding, length 100 · 1 thread · float32"
    tf32 = fake_runs.speed_trial("torch-native", "gru", precision="tf32", threads=4)
    fake_runs.speed(writer, tf32, 0.01)
    titles = [block.title for block in speed_table(summary(writer)).blocks]
    assert titles[1] == "adding, length 100 · 4 threads · float32, TF32"


@pytest.mark.parametrize(
    ("device", "dtype", "precision", "words"),
    [
        ("cpu", "float32", "highest", "1 thread · float32"),
        ("cpu", "float32", "bf16", "1 thread · float32, bf16 autocast"),
        ("cuda:0", "float32", "highest", "cuda:0 · 1 thread · float32, TF32 off"),
        ("cuda:0", "float32", "tf32", "cuda:0 · 1 thread · float32, TF32"),
        ("cuda:0", "float32", "bf16", "cuda:0 · 1 thread · float32, bf16 autocast"),
        ("cuda:0", "float64", "highest", "cuda:0 · 1 thread · float64"),
    ],
)
def test_a_budget_says_whether_tf32_is_off(
    device: str, dtype: str, precision: str, words: str
) -> None:
    assert budget_of(Conditions("", device, 1, dtype, precision)) == words


def test_library_and_kernel_are_shown_beside_every_timing(writer: Writer) -> None:
    certified(writer, "torch-native", "jax-scan")
    fake_runs.learning(writer, fake_runs.learning_trial("gru", 0), 800)
    for name in ("torch-native", "jax-scan"):
        trial = fake_runs.speed_trial(name, "gru")
        fake_runs.speed(writer, trial, 0.01, step_s=1e-4, kernel="what ran")
    found = summary(writer)
    for table in (
        speed_table(found),
        rates_table(found),
        latency_table(found),
        fastest_table(found),
        first_calls_table(found),
        solve_table(found),
    ):
        (block,) = table.blocks
        assert block.title.endswith("1 thread · float32"), table.name
        for line in block.rows:
            shown = dict(zip(block.head, line.cells, strict=True))
            assert shown["library"] == "torch 2.13.0", table.name
            assert shown["kernel"] == "what ran", table.name


def test_the_flags_of_xla_are_shown(writer: Writer) -> None:
    trial = fake_runs.speed_trial("jax-scan", "gru")
    pinned = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    fake_runs.speed(writer, trial, 0.01, kernel="XLA while loop", pinned=pinned)
    other = fake_runs.speed_trial("torch-native", "gru")
    fake_runs.speed(writer, other, 0.01, pinned=pinned)
    assert speed_table(summary(writer)).notes[-1] == (
        "XLA compiled jax-scan (1 thread · float32) with "
        "--xla_cpu_multi_thread_eigen=false."
    )


def test_the_session_is_named_only_for_trials_measured_twice(writer: Writer) -> None:
    for session in ("a", "b"):
        trial = fake_runs.speed_trial("torch-native", "gru", session=session)
        fake_runs.speed(writer, trial, 0.01, session=f"{session}, 2026-11-26 12:00")
    fake_runs.speed(writer, fake_runs.shape_trial("torch-native", "gru"), 0.01)
    titles = {each.heading.title for each in summary(writer).speed}
    assert {title.partition("session ")[2] for title in titles} == {
        "a, 2026-11-26 12:00",
        "b, 2026-11-26 12:00",
        "",
    }


# --- the peak ------------------------------------------------------------------------


def test_the_roof_is_the_lower_of_both_limits() -> None:
    peak = Peak(Rate(80e9), Rate(12e9))
    assert peak.roof(2.0) == 24e9
    assert peak.roof(100.0) == 80e9
    assert peak.ridge == pytest.approx(80 / 12)
    assert Peak(Rate(80e9)).roof(2.0) is None


def test_fractions_are_of_the_peak_stored_with_the_timing(writer: Writer) -> None:
    trial = fake_runs.shape_trial("torch-native", "gru")
    fake_runs.speed(writer, trial, 0.1, peak=fake_runs.PEAK, step_s=1e-4)
    found = summary(writer)
    update, step = row(found), row(found, "stream")
    # A GRU of 64 inputs and 128 units has 3 · 128 · (128 + 64 + 1) weights.
    weights = 3 * 128 * 193
    assert update.flop_per_s == pytest.approx(2 * 3 * weights * 3200 / 0.1)
    assert update.of_peak == pytest.approx((update.flop_per_s or 0) / 80e9)
    assert update.roof_flop_per_s == 80e9
    intensity = 2 * weights / (4 * weights + 4 * 128)
    assert step.intensity == pytest.approx(intensity)
    assert step.roof_flop_per_s == pytest.approx(12e9 * intensity)
    assert step.of_roof == pytest.approx(2 * weights / 1e-4 / (12e9 * intensity))
    (peak,) = peaks_table(found).rows
    shown = ("1 thread · float32", "80", "torch 2.13.0", "12", "numpy", "6.67")
    assert peak.cells[1:] == shown


def test_a_peak_that_doctor_found_names_its_library_and_date(
    writer: Writer,
) -> None:
    dated = {
        **fake_runs.PEAK,
        "flop_by": "jax, doctor",
        "flop_versions": "jax 0.9.2",
        "flop_measured_at": "2026-11-26 10:00:00",
    }
    undated = {**fake_runs.PEAK, "copy_by": "numpy, doctor"}
    for threads, peak in ((1, dated), (2, undated)):
        trial = fake_runs.speed_trial("torch-native", "gru", threads=threads)
        fake_runs.speed(writer, trial, 0.01, peak=peak)
    found = summary(writer)
    notes = rates_table(found).notes
    assert notes[1:] == (
        "The peak of 1 thread · float32 is of jax 0.9.2, as doctor found it at "
        "2026-11-26 10:00:00 UTC.",
        "The copy bandwidth of 2 threads · float32 is of numpy, as doctor found "
        "it earlier.",
    )
    assert "once in a command" in notes[0]
    assert "same session" not in notes[0]
    shown = [line.cells[3::2] for line in peaks_table(found).rows]
    assert shown == [
        ("jax 0.9.2, doctor 2026-11-26 10:00:00", "numpy"),
        ("torch 2.13.0", "numpy, doctor"),
    ]


def test_a_peak_of_an_unfit_machine_is_marked_wherever_it_is_used(
    writer: Writer,
) -> None:
    peak = {**fake_runs.PEAK, "flop_machine": "unfit", "copy_machine": "noisy"}
    trial = fake_runs.shape_trial("torch-native", "gru")
    fake_runs.speed(writer, trial, 0.1, peak=peak, step_s=1e-4)
    found = summary(writer)
    rates = {line.cells[2]: line.cells for line in rates_table(found).rows}
    marked = {n: [c.endswith("% (unfit)") for c in rates[n]] for n in rates}
    assert sum(marked["train step"]) == 2
    # A single time step is below the ridge, where memory is the limit.
    assert sum(marked["stream"]) == 1
    (line,) = peaks_table(found).rows
    assert line.cells[3::2] == ("torch 2.13.0 (unfit)", "numpy")


def test_the_best_and_worst_peak_of_several_sessions_are_shown(
    writer: Writer, tmp_path: Path
) -> None:
    for name, rate in (("a", 7e10), ("b", 8e10), ("c", 6e10)):
        trial = fake_runs.speed_trial("torch-native", "gru", session=name)
        peak = {**fake_runs.PEAK, "flop_per_s": rate, "flop_by": name}
        fake_runs.speed(writer, trial, 0.01, peak=peak)
    (found,) = peaks_table(summary(writer)).rows
    assert found.cells[2:4] == ("80 (60)", "b")
    shared = fake_runs.sweep(tmp_path / "shared", names=("jax-scan",), step_s=False)
    (found,) = peaks_table(fake_runs.summary(shared)).rows
    assert found.cells[2] == "80", "of several sessions that share one, no worst"


def test_conditions_without_a_peak_are_named(writer: Writer) -> None:
    one = fake_runs.speed_trial("torch-native", "gru")
    fake_runs.speed(writer, one, 0.01)
    assert peaks_table(summary(writer)).rows == ()
    two = replace(one, threads=2)
    fake_runs.speed(writer, two, 0.01, peak=fake_runs.PEAK)
    rows = peaks_table(summary(writer)).rows
    assert [r.cells[2] for r in rows] == ["not measured", "80"]
    assert row(summary(writer), trial=one).of_peak is None


# --- doubt ---------------------------------------------------------------------------


def test_a_shaky_timing_says_why_and_what_to_do(writer: Writer) -> None:
    trial = fake_runs.speed_trial("torch-native", "gru")
    fake_runs.speed(writer, trial, 0.01, shaky=True)
    shaky = shaky_table(summary(writer)).rows
    shown = {r.cells[2]: r.cells[3:] for r in shaky}
    assert shown["train step"] == (
        "two groups of readings, 1.4 × apart",
        "pin the process to one core",
    )
    assert "not stored" in shown["forward"][0], "a run that stored no reason"


def test_an_unfit_machine_makes_every_timing_shaky(writer: Writer) -> None:
    why = {"kind": "clock", "words": "the clock steps", "advice": "stop ntpd"}
    fitness = {"verdict": "unfit", "reasons": [why]}
    trial = fake_runs.speed_trial("torch-native", "gru")
    fake_runs.speed(writer, trial, 0.01, fitness=fitness)
    found = summary(writer)
    assert all(each.shaky for each in found.speed)
    shown = shaky_table(found).rows[0].cells[3:]
    assert shown == ("the machine was unfit: the clock steps", "stop ntpd")
    assert speed_table(found).rows[0].cells[3].startswith("shaky ")


def test_a_noisy_machine_is_named_and_makes_no_timing_shaky(writer: Writer) -> None:
    stored = {"machine": {}, "reasons": [{**fake_runs.LOAD, "verdict": "noisy"}]}
    fitness = {"verdict": "noisy", **stored}
    trial = fake_runs.speed_trial("torch-native", "gru")
    fake_runs.speed(writer, trial, 0.01, fitness=fitness)
    found = summary(writer)
    written = found.to_json()["speed"][0]["fitness"]
    assert written == {"verdict": "noisy", "reasons": [fake_runs.LOAD]}
    assert not any(each.shaky for each in found.speed)
    assert "Before a session 2 cores AMD EPYC was noisy: 1.3 other cores busy." in (
        speed_table(found).notes
    )


def test_an_older_run_without_these_facts_is_shown(writer: Writer) -> None:
    trial = fake_runs.speed_trial("torch-native", "gru")
    values = {"time_s": 0.01, "tokens_per_s": 3e5}
    writer.commit(trial, readings=[fake_runs.Reading("forward", values)])
    found = summary(writer)
    (only,) = found.speed
    assert (only.turns, only.latency_sample_s, only.unstable) == ({}, (), ())
    assert (only.intensity, only.of_peak, only.of_roof, only.memory) == (None,) * 4
    assert rates_table(found).rows[0].cells[6:] == ("–", "–", "–", "–")
    assert first_calls_table(found).rows == ()


# --- readings ------------------------------------------------------------------------


def test_raw_readings_are_kept_by_round_and_left_out_of_the_json(
    writer: Writer,
) -> None:
    trial = fake_runs.speed_trial("torch-native", "gru")
    fake_runs.speed(writer, trial, 0.01, step_s=1e-4)
    found = summary(writer)
    update = row(found)
    assert list(update.turns) == list(range(fake_runs.ROUNDS))
    assert update.turns[0] == pytest.approx(0.01), "the median of three"
    step = row(found, "stream")
    sample = np.array(step.latency_sample_s)
    assert len(sample) == 1500
    assert step.latency is not None
    assert step.latency.p99_s == pytest.approx(np.percentile(sample, 99))
    written = json.loads(to_json(found.to_json()))
    assert {len(each["turns"]) for each in written["speed"]} == {0}
    assert {len(each["latency_sample_s"]) for each in written["speed"]} == {0}
    assert written["speed"][0]["intensity"] == pytest.approx(found.speed[0].intensity)
    assert [m["phase"] for m in written["fastest"]][-1] == "stream"
    assert len(written["paybacks"]) == 4


def test_the_fastest_is_the_one_that_no_other_beats_in_most_rounds(
    writer: Writer,
) -> None:
    certified(writer, "torch-native", "jax-scan", "numpy-reference")
    for name, time_s, factor in (
        ("torch-native", 0.010, 1.0),
        ("jax-scan", 0.011, 0.6),
        ("numpy-reference", 0.012, 2.0),
    ):
        trial = fake_runs.speed_trial(name, "gru")
        fake_runs.speed(writer, trial, time_s, factors=[factor] * fake_runs.ROUNDS)
    found = summary(writer)
    relative = {
        name: row(found, implementation=name).relative
        for name in ("torch-native", "jax-scan", "numpy-reference")
    }
    expected = {
        "torch-native": 1 / 0.66,
        "jax-scan": 1.0,
        "numpy-reference": 2.4 / 0.66,
    }
    assert relative == pytest.approx(expected)


def test_the_table_says_that_rounds_disagree_if_every_row_is_beaten(
    writer: Writer,
) -> None:
    names = ("torch-native", "jax-scan", "numpy-reference")
    certified(writer, *names)
    # Each takes less time than the next in two rounds of three.
    turns = ((1, 2, 3), (2, 3, 1), (3, 1, 2))
    for name, factors in zip(names, turns, strict=True):
        trial = fake_runs.speed_trial(name, "gru")
        repeated = [float(factors[n % 3]) for n in range(fake_runs.ROUNDS)]
        fake_runs.speed(
            writer, trial, 0.01, factors=repeated, phases={"train_step": 1.0}
        )
    cells = [r.cells[4] for r in speed_table(summary(writer)).rows]
    below = [words for words in cells if words.startswith("0.")]
    assert len(below) == 1
    assert below[0].startswith("0.67 [")
    assert below[0].endswith("] (rounds disagree)")
    assert "1.00" in cells


def test_the_fastest_of_a_ring_is_the_one_that_is_beaten_by_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = {"ba": 0.90, "cb": 0.90, "ac": 0.90, "da": 0.95, "bd": 0.95}
    rows: list[Any] = [SimpleNamespace(name=name, time_s=1.0) for name in "abcd"]
    monkeypatch.setattr(
        relative,
        "ratio",
        lambda base, new: Ratio(over.get(new.name + base.name, 1.0), None),
    )
    assert fastest_of(rows) is rows[3]
    assert fastest_of([]) is None


def test_the_title_of_a_task_has_no_sizes_of_random_shapes(writer: Writer) -> None:
    fake_runs.speed(writer, fake_runs.speed_trial("torch-native", "gru"), 0.01)
    for batch, steps in ((1, 20), (32, 80)):
        sizes = {"batch": batch, "time_steps": steps, "session": f"{batch}"}
        fake_runs.speed(writer, fake_runs.shape_trial("jax-scan", "gru", **sizes), 0.01)
    titles = [block.title for block in speed_table(summary(writer)).blocks]
    like = "input size 64 · hidden size 128 · 1 thread · float32"
    assert titles == [
        "adding, length 100 · 1 thread · float32",
        f"batch 1 · time steps 20 · {like}",
        f"batch 32 · time steps 80 · {like}",
    ]


def test_a_latency_is_shown_once_whatever_the_other_sizes(tmp_path: Path) -> None:
    names = ("torch-native", "my-fused-gru")
    asked: dict[str, Any] = {"names": names, "widths": (64,), "steps": (20, 80)}
    run = fake_runs.sweep(tmp_path / "run", **asked)
    found = fake_runs.summary(run)
    (block,) = latency_table(found).blocks
    assert block.title == (
        "input size 64 · hidden size 64 · 1 thread · float32 · the latest of those "
        "timed beside batch 1, 64 and time steps 20, 80"
    )
    assert [r.cells[1] for r in block.rows] == [
        "torch-native", "my-fused-gru · uncertified",
    ]  # fmt: skip
    latest = [r for r in found.speed if r.latency is not None][-2:]
    assert {r.trial.time_steps for r in latest} == {80}
    for shown, timed in zip(block.rows, latest, strict=True):
        assert timed.latency is not None
        assert shown.cells[2].startswith(seconds(timed.latency.p50_s))

    run = fake_runs.sweep(tmp_path / "one", names=names, widths=(64,), batches=(1,))
    (block,) = latency_table(fake_runs.summary(run)).blocks
    assert block.title == "input size 64 · hidden size 64 · 1 thread · float32"


def test_the_latency_table_shows_the_tail(writer: Writer) -> None:
    trial = fake_runs.speed_trial("torch-native", "gru")
    fake_runs.speed(writer, trial, 0.01, step_s=1e-4)
    found = summary(writer)
    (cells,) = (r.cells for r in latency_table(found).rows)
    assert cells[6] == "1500"
    latency = row(found, "stream").latency
    assert latency is not None
    assert latency.p99 is not None
    for cell, share in ((2, "p50"), (3, "p95"), (4, "p99")):
        value, interval = getattr(latency, f"{share}_s"), getattr(latency, share)
        assert interval.low < value < interval.high
        assert cells[cell] == seconds(value) + ends(interval, seconds)
    assert cells[1] == "torch-native · uncertified"


def drawn(rng: np.random.Generator, turns: int, each: int) -> list[float]:
    """Return latencies of turns that the machine makes longer or shorter as a whole."""
    of_turn = 1 + 0.03 * rng.standard_normal(turns)
    found = of_turn[:, None] * np.exp(0.08 * rng.standard_normal((turns, each)))
    return [float(s) for s in found.ravel()]


def percentiles(sample: list[float]) -> list[float]:
    return [float(np.percentile(sample, 100 * share)) for share in SHARES]


@pytest.mark.slow
@pytest.mark.parametrize("turns", [6, 12])
def test_intervals_of_latencies_include_the_variation_between_turns(turns: int) -> None:
    rng = np.random.default_rng(turns)
    truth = percentiles(drawn(rng, 20_000, 50))
    held, sessions = np.zeros(3), 200
    for _ in range(sessions):
        sample = drawn(rng, turns, 100)
        found = latency(percentiles(sample), sample, turns)
        assert found is not None
        for at, interval in enumerate((found.p50, found.p95, found.p99)):
            assert interval is not None
            held[at] += interval.low <= truth[at] <= interval.high
    # Intervals from single latencies would hold p50 half as often.
    assert (held / sessions >= 0.90).all(), held / sessions


def test_few_latencies_are_marked_and_have_no_interval_of_their_tail(
    writer: Writer,
) -> None:
    assert [fewest_to_enclose(share) for share in SHARES] == [6, 72, 368]
    sample = drawn(np.random.default_rng(1), 12, 30)
    readings = [
        Reading("stream", {"time_s": 1.0, "latency_p50_s": 1.0, "latency_p95_s": 1.2}),
        Reading("stream", {"latency_s": sample}, list(range(360)), "time steps"),
        Reading(
            "stream",
            {"sample_s": [1.0] * 12, "round": list(range(12))},
            list(range(12)),
            "readings",
        ),
    ]
    readings[0].values["latency_p99_s"] = 1.3
    writer.commit(fake_runs.speed_trial("torch-native", "gru"), readings=readings)
    (line,) = latency_table(summary(writer)).rows
    assert (line.cells[4], line.tone) == ("few 1.3 s", "doubt")
    assert "[" in line.cells[3]


def test_latencies_of_too_few_turns_have_no_interval() -> None:
    sample = drawn(np.random.default_rng(1), 5, 100)
    found = latency(percentiles(sample), sample, 5)
    assert found is not None
    assert (found.p50, found.p95, found.p99) == (None, None, None)


@pytest.mark.parametrize(
    ("values", "shaky"),
    [
        ({"time_low_s": 1.9e-4, "time_high_s": 2.3e-4}, True),
        ({"time_low_s": 1.98e-4, "time_high_s": 2.02e-4}, False),
    ],
)
def test_the_placement_of_a_batch_with_a_wide_interval_is_shaky(
    writer: Writer, values: dict[str, float], shaky: bool
) -> None:
    placed = Reading("place", {"time_s": 2e-4, **values})
    trial = fake_runs.speed_trial("torch-native", "gru")
    writer.commit(trial, readings=[Reading("forward", {"time_s": 0.01}), placed])
    found = summary(writer)
    shown = speed_table(found).rows[-1].cells[2:4]
    assert shown[0] == "place"
    assert shown[1].startswith("shaky ") is shaky
    reasons = [line.cells[2:4] for line in shaky_table(found).rows]
    wide = [("place", "the interval is 20% of the median wide")]
    assert reasons == (wide if shaky else [])


def test_placing_a_batch_has_its_own_row_and_is_part_of_no_other(
    writer: Writer,
) -> None:
    certified(writer, "torch-native")
    trial = fake_runs.speed_trial("torch-native", "gru")
    fake_runs.speed(writer, trial, 0.01, step_s=1e-4)
    found = summary(writer)
    place = row(found, "place")
    assert (place.time_s, place.relative, place.timed) == (2e-4, None, False)
    assert [r.cells[2] for r in speed_table(found).rows][-1] == "place"
    for table in (rates_table(found), first_calls_table(found)):
        assert "place" not in [r.cells[2] for r in table.rows]
    assert {m.phase for m in found.fastest} == {
        "forward",
        "loss_and_gradients",
        "train_step",
        "stream",
    }


# --- memory --------------------------------------------------------------------------


def test_memory_of_the_same_sizes_is_shown_beside_a_timing(writer: Writer) -> None:
    trial = fake_runs.speed_trial(
        "torch-native", "gru", settings=SpeedSettings(rounds=3)
    )
    fake_runs.speed(writer, trial, 0.01)
    fake_runs.memory(writer, replace(trial, settings=SpeedSettings(("forward",))), 4e7)
    for changes in ({"batch": 64}, {"threads": 2}, {"implementation": "jax-scan"}):
        fake_runs.memory(writer, replace(trial, **changes), 9e7)
    found = summary(writer)
    memory = row(found).memory
    assert memory is not None
    assert (memory.peak_bytes, memory.baseline_bytes) == (4e7, 2e8)
    assert rates_table(found).rows[0].cells[-1] == "38.1 MiB"
    assert found.header.measures == {"speed": 1, "memory": 4}
    assert "memory" not in NAMES


def test_memory_of_another_machine_is_not_shown_beside_a_timing(writer: Writer) -> None:
    trial = fake_runs.speed_trial("torch-native", "gru")
    fake_runs.speed(writer, trial, 0.01, machine="64 cores")
    fake_runs.memory(writer, trial, 4e7)
    assert row(summary(writer)).memory is None


def test_a_memory_pass_that_did_not_end_ok_is_named(writer: Writer) -> None:
    trial = fake_runs.speed_trial("torch-native", "gru")
    fake_runs.speed(writer, trial, 0.01)
    failed = memory_trial(trial)
    writer.commit(failed, outcome="out_of_memory", reason="9 GiB")
    found = summary(writer)
    assert rates_table(found).rows[0].cells[-1] == "out of memory"
    assert [each.measure for each in found.outcomes] == ["memory"]


# --- the terminal --------------------------------------------------------------------


@pytest.mark.parametrize("width", [140, 100, 60])
def test_no_table_is_cut_off_and_numbers_wrap_last(writer: Writer, width: int) -> None:
    trial = fake_runs.speed_trial("torch-native", "gru")
    kernel = "ATen loop of aten::gru_with_a_long_name and what else it may say"
    fake_runs.speed(writer, trial, 0.01234, shaky=True, kernel=kernel)
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(render(speed_table(summary(writer))))
    shown = capture.get()
    assert max(map(len, shown.splitlines())) <= width
    letters = "".join(shown.split())
    for word in ("ATen", "else", "may", "checked"):
        assert word in letters, "cut off"
    if width == 140:
        assert "shaky 12.3 ms [11.1, 13.6 ms]" in shown
        assert "certified" in shown


# --- words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.324, "32 %"), (0.0123, "1.2 %"), (0.0042, "0.4 %"), (1.07, "107 %"),
     (0.0995, "10 %"), (0.00995, "1.0 %"), (None, "–")],
)  # fmt: skip
def test_shares_are_written_in_readable_form(share: float | None, words: str) -> None:
    assert percent(share) == words


def test_sizes_and_ratios_are_written_in_readable_form() -> None:
    assert (size(512), size(2**20), size(2**30 - 1)) == ("512 B", "1 MiB", "1 GiB")
    assert (times(1.0), times(12.34), times(9.996)) == ("1.00", "12.3", "10.0")


def test_the_tables_hold_no_nan(tmp_path: Path) -> None:
    run = fake_runs.sweep(tmp_path / "run")
    text = to_json(fake_runs.summary(run).to_json())
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found["speed"]


def test_the_first_call_of_a_fresh_process_is_used_if_there_is_one(
    writer: Writer,
) -> None:
    trial = fake_runs.speed_trial("torch-native", "gru")
    fake_runs.speed(writer, trial, 0.01)
    (warm,) = {r.first_call_s for r in summary(writer).speed if r.phase == "forward"}
    weighed = memory_trial(trial)
    writer.commit(weighed, readings=[Reading("forward", {"first_call_s": 7.0})])
    found = {r.phase: r.first_call_s for r in summary(writer).speed}
    assert warm != found["forward"] == 7.0
    assert found["train_step"] != 7.0
