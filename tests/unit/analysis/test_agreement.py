"""Curves of several implementations are compared with that of the float64 reference."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from harness.analysis.learning.agreement import (
    LEVEL,
    AgreementRow,
    SeedAgreement,
    agreement_panels,
    agreement_rows,
    differences,
    parting,
)
from harness.analysis.learning.held_out_curves import learning_panels
from harness.analysis.learning.learned import learning_rows
from harness.analysis.run import JudgedRun
from harness.analysis.summary import summarize
from harness.intervals import proportion_interval
from harness.report.contents import sections
from harness.report.figures.agreement import agreement_axes, draw_agreement
from harness.report.figures.results import Results
from harness.report.figures.sketch import Sketch
from harness.report.figures.style import Palette, drawing
from harness.report.page import write_report
from harness.report.tables.agreement import agreement_table, parting_table
from harness.store import Reading, RunFolder
from harness.trial import SAME_NETWORK, Trial
from tests import fake_runs

UPDATES = 100
Bend = Callable[[np.ndarray], np.ndarray]


def apart(small: float, at: int | None = None, large: float = 0.2) -> Bend:
    """Return differences of `small` at each update, and of `large` from `at` on."""

    def bend(update: np.ndarray) -> np.ndarray:
        signs = np.where(update % 2 == 0, 1.0, -1.0)
        known = np.full(len(update), small)
        if at is not None:
            known[update >= at] = large
        return np.asarray(signs * known)

    return bend


class Study:
    """A run in which several implementations trained one network."""

    def __init__(self, folder: Path) -> None:
        self.writer = fake_runs.Writer.create(folder / "run")
        self.certified: set[tuple[str, str, str]] = set()

    def learn(
        self,
        name: str,
        bend: Bend,
        *,
        cell: str = "gru",
        seed: int = 0,
        updates: int = UPDATES,
        solved_at: int | None = None,
        read_back: bool = True,
        **changes: object,
    ) -> None:
        """Commit a curve near a falling one; `name` ends with the dtype."""
        implementation, dtype = name.rsplit(" ", 1)
        if (key := (implementation, cell, dtype)) not in self.certified:
            fake_runs.parity(self.writer, implementation, cell, dtype=dtype)
            self.certified.add(key)
        trial = fake_runs.learning_trial(
            cell, seed, implementation=implementation, dtype=dtype, **changes
        )
        x = np.arange(1, updates + 1)
        losses = 0.2 * np.exp(-0.01 * x) + bend(x)
        kept = [value if math.isfinite(value) else None for value in losses.tolist()]
        outcome = {"solved": int(solved_at is not None), "updates": updates}
        outcome |= {"budget": UPDATES}
        if solved_at is not None:
            outcome["updates_to_solve"] = solved_at
        self.writer.commit(
            trial,
            # In two events, as a run writes them.
            events=[
                Reading("train", {"loss": kept[a:b]}, x[a:b].tolist(), "updates")
                for a, b in ((0, 30), (30, updates))
                if a < updates
            ],
            readings=[
                Reading("outcome", outcome),
                Reading("floor", {"loss": 1 / 6}),
                fake_runs.readback(read_back),
            ],
            headline="loss",
            parameters={"canonical": 12_929},
        )

    def reference(self, own: Bend, **changes: object) -> None:
        """Commit the reference in float64, and with differences in float32."""
        self.learn("numpy-reference float64", apart(0.0), **changes)  # type: ignore[arg-type]
        self.learn("numpy-reference float32", own, **changes)  # type: ignore[arg-type]

    @property
    def judged(self) -> JudgedRun:
        return JudgedRun.read(self.writer.run)

    def rows(self) -> dict[str, AgreementRow]:
        found = agreement_rows(self.judged, learning_rows(self.judged))
        return {f"{r.cell} {r.implementation} {r.dtype}": r for r in found}

    def seed(self, name: str = "torch-native float32") -> SeedAgreement:
        (found,) = self.rows()[f"gru {name}"].seeds
        return found


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


# --- one curve -----------------------------------------------------------------------


def test_a_curve_that_parts_later_than_the_float32_reference_agrees(
    study: Study,
) -> None:
    study.reference(apart(1e-7, at=41))
    study.learn("torch-native float32", apart(5e-7, at=46))
    assert study.seed("numpy-reference float32").parts_at == 41
    found = study.seed()
    assert (found.parts_at, found.reference_parts_at) == (46, 41)
    assert (found.compared, found.judged) == (100, 40)
    assert found.largest == pytest.approx(5e-7)
    assert found.agrees is True
    assert found.excess == pytest.approx(5.0)


def test_a_curve_that_parts_one_update_earlier_does_not_agree(study: Study) -> None:
    study.reference(apart(1e-7, at=41))
    study.learn("torch-native float32", apart(1e-7, at=40, large=0.3))
    found = study.seed()
    assert (found.parts_at, found.reference_parts_at, found.judged) == (40, 41, 40)
    assert found.largest == pytest.approx(0.3)
    assert found.agrees is False


def test_early_updates_allow_for_rounding_of_the_implementation(study: Study) -> None:
    def grows(update: np.ndarray) -> np.ndarray:
        return np.asarray(9e-8 * 10 ** (0.1 * update))  # tenfold in ten updates

    study.reference(grows)  # above 1e-4 from update 31 on, 1e-3 from 41 on
    for name, factor in (("torch-native", 5.0), ("jax-scan", 20.0)):
        study.learn(f"{name} float32", lambda u, f=factor: f * grows(u))
    assert study.seed("numpy-reference float32").parts_at == 41
    torch, jax = study.seed(), study.seed("jax-scan float32")
    assert (torch.parts_at, torch.agrees, torch.agrees_at_first) == (34, False, True)
    assert (jax.parts_at, jax.agrees, jax.agrees_at_first) == (28, False, False)
    assert torch.excess == pytest.approx(5.0)


def test_a_curve_that_parts_at_the_same_update_agrees(study: Study) -> None:
    study.reference(apart(1e-7, at=41))
    study.learn("torch-native float32", apart(1e-7, at=41))
    assert study.seed().agrees is True


def test_every_update_is_judged_if_the_reference_does_not_part(
    study: Study,
) -> None:
    study.reference(apart(1e-7))
    study.learn("torch-native float32", apart(1e-7, at=100, large=2 * LEVEL))
    study.learn("jax-scan float32", apart(0.9 * LEVEL))
    found = study.seed()
    assert (found.parts_at, found.reference_parts_at, found.judged) == (100, None, 100)
    assert found.agrees is False
    assert study.seed("jax-scan float32").agrees is True


def test_a_curve_that_returns_has_parted_at_its_first_departure(study: Study) -> None:
    def excursion(update: np.ndarray) -> np.ndarray:
        return np.where(update == 20, 2 * LEVEL, 1e-7)

    study.reference(apart(1e-7, at=41))
    study.learn("torch-native float32", excursion)
    found = study.seed()
    assert found.parts_at == 20
    assert found.largest == pytest.approx(2 * LEVEL)


def test_only_updates_of_both_curves_are_compared(study: Study) -> None:
    study.learn("numpy-reference float64", apart(0.0), updates=80)
    study.learn("numpy-reference float32", apart(1e-7), updates=90)
    study.learn("torch-native float32", apart(1e-7, at=81))
    found = study.seed()
    assert (found.compared, found.judged, found.parts_at) == (80, 80, None)
    assert found.agrees is True


def test_a_nan_loss_has_parted_unless_the_reference_is_nan_too(
    study: Study,
) -> None:
    study.learn("numpy-reference float64", apart(0.0, at=60, large=math.nan))
    study.learn("numpy-reference float32", apart(1e-7, at=60, large=math.nan))
    study.learn("torch-native float32", apart(1e-7, at=50, large=math.nan))
    own = study.seed("numpy-reference float32")
    assert (own.compared, own.parts_at, own.agrees) == (59, None, True)
    found = study.seed()
    assert (found.parts_at, found.agrees, found.largest) == (50, False, None)
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_the_first_update_above_the_level_is_that_of_a_slow_search() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = np.maximum.accumulate(np.exp(rng.normal(-9, 2, size=30)))
        slow = next((i + 1 for i, v in enumerate(found) if v > LEVEL), None)
        assert parting(found) == slow
    assert parting(np.array([LEVEL, LEVEL])) is None, "at the level is within it"


def test_differences_are_the_largest_so_far(study: Study) -> None:
    study.learn("numpy-reference float64", apart(0.0), updates=4)
    steps = np.array([1e-6, -3e-6, 2e-6, 4e-6])
    study.learn("torch-native float32", lambda _: steps, updates=4)
    reference, other = study.judged.of("learning")
    if other.trial.dtype == "float64":
        reference, other = other, reference
    expected = [1e-6, 3e-6, 3e-6, 4e-6]
    assert differences(other, reference) == pytest.approx(expected, rel=1e-9)


# --- which curves are compared --------------------------------------------------------


def test_each_seed_cell_and_variant_has_its_own_reference(study: Study) -> None:
    for cell in ("rnn", "gru"):
        for seed, at in ((0, 20), (1, 60)):
            study.reference(apart(1e-7, at=at), cell=cell, seed=seed)
            study.learn(
                "torch-native float32", apart(1e-7, at=at + 1), cell=cell, seed=seed
            )
    study.reference(apart(1e-7), hidden_size=128)
    found = agreement_rows(study.judged, learning_rows(study.judged))
    assert {(r.heading.variant, r.cell) for r in found} == {
        ("hidden size 64", "rnn"),
        ("hidden size 64", "gru"),
        ("hidden size 128", "gru"),
    }
    assert [(r.implementation, r.dtype) for r in found[:3]] == [
        ("numpy-reference", "float64"),
        ("numpy-reference", "float32"),
        ("torch-native", "float32"),
    ]
    torch = [r for r in found if r.implementation == "torch-native"]
    assert [[s.reference_parts_at for s in r.seeds] for r in torch] == [[20, 60]] * 2
    assert {r.heading.variant for r in torch} == {"hidden size 64"}, "not the dtype"


def test_nothing_is_compared_without_a_float64_reference(
    study: Study, tmp_path: Path
) -> None:
    study.learn("numpy-reference float32", apart(1e-7))
    study.learn("torch-native float32", apart(1e-7))
    assert study.rows() == {}
    assert agreement_panels(study.judged) == []
    page = write_report(study.writer.run).read_text(encoding="utf-8")
    assert "Do all implementations learn the same?" in page
    assert "but numpy-reference in float64 did not" in page


def test_nothing_is_judged_without_the_float32_reference(study: Study) -> None:
    study.learn("numpy-reference float64", apart(0.0))
    study.learn("torch-native float32", apart(1e-7, at=30))
    found = study.seed()
    assert (found.parts_at, found.agrees, found.largest) == (30, None, None)


def test_an_implementation_that_did_not_learn_has_a_row_that_says_so(
    study: Study,
) -> None:
    study.reference(apart(1e-7))
    trial = fake_runs.learning_trial("gru", 0, implementation="jax-scan")
    study.writer.commit(trial, outcome="unavailable", reason="no module 'jax'")
    found = study.seed("jax-scan float32")
    assert (found.outcome, found.compared, found.agrees) == ("unavailable", 0, None)
    summary = summarize(study.judged)
    cells = {r.cells[1]: r.cells for r in parting_table(summary).rows}
    assert cells["jax-scan float32"][2:6] == (
        "–",
        "–",
        "1 unavailable",
        "– (1 unavailable)",
    )


@pytest.mark.slow
def test_a_run_that_chose_one_implementation_has_no_agreement_section(
    tmp_path: Path,
) -> None:
    summary = fake_runs.summary(fake_runs.quick(tmp_path / "run"))
    assert summary.agreement == ()
    parts = sections(Results(summary))
    assert "agreement" not in [part.name for part in parts]


# --- the results of learning ----------------------------------------------------------


def solve(study: Study, name: str, ends: Sequence[int | None]) -> None:
    for seed, solved_at in enumerate(ends):
        study.learn(name, apart(1e-7), seed=seed, solved_at=solved_at)


@pytest.mark.parametrize(
    ("ends", "solved_within", "updates_within"),
    [
        ([40] * 8, True, True),
        ([70] * 8, True, False),
        ([None] * 8, False, False),
        ([30, 35, 36, 38, 44, 45, 50, 60], True, True),
        ([None, None, None, None, 40, 40, 40, 40], True, True),
        ([None, None, None, 70, 70, 70, 70, 70], True, False),
    ],
)
def test_solved_fractions_and_updates_are_within_where_intervals_overlap(
    ends: list[int | None], solved_within: bool, updates_within: bool, study: Study
) -> None:
    solve(study, "numpy-reference float64", [40, 41, 42, 43, 44, 45, 46, 47])
    solve(study, "torch-native float32", ends)
    row = study.rows()["gru torch-native float32"]
    assert (row.solved_within, row.updates_within) == (solved_within, updates_within)


def test_the_table_says_that_few_seeds_cannot_distinguish_all_solved_from_none(
    study: Study,
) -> None:
    for count, overlap in ((3, True), (4, False)):
        low = proportion_interval(count, count).low
        assert (proportion_interval(0, count).high >= low) is overlap
    solve(study, "numpy-reference float64", [40, 40, 40])
    solve(study, "numpy-reference float32", [40, 40, 40])
    solve(study, "torch-native float32", [None, None, None])
    assert study.rows()["gru torch-native float32"].solved_within is True
    notes = " ".join(agreement_table(summarize(study.judged)).notes)
    assert "With fewer than 4 seeds, these intervals overlap" in notes


def test_time_to_solve_uses_the_updates_of_the_same_implementation(
    study: Study,
) -> None:
    for name, solved_at in (("numpy-reference", 40), ("torch-native", 50)):
        study.learn(f"{name} float32", apart(1e-7), solved_at=solved_at)
        trial = fake_runs.speed_trial(name, "gru")
        fake_runs.speed(study.writer, trial, 0.1)
    times = summarize(study.judged).solve_times
    assert [(t.implementation, t.learned_on) for t in times] == [
        (name, name) for name in ("numpy-reference", "torch-native")
    ]
    assert [t.seconds for t in times] == pytest.approx([4.0, 5.0])


# --- tables and figure ---------------------------------------------------------------


@pytest.fixture
def partings(study: Study) -> Study:
    """Torch parts two updates early in one seed, later in another, and alone in one."""
    ends = ((41, 39), (50, 57), (None, 70), (None, None))
    for seed, (own, at) in enumerate(ends):
        study.reference(apart(1e-7, at=own), seed=seed)
        study.learn("torch-native float32", apart(3e-7, at=at), seed=seed)
        study.learn("torch-native float64", apart(1e-15), seed=seed)
    return study


def test_the_table_counts_seeds_that_part_earlier_later_and_alone(
    partings: Study,
) -> None:
    found = agreement_table(summarize(partings.judged))
    rows = {row.cells[0]: row for row in found.rows}
    own, torch = rows["numpy-reference float32"], rows["torch-native float32"]
    assert own.cells[1:6] == ("4", "–", "–", "–", "–")
    assert torch.cells[1:7] == (
        "4",
        "2/4",
        "2/4",
        "1 by ≤ 2 updates, 1 alone",
        "1 by ≤ 7 updates",
        "3",
    )
    assert torch.tone == "doubt"
    double = rows["torch-native float64"]
    assert double.cells[1:6] == ("4", "4/4", "4/4", "0", "2 alone")
    assert double.tone == ""


def test_the_second_table_has_the_parting_of_each_seed(partings: Study) -> None:
    found = parting_table(summarize(partings.judged))
    assert [block.title for block in found.blocks] == ["adding, length 100"]
    rows = {row.cells[1]: row.cells for row in found.rows}
    assert rows["numpy-reference float32"][4] == "41, 50, –, –"
    assert rows["torch-native float32"][2:5] == ("2/4", "0.2", "39, 57, 70, –")
    assert rows["numpy-reference float64"][2:5] == ("–", "–", "–")


def test_an_uncertified_implementation_is_marked_in_both_tables(study: Study) -> None:
    study.reference(apart(1e-7))
    study.learn("torch-native float32", apart(1e-7), read_back=False)
    found = summarize(study.judged)
    rows = {row.cells[0]: row for row in agreement_table(found).rows}
    assert set(rows) == {
        "numpy-reference float32",
        "torch-native float32 · uncertified",
    }
    assert rows["torch-native float32 · uncertified"].tone == "doubt"
    rows = {row.cells[1]: row for row in parting_table(found).rows}
    assert rows["torch-native float32 · uncertified"].tone == "doubt"
    assert rows["numpy-reference float64"].tone == ""


def test_many_seeds_are_shown_as_a_range(study: Study) -> None:
    for seed in range(7):
        study.reference(apart(1e-7, at=None if seed == 6 else 30 + seed), seed=seed)
    found = parting_table(summarize(study.judged))
    rows = {row.cells[1]: row.cells for row in found.rows}
    assert rows["numpy-reference float32"][4] == "30 to 35 (6 of 7)"


def drawn(study: Study, seed: int) -> Axes:
    panel = next(p for p in agreement_panels(study.judged) if p.seed == seed)
    names = [series.implementation for series in panel.series]
    with drawing():
        sketch = Sketch(5, 4, Palette.of(["gru"], ["numpy-reference", *names]))
        axes = sketch.figure.subplots()
        agreement_axes(axes, panel, sketch)
    return axes


def test_a_panel_draws_every_curve_its_parting_and_that_of_the_reference(
    partings: Study,
) -> None:
    axes = drawn(partings, 0)
    lines = [line for line in axes.lines if len(line.get_xdata()) > 2]
    steps = [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]
    x, y = steps[1]
    assert x[-1] == UPDATES
    left = x.index(39)
    assert y[left:] == pytest.approx([0.2] * len(y[left:]))
    assert max(y[:left]) == pytest.approx(3e-7)
    uprights = [line for line in axes.lines if list(line.get_xdata()) == [41, 41]]
    assert len(uprights) == 1
    marks = [line for line in axes.lines if line.get_marker() not in ("None", None)]
    assert [tuple(line.get_xdata()) for line in marks] == [(39,)]
    assert [text.get_text() for text in axes.texts] == ["41"]


def test_the_page_has_the_figure_with_its_caption(partings: Study) -> None:
    run: RunFolder = partings.writer.run
    page = write_report(run).read_text(encoding="utf-8")
    assert page.index("Do all implementations learn the same?") < page.index("Why? How")
    svg = (run.path / "figures" / "agreement-1-adding.svg").read_text(encoding="utf-8")
    words = set(re.findall(r">([^<>]+)</text>", svg))
    assert {"gru, seed 0", "gru, seed 2", "torch-native float32"} <= words
    assert "gru, seed 3" not in words
    assert "The first 3 of 4 seeds." in page
    assert "torch-native float32 parts at 39" in page, "and said to who does not see"


def test_a_seed_without_a_comparison_has_no_panel(study: Study) -> None:
    study.reference(apart(1e-7))
    study.learn("numpy-reference float64", apart(0.0), seed=1)
    panels = agreement_panels(study.judged)
    assert [panel.seed for panel in panels] == [0]
    with drawing():
        palette = Palette.of(["gru"], ["numpy-reference"])
        assert draw_agreement(panels, palette, 1).name == "agreement-1-adding"


def test_what_a_trial_asks_does_not_depend_on_the_implementation() -> None:
    def question(trial: Trial) -> str:
        return trial.key(SAME_NETWORK)

    trial = fake_runs.learning_trial("gru", 0)
    for changes in (
        {"implementation": "jax-scan"},
        {"dtype": "float64"},
        {"seed": 3},
        {"device": "cuda:0"},
    ):
        assert question(dataclasses.replace(trial, **changes)) == question(trial)
    for other in ({"cell": "rnn"}, {"hidden_size": 9}, {"init": "chrono"}):
        changed: Trial = dataclasses.replace(trial, **other)
        assert question(changed) != question(trial)


def test_the_order_of_implementations_does_not_depend_on_which_trial_ended_first(
    study: Study,
) -> None:
    study.reference(apart(1e-7), cell="rnn")
    study.learn("torch-native float32", apart(1e-7), cell="rnn")
    # In the opposite order, as trials in parallel may end.
    study.learn("torch-native float32", apart(1e-7), cell="gru")
    study.reference(apart(1e-7), cell="gru")
    study.learn("torch-native float32", apart(1e-7), cell="rnn", seed=1)
    rows = learning_rows(study.judged)
    assert [(row.cell, row.implementation, row.trial.dtype) for row in rows] == [
        (cell, *who.split())
        for cell in ("rnn", "gru")
        for who in (
            "numpy-reference float64",
            "numpy-reference float32",
            "torch-native float32",
        )
    ]
    panel = next(p for p in learning_panels(study.judged) if len(p.series) == 4)
    assert [(s.cell, s.implementation) for s in panel.series] == [
        (cell, name)
        for cell in ("rnn", "gru")
        for name in ("numpy-reference", "torch-native")
    ]
