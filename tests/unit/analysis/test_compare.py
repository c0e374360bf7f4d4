"""Two runs with known truths: every verdict, every refusal, and their error rates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.analysis.comparison import compare as module
from harness.analysis.comparison import effect
from harness.analysis.comparison.compare import (
    Compared,
    Comparison,
    compare,
    confirmed,
)
from harness.analysis.comparison.effect import (
    FEWEST_ROUNDS,
    Effect,
    paired_effect,
    unpaired_effect,
)
from harness.analysis.run import JudgedRun
from harness.errors import MisuseError
from harness.report.tables.compare import compare_json, compare_sentence, compare_table
from harness.store import Reading, RunFolder, to_json
from harness.trial import SpeedSettings, Trial
from tests import fake_runs, helpers
from tests.benchmarks.coverage import autoregressive

ROUNDS = 24
HERE = {"machine": "2 cores A", "processor": "A 1a2b", "gpu": None, "host": "one"}
THERE = {"machine": "4 cores B", "processor": "B 3c4d", "gpu": None, "host": "two"}
SHAPE = {
    "task": None,
    "length": None,
    "time_steps": 50,
    "input_size": 2,
    "settings": SpeedSettings(("forward",), ROUNDS, readings=2),
}


@dataclass
class Run:
    """A run with invented timings."""

    writer: fake_runs.Writer

    @classmethod
    def at(cls, path: Path) -> Run:
        return cls(fake_runs.Writer.create(path))

    @property
    def path(self) -> Path:
        return self.writer.run.path

    def time(
        self,
        name: str = "torch-native",
        time_s: float = 3e-3,
        *,
        seed: int = 0,
        rounds: int = ROUNDS,
        noise: float = 0.02,
        drift: float = 0.2,
        session: str = "a, 2026-01-01 10:00:00",
        values: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Run:
        """Commit a certificate and a timing; all timings have the same drift."""
        facts = changes.pop("facts", HERE)
        trial = fake_runs.speed_trial(name, "gru", **{**SHAPE, **changes})
        fake_runs.parity(
            self.writer,
            name,
            "gru",
            threads=trial.threads,
            dtype=trial.dtype,
            precision=trial.precision,
        )
        common = np.exp(np.random.default_rng(99).normal(0, drift, rounds))
        own = np.exp(np.random.default_rng(seed).normal(0, noise, 2 * rounds))
        numbers = np.repeat(np.arange(rounds), 2)
        samples = time_s * common[numbers] * own
        flop_per_s = 1e9 * 3e-3 / time_s
        found = {"time_s": time_s, "shaky": 0, "flop_per_s": flop_per_s}
        self.writer.commit(
            trial,
            readings=[
                Reading("forward", {**found, **(values or {})}),
                Reading(
                    "forward",
                    {"sample_s": samples.tolist(), "round": numbers.tolist()},
                    list(range(2 * rounds)),
                    "readings",
                ),
                fake_runs.readback(True),
            ],
            session=session,
            **facts,
        )
        return self

    def fail(self, name: str, outcome: str, reason: str) -> Run:
        trial = fake_runs.speed_trial(name, "gru", **SHAPE)
        self.writer.commit(trial, outcome=outcome, reason=reason, **HERE)
        return self

    @property
    def judged(self) -> JudgedRun:
        return JudgedRun.read(self.writer.run)

    def against(self, new: Run, **options: Any) -> Comparison:
        found = compare(self.judged, new.judged, **options)
        to_json(compare_json(found))  # fails for NaN
        return found


@pytest.fixture
def base(tmp_path: Path) -> Run:
    return Run.at(tmp_path / "base")


@pytest.fixture
def new(tmp_path: Path) -> Run:
    return Run.at(tmp_path / "new")


def only(found: Comparison) -> Compared:
    (row,) = found.rows
    return row


# --- verdicts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time_s", "verdict"),
    [
        (3.3e-3, "slower"),
        (2.7e-3, "faster"),
        (3e-3, "same"),
        (3.03e-3, "same"),
        (3.15e-3, "unclear"),
        (2.85e-3, "unclear"),
    ],
)
def test_a_session_finds_slower_faster_and_same_despite_its_drift(
    base: Run, new: Run, time_s: float, verdict: str
) -> None:
    row = only(base.time().against(new.time(time_s=time_s, seed=1)))
    assert row.verdict == verdict
    assert row.effect is not None
    assert row.effect.paired
    assert row.effect.rounds == ROUNDS
    assert row.effect.ratio == pytest.approx(time_s / 3e-3, rel=0.015)
    assert row.effect.interval is not None
    assert row.effect.interval.low < time_s / 3e-3 < row.effect.interval.high


def test_two_sessions_have_wider_intervals_and_say_so(base: Run, new: Run) -> None:
    later = {"session": "a, 2026-01-02 10:00:00"}
    found = base.time().against(new.time(time_s=3.3e-3, seed=1, **later))
    row = only(found)
    assert row.verdict == "unclear"  # the drift of 20 % hides the 10 %
    assert row.effect is not None
    assert not row.effect.paired
    assert "different sessions" in found.notes[0]
    assert "gate" in found.notes[0]
    assert not base.against(base).notes


def test_a_session_of_the_same_name_on_another_host_is_not_paired(
    base: Run, new: Run
) -> None:
    other = {"facts": {**HERE, "host": "two"}}
    row = only(base.time().against(new.time(seed=1, **other)))
    assert row.effect is not None
    assert not row.effect.paired


@pytest.mark.parametrize("rounds", [1, FEWEST_ROUNDS - 1])
def test_few_rounds_are_unclear_whatever_they_show(
    base: Run, new: Run, rounds: int
) -> None:
    found = base.time(rounds=rounds).against(
        new.time(time_s=9e-3, seed=1, rounds=rounds)
    )
    row = only(found)
    assert row.verdict == "unclear"
    assert row.why.startswith(f"{rounds} round")
    assert "--set speed.rounds=12" in row.why
    assert row.effect is not None
    assert row.effect.interval is None
    assert "(no interval)" in " ".join(compare_table(found).rows[0].cells)


def test_a_noisy_session_is_unclear_and_says_what_to_do(base: Run, new: Run) -> None:
    row = only(base.time(noise=0.3).against(new.time(noise=0.3, seed=1)))
    assert row.verdict == "unclear"
    assert "time_budget_s" in row.why
    assert "quieter machine" in row.why


def test_a_timing_without_raw_readings_is_unclear(base: Run, new: Run) -> None:
    trial = fake_runs.speed_trial("torch-native", "gru", **SHAPE)
    base.writer.commit(trial, readings=[Reading("forward", {"time_s": 1.0})], **HERE)
    row = only(base.against(new.time()))
    assert row.verdict == "unclear"
    assert "no rounds" in row.why


# --- what is missing or failed -------------------------------------------------------


def test_a_trial_that_fails_now_is_a_regression_with_its_reason(
    base: Run, new: Run
) -> None:
    found = base.time().against(new.fail("torch-native", "crashed", "SIGSEGV"))
    row = only(found)
    assert row.verdict == "failed in new"
    assert row.why == "crashed: SIGSEGV"
    assert row.phase == "forward"


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (False, True, "failed in base"),
        (False, False, "failed in both"),
    ],
)
def test_a_trial_that_failed_before_is_not_a_regression(
    base: Run, new: Run, before: bool, now: bool, verdict: str
) -> None:
    for run, ok in ((base, before), (new, now)):
        if ok:
            run.time()
        else:
            run.fail("torch-native", "out_of_memory", "450M")
    row = only(base.against(new))
    assert row.verdict == verdict
    assert row.why == "out of memory: 450M"


def test_a_trial_that_only_one_run_has_is_reported(base: Run, new: Run) -> None:
    found = base.time("torch-loop").against(new.time("torch-native"))
    shown = {r.trial.implementation: r.verdict for r in found.rows}
    assert shown == {"torch-loop": "missing in new", "torch-native": "missing in base"}


def test_a_phase_that_only_one_run_has_is_reported(base: Run, new: Run) -> None:
    new.time(seed=1)
    base.time()
    found = base.against(_with_phase(new, "train_step"))
    shown = {row.phase: row.verdict for row in found.rows}
    assert shown == {"forward": "same", "train_step": "missing in base"}


def _with_phase(run: Run, phase: str) -> Run:
    (record,) = [r for r in run.writer.run.records() if r.trial.measure == "speed"]
    more = Reading(phase, {"time_s": 1e-2})
    session = record.result["session"]
    readings = [*record.readings, more]
    run.writer.commit(record.trial, readings=readings, session=session, **HERE)
    return run


# --- runs that differ -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 2}, "threads 1 against 2"),
        ({"dtype": "float64"}, "dtype float32 against float64"),
        ({"precision": "tf32"}, "precision highest against tf32"),
        ({"readout": "every"}, "readout last against every"),
    ],
)
def test_a_different_budget_is_refused_or_reported_beside_equal_ones(
    base: Run, new: Run, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(MisuseError, match=f"{message}.*--across-machines"):
        base.time().against(new.time(**changes))
    found = base.time("torch-loop").against(new.time("torch-loop", seed=1))
    rows = {r.trial.implementation: r for r in found.rows}
    assert rows["torch-loop"].verdict == "same"
    assert rows["torch-native"].verdict == "not comparable"
    assert rows["torch-native"].why == message
    assert rows["torch-native"].effect is None


def test_different_machines_are_refused_by_name(base: Run, new: Run) -> None:
    with pytest.raises(MisuseError, match=r"'2 cores A' against '4 cores B'.*gate"):
        base.time().against(new.time(facts=THERE))


def test_different_library_versions_are_compared_and_reported(
    base: Run, new: Run
) -> None:
    newer = {**HERE, "framework": "torch 2.14.0"}
    found = base.time().against(new.time(seed=1, facts=newer))
    assert only(found).verdict == "same"
    assert found.notes == ("Libraries differ: torch 2.13.0 → torch 2.14.0.",)


def cells_of(found: Comparison) -> dict[str, str]:
    """Return the cells of the only row of a table, by their heading."""
    (block,) = compare_table(found).blocks
    (shown,) = block.rows
    return dict(zip(block.head, shown.cells, strict=True))


def test_every_row_shows_library_and_kernel(base: Run, new: Run) -> None:
    shown = cells_of(base.time().against(new.time(seed=1)))
    assert (shown["library"], shown["kernel"]) == ("torch 2.13.0", "aten::gru")


def test_different_libraries_and_kernels_are_shown_for_both_runs(
    base: Run, new: Run
) -> None:
    newer = {**HERE, "framework": "torch 2.14.0", "kernel": "oneDNN"}
    found = base.time().against(new.time(seed=1, facts=newer))
    shown = cells_of(found)
    assert shown["library"] == "torch 2.13.0 → torch 2.14.0"
    assert shown["kernel"] == "aten::gru → oneDNN"
    assert "Kernels differ: gru torch-native: aten::gru → oneDNN." in found.notes


def test_a_run_without_a_stored_kernel_does_not_differ_in_kernel(
    base: Run, new: Run
) -> None:
    old = {**HERE, "kernel": None}
    found = base.time(facts=old).against(new.time(seed=1))
    assert cells_of(found)["kernel"] == "aten::gru"
    assert found.notes == ()


def test_keys_of_one_budget_are_listed_under_it(base: Run, new: Run) -> None:
    for run, seed in ((base, 0), (new, 1)):
        run.time(seed=seed).time(seed=seed + 2, threads=2)
        run.time(seed=seed + 4, device="cuda:0", precision="tf32")
    blocks = compare_table(base.against(new)).blocks
    assert {block.title: len(block.rows) for block in blocks} == {
        "1 thread · float32": 1,
        "2 threads · float32": 1,
        "cuda:0 · 1 thread · float32, TF32": 1,
    }


def test_different_budgets_are_shown_for_both_runs(base: Run, new: Run) -> None:
    base.time(facts={**HERE, **_peak(8e9)})
    new.time(threads=2, seed=1, facts={**HERE, **_peak(16e9)})
    (block,) = compare_table(base.against(new, across_machines=True)).blocks
    assert block.title == "1 thread · float32 → 2 threads · float32"


def _peak(flop_per_s: float) -> dict[str, Any]:
    return {"peak": {"flop_per_s": flop_per_s, "flop_by": "numpy"}}


@pytest.mark.parametrize(
    ("factor", "verdict"), [(2.0, "same"), (4.0, "slower"), (1.0, "faster")]
)
def test_different_machines_are_judged_by_the_share_of_their_peaks(
    base: Run, new: Run, factor: float, verdict: str
) -> None:
    base.time(facts={**HERE, **_peak(8e9)}, drift=0)
    there = {**THERE, **_peak(factor * 8e9)}
    new.time(facts=there, time_s=1.5e-3, drift=0, seed=1)
    found = base.against(new, across_machines=True)
    row = only(found)
    assert row.verdict == verdict
    assert row.normalised is not None
    assert row.normalised.by == "fraction of the measured peak"
    assert row.normalised.base == pytest.approx(1 / 8)
    assert row.normalised.new == pytest.approx(2 / (8 * factor))
    assert row.effect is not None
    assert row.effect.ratio == pytest.approx(0.5, rel=0.02)
    assert "'2 cores A' against '4 cores B'" in row.marks[0]
    head = compare_table(found).blocks[0].head
    assert head.index("normalised") < head.index("raw new / base")


def test_machines_without_peaks_are_judged_by_an_implementation_of_both_runs(
    base: Run, new: Run
) -> None:
    base.time().time("numpy-reference", 6e-3, seed=2).time("another", seed=4)
    new.time(time_s=1.2e-3, seed=1, facts=THERE)
    new.time("numpy-reference", 2e-3, seed=3, facts=THERE)
    new.time("another", seed=5, facts=THERE)
    found = base.against(new, across_machines=True)
    row = next(r for r in found.rows if r.trial.implementation == "torch-native")
    assert row.normalised is not None
    assert row.normalised.by == "time of numpy-reference"
    assert row.normalised.effect.ratio == pytest.approx(1.2, rel=0.02)
    assert row.verdict == "slower"


def test_a_ratio_that_cannot_be_normalised_is_unclear(base: Run, new: Run) -> None:
    base.time()
    row = only(base.against(new.time(time_s=9e-3, facts=THERE), across_machines=True))
    assert row.verdict == "unclear"
    assert "nothing to normalise by" in row.why
    assert row.effect is not None


def test_across_machines_pairs_keys_that_differ_in_their_budget_alone(
    base: Run, new: Run
) -> None:
    base.time(facts={**HERE, **_peak(8e9)})
    new.time(threads=2, time_s=1.6e-3, seed=1, facts={**HERE, **_peak(16e9)})
    row = only(base.against(new, across_machines=True))
    assert row.marks[0] == "unlike: threads 1 against 2"
    assert row.normalised is not None


def test_a_wrong_result_is_a_regression_however_fast(base: Run, new: Run) -> None:
    base.time()
    new.time(time_s=1e-4, seed=1)
    fake_runs.parity(new.writer, "torch-native", "gru", broken="outputs")
    row = only(base.against(new))
    assert row.verdict == "failed in new"
    assert row.why == "what it computes is not right any more: broken: outputs"
    # Without the broken certificate the verdict is `same`.
    unseen = base.against(base)
    assert only(unseen).verdict == "same"


# --- marks ---------------------------------------------------------------------------


def test_a_shaky_or_uncertified_row_keeps_its_verdict_and_is_marked(
    base: Run, new: Run
) -> None:
    unstable = {"forward": [{"kind": "drift", "words": "x", "advice": "wait"}]}
    base.time(facts={**HERE, "unstable": unstable})
    new.time(time_s=3.6e-3, seed=1, values={"shaky": 1})
    fake_runs.parity(base.writer, "torch-native", "gru", broken="grad w_hh")
    fake_runs.parity(new.writer, "torch-native", "gru", broken="grad w_hh")
    row = only(base.against(new))
    assert row.verdict == "slower"
    assert row.marks == (
        "uncertified (broken: grad w_hh)",
        "base shaky (drift)",
        "new shaky",
    )


def test_an_unfit_machine_is_marked(base: Run, new: Run) -> None:
    noisy = {**HERE, "fitness": {"verdict": "noisy", "reasons": []}}
    row = only(base.time(facts=noisy).against(new.time(seed=1)))
    assert row.marks == ("base noisy machine",)


# --- many keys -----------------------------------------------------------------------


def test_the_worst_row_is_first_and_one_sentence_ends_the_table(
    base: Run, new: Run
) -> None:
    for name, factor in (("a", 1.0), ("b", 1.2), ("c", 1.4), ("d", 0.8)):
        base.time(name)
        new.time(name, factor * 3e-3, seed=1)
    base.time("e")
    new.fail("e", "timeout", "60 s")
    found = base.against(new)
    assert [r.trial.implementation for r in found.rows] == ["c", "b", "e", "a", "d"]
    assert compare_sentence(found) == (
        "3 of 5 keys are slower by more than 5 % or failed: 2 slower, 1 failed in new, "
        "1 same, 1 faster."
    )


def test_a_larger_least_effect_allows_larger_differences(base: Run, new: Run) -> None:
    base.time()
    new.time(time_s=3.3e-3, seed=1)
    assert only(base.against(new)).verdict == "slower"
    assert only(base.against(new, effect=0.2)).verdict == "same"


def test_few_of_many_keys_at_the_least_effect_are_called_slower(
    fewer_resamples: None,
) -> None:
    """By each p-value alone, about one of forty would be."""
    rng = np.random.default_rng(5)
    runs = 1.05 * np.exp(rng.normal(0, 0.03, (15, 40, ROUNDS)))
    found = [_called_slower(ratios) for ratios in runs]
    assert sum(count > 0 for count in found) <= 3  # of 15 cases, at a level of 5 %


def test_a_key_that_is_slower_only_without_the_others_says_so() -> None:
    rng = np.random.default_rng(1)
    row, found = _alone_beyond(rng)
    others = [_key_of(str(i), np.exp(rng.normal(0, 0.02, ROUNDS))) for i in range(30)]
    assert module._concluded([row], 0.05).rows[0].verdict == "slower"
    rows = module._concluded([row, *others], 0.05).rows
    (among,) = [r for r in rows if r.trial == row.trial]
    assert among.verdict == "unclear"
    assert among.why.startswith("beyond the effect when it is judged alone")
    assert found.interval is not None
    assert found.interval.low > 1.05


def _alone_beyond(rng: np.random.Generator) -> tuple[Compared, Effect]:
    """Draw a key until it is slower by itself, but only just."""
    for _ in range(1000):
        row = _key_of("barely", 1.062 * np.exp(rng.normal(0, 0.025, ROUNDS)))
        found = row.effect
        assert found is not None
        if 0.005 < found.slower_p < 0.02:
            return row, found
    raise AssertionError


def _key_of(name: str, ratios: np.ndarray) -> Compared:
    base = dict.fromkeys(range(len(ratios)), 1.0)
    found = paired_effect(base, dict(enumerate(ratios)), 0.05)
    return Compared(Trial("speed", name, "gru"), "forward", effect=found)


def _called_slower(ratios: np.ndarray) -> int:
    rows = [_key_of(str(index), each) for index, each in enumerate(ratios)]
    return len(module._concluded(rows, 0.05).of("slower"))


# --- error rates ----------------------------------------------------------------------

SIMULATED = 400


@pytest.fixture
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect, "_RESAMPLES", 1000)


def _rates(
    truth: float, rounds: int, *, paired: bool, spikes: bool = False
) -> tuple[float, float]:
    """Return the share of sessions with the verdict slower, and with same."""
    rng = np.random.default_rng([rounds, int(1000 * truth), paired])

    def turns() -> np.ndarray:
        noise = rng.normal(0, 0.02, rounds)
        if spikes:
            noise += (rng.random(rounds) < 0.1) * rng.exponential(0.5, rounds)
        return np.exp(noise)

    slower = same = 0
    for _ in range(SIMULATED):
        common = np.exp(rng.normal(0, 0.2, rounds)) if paired else np.ones(rounds)
        base, new = common * turns(), truth * common * turns()
        if paired:
            found = paired_effect(dict(enumerate(base)), dict(enumerate(new)), 0.05)
        else:
            found = unpaired_effect(list(base), list(new), 0.05)
        assert found is not None
        assert found.interval is not None
        slower += 2 * found.slower_p <= 0.05  # as in the verdict on a single key
        same += found.interval.low >= 1 / 1.05 and found.interval.high <= 1.05
    return slower / SIMULATED, same / SIMULATED


MOST = 0.05 + 0.02
"""The level, and two standard deviations of a rate that so few sessions show."""


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("rounds", [FEWEST_ROUNDS, 10, 30])
def test_a_slowdown_by_the_least_effect_is_rarely_called_slower_or_same(
    rounds: int, paired: bool
) -> None:
    slower, same = _rates(1.05, rounds, paired=paired)
    assert slower <= MOST
    assert same <= MOST


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize("rounds", [FEWEST_ROUNDS, 7, 12, 24])
def test_the_interval_of_common_rounds_holds_the_truth_at_its_stated_rate(
    rounds: int,
) -> None:
    rng = np.random.default_rng(rounds)
    held, sessions = 0, 1500
    for _ in range(sessions):
        turns = np.exp(rng.normal(0, 0.03, (2, rounds)))
        base, new = (dict(enumerate(map(float, each))) for each in turns)
        found = paired_effect(base, new, 0.05)
        assert found is not None
        assert found.interval is not None
        held += found.interval.low <= 1 <= found.interval.high
    assert 0.93 <= held / sessions <= 0.97


def test_few_rounds_are_at_most_as_sure_as_a_sign_test() -> None:
    base = dict.fromkeys(range(FEWEST_ROUNDS), 1.0)
    found = paired_effect(base, dict.fromkeys(base, 2.0), 0.05)
    assert found is not None
    assert found.slower_p == 0.5**FEWEST_ROUNDS
    assert found.faster_p == 1


def test_thousands_of_rounds_are_as_good_as_few() -> None:
    rng = np.random.default_rng(3)
    logs = rng.normal(np.log(1.2), 0.1, 5000)
    base = dict.fromkeys(range(5000), 1.0)
    found = paired_effect(base, dict(enumerate(np.exp(logs))), 0.05)
    assert found is not None
    assert found.interval is not None
    assert found.rounds == 5000
    assert found.interval.low < 1.2 < found.interval.high
    assert found.interval.high / found.interval.low < 1.02


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize("paired", [True, False])
def test_a_slowdown_by_ten_per_cent_is_nearly_always_found(paired: bool) -> None:
    assert _rates(1.1, 12, paired=paired)[0] >= 0.95
    assert _rates(1.1, 20, paired=paired)[0] >= 0.98
    # Of independent rounds a fifth look as if they followed each other.
    slower, same = _rates(1.0, 12, paired=paired)
    assert slower == 0
    assert same >= 0.75
    assert _rates(1.0, 24, paired=paired)[1] >= 0.93


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize("paired", [True, False])
def test_rounds_that_follow_each_other_rarely_make_a_slowdown(paired: bool) -> None:
    """Taken as independent, they would in 20 to 30 of 100 sessions."""
    rng, slower = np.random.default_rng(3), 0
    for _ in range(SIMULATED):
        ratios = 1.05 * np.exp(0.03 * autoregressive(rng, 24, 0.8))
        if paired:
            rounds = dict(enumerate(map(float, ratios)))
            found = paired_effect(dict.fromkeys(range(24), 1.0), rounds, 0.05)
        else:
            found = unpaired_effect([1.0] * 24, ratios.tolist(), 0.05)
        assert found is not None
        slower += 2 * found.slower_p <= 0.05
    assert slower / SIMULATED <= 0.13


@pytest.mark.usefixtures("fewer_resamples")
def test_disturbed_turns_hide_few_slowdowns() -> None:
    assert _rates(1.1, 24, paired=True, spikes=True)[0] >= 0.95
    assert _rates(1.05, 24, paired=True, spikes=True)[0] <= MOST


# --- the command ---------------------------------------------------------------------


def _command(
    arguments: Iterable[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, str, str]:
    return helpers.call(["compare", *map(str, arguments)], monkeypatch, capsys)


@pytest.mark.parametrize(
    ("time_s", "rounds", "code"), [(3e-3, 24, 0), (3.6e-3, 24, 3), (3.6e-3, 2, 5)]
)
def test_the_exit_code_depends_on_the_verdict(
    base: Run,
    new: Run,
    time_s: float,
    rounds: int,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base.time(rounds=rounds)
    new.time(time_s=time_s, seed=1, rounds=rounds)
    found = _command((base.path, new.path), monkeypatch, capsys)
    assert found[0] == code, found
    lines = found[1].split("\n")
    assert lines[0] == "1 thread · float32"
    shown = ["gru", "torch-native", "torch", "2.13.0", "aten::gru", "forward"]
    assert lines[2].split()[:6] == shown
    assert found[1].rstrip().endswith(".")
    found = _command((base.path, new.path, "--json"), monkeypatch, capsys)
    assert found[0] == code
    (row,) = json.loads(found[1])["rows"]
    assert row["batch"] == 32
    assert row["base"]["processor"] == "A 1a2b"
    assert row["paired"] is True


@pytest.mark.parametrize("given", ["5%", "0.05", " 5 % ", ".05", "5e-2", "0.5E+1%"])
def test_the_least_effect_is_given_as_a_share(
    base: Run,
    new: Run,
    given: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base.time()
    new.time(seed=1)
    arguments = (base.path, new.path, "--json", "--effect", given)
    code, out, _ = _command(arguments, monkeypatch, capsys)
    assert code == 0
    assert json.loads(out)["effect"] == pytest.approx(0.05)


@pytest.mark.parametrize("given", ["5", "0", "-1%", "1e2%", "five", "nan", "e-3", ""])
def test_an_effect_outside_its_range_is_refused(
    base: Run,
    new: Run,
    given: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (base.path, new.path, "--effect", given)
    code, _, err = _command(arguments, monkeypatch, capsys)
    assert code == 2
    assert "above 0 and below 1, e.g. 5%, 0.05 or 5e-2" in err


def test_runs_that_cannot_be_compared_are_refused(
    base: Run,
    new: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = _command((base.path, tmp_path / "none"), monkeypatch, capsys)
    assert (code, "has no finished trial" in err) == (5, True)
    base.time()
    code, _, err = _command((base.path, tmp_path / "none"), monkeypatch, capsys)
    assert (code, "does not exist" in err) == (2, True)
    code, _, err = _command((base.path, base.path), monkeypatch, capsys)
    assert (code, "are the same run" in err) == (2, True)
    fake_runs.parity(new.writer, "torch-native", "gru")
    code, _, err = _command((base.path, new.path), monkeypatch, capsys)
    assert (code, "has no speed trial" in err) == (5, True)
    new.time(facts=THERE)
    code, _, err = _command((base.path, new.path), monkeypatch, capsys)
    assert (code, "different machines" in err) == (2, True)
    code, out, _ = _command(
        (base.path, new.path, "--across-machines"), monkeypatch, capsys
    )
    assert (code, "nothing to normalise by" in out) == (5, True)


def test_a_comparison_does_not_write_to_the_runs(
    base: Run,
    new: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base.time()
    new.time(seed=1)
    before = helpers.snapshot(RunFolder.open(base.path).path)
    _command((base.path, new.path), monkeypatch, capsys)
    assert helpers.snapshot(base.path) == before


def test_a_difference_is_due_to_the_code_only_if_other_processes_show_it_too(
    tmp_path: Path,
) -> None:
    def gated(name: str, **times: float) -> Comparison:
        base, new = Run.at(tmp_path / f"{name}-base"), Run.at(tmp_path / f"{name}-new")
        for number, (implementation, ratio) in enumerate(times.items()):
            base.time(implementation, 3e-3, seed=number)
            new.time(implementation, 3e-3 * ratio, seed=50 + number)
        return compare(base.judged, new.judged)

    first = gated("first", slow=1.2, chance=1.2, quick=0.8, alike=1.0)
    again = gated("again", slow=1.19, chance=1.0, quick=1.2)
    found = {row.trial.implementation: row for row in confirmed(first, again).rows}
    verdicts = {name: row.verdict for name, row in found.items()}
    assert verdicts == {
        "slow": "slower",
        "chance": "unclear",
        "quick": "unclear",
        "alike": "same",
    }
    assert "again in fresh processes: 1.1" in found["slow"].why
    assert found["chance"].why.startswith("slower at first, but ")
    assert "the difference may be one of the two processes" in found["chance"].why
    assert found["chance"].effect.ratio > 1.15, "what was measured first stays"
    assert [row.verdict for row in confirmed(first, again).rows] == [
        "slower",
        "unclear",
        "unclear",
        "same",
    ]
