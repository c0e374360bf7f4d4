"""The figures of timings draw the numbers of the tables, with doubts and failures."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from harness.analysis.speed.scaling import (
    ScalingPanel,
    chosen_panels,
    scaling_panels,
    spread,
)
from harness.analysis.speed.timings import SpeedRow
from harness.analysis.summary import Summary
from harness.machine.peak import Peak, Rate
from harness.report.contents import sections
from harness.report.figures import fastest, latency, payback, roofline, scaling
from harness.report.figures.layout import apart, few_of_each, within
from harness.report.figures.results import Results
from harness.report.figures.sketch import Sketch
from harness.report.figures.style import Palette, drawing
from harness.report.markdown import summary_text
from harness.report.page import document
from harness.store import RunFolder
from tests import fake_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fake_runs.sweep(tmp_path_factory.mktemp("sweep") / "run")


@pytest.fixture(scope="module")
def summary(run: RunFolder) -> Summary:
    return fake_runs.summary(run)


def drawn(rows: tuple[SpeedRow, ...], draw: Callable[[Axes, Sketch], None]) -> Axes:
    """Return axes after drawing on them."""
    palette = Palette.of(
        [row.cell for row in rows], [row.implementation for row in rows]
    )
    with drawing():
        sketch = Sketch(7.0, 4.0, palette)
        axes = sketch.figure.subplots()
        draw(axes, sketch)
        sketch.figure.draw_without_rendering()
    return axes


def points(axes: Axes, **look: Any) -> list[tuple[float, float]]:
    """Return the single points of a style, such as a marker."""
    found = []
    for line in axes.lines:
        kept = all(
            getattr(line, f"get_{key}")() == value for key, value in look.items()
        )
        if kept and len(line.get_xdata()) == 1:
            found.append((float(line.get_xdata()[0]), float(line.get_ydata()[0])))
    return found


def rings(axes: Axes) -> list[tuple[float, float]]:
    return points(axes, markerfacecolor="none")


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def curves(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if len(line.get_xdata()) > 1]


# --- scaling -------------------------------------------------------------------------


def panel(summary: Summary, axis: str, where: str) -> ScalingPanel:
    (found,) = (
        each
        for each in scaling_panels(summary.speed)
        if each.axis == axis and each.phase == "train_step" and where in each.where
    )
    return found


def test_times_are_drawn_over_the_size_that_varies(summary: Summary) -> None:
    shown = panel(summary, "batch", "hidden 64")
    assert shown.xs == (1, 64)
    axes = drawn(summary.speed, lambda a, s: scaling.scaling_axes(a, shown, s))
    expected = {
        (tuple(x for x, _ in line.timed), tuple(r.time_s for _, r in line.timed))
        for line in shown.lines
    }
    assert {
        (tuple(line.get_xdata()), tuple(line.get_ydata())) for line in curves(axes)
    } == expected
    names = [line.implementation for line in shown.lines]
    assert set(texts(axes)) >= set(names), "each line has its name beside it"
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert [float(t) for t in axes.get_xticks()] == [1.0, 64.0]


def test_the_band_around_a_line_is_the_interval(summary: Summary) -> None:
    shown = panel(summary, "batch", "hidden 64")
    axes = drawn(summary.speed, lambda a, s: scaling.scaling_axes(a, shown, s))
    (line,) = (ln for ln in shown.lines if ln.implementation == "torch-native")
    low, high = line.timed[0][1].time, line.timed[-1][1].time
    assert low is not None
    assert high is not None
    ends = {(1.0, low.low), (1.0, low.high), (64.0, high.low), (64.0, high.high)}
    bands = [
        {(float(x), float(y)) for x, y in band.get_paths()[0].vertices}
        for band in axes.collections
    ]
    assert any(ends <= band for band in bands)


def test_doubts_and_failures_are_drawn_on_the_lines(summary: Summary) -> None:
    shaky = panel(summary, "batch", "hidden 64")
    axes = drawn(summary.speed, lambda a, s: scaling.scaling_axes(a, shaky, s))
    (first,) = (r for ln in shaky.lines for _, r in ln.timed if r.shaky)
    assert rings(axes) == [(1.0, first.time_s)]
    assert len(points(axes, markerfacecolor="white")) == 2, "my-fused-gru, twice"
    failed = panel(summary, "batch", "hidden 1024")
    axes = drawn(summary.speed, lambda a, s: scaling.scaling_axes(a, failed, s))
    assert points(axes, marker="X") == [(64.0, 1.0)]
    assert "jax-scan at 64: out of memory" in axes.get_xlabel()


def test_every_axis_has_a_few_panels(tmp_path: Path) -> None:
    run = fake_runs.sweep(
        tmp_path / "run",
        names=("torch-native",),
        batches=(1, 64),
        widths=(32, 64, 128),
        steps=(10, 100),
        threads=(1, 2),
        step_s=False,
    )
    panels = scaling_panels(fake_runs.summary(run).speed)
    assert {p.axis for p in panels} == {"time_steps", "batch", "hidden_size", "threads"}
    kept, left_out = chosen_panels(panels, 3)
    assert len(kept) + left_out == len(panels)
    assert len(kept) == 12
    assert {p.phase for p in kept} == {"train_step"}
    along = [p for p in kept if p.axis == "hidden_size"]
    assert all(p.xs == (32, 64, 128) for p in along)
    assert not any("hidden" in p.where for p in along)
    assert not any("thread" in p.where for p in kept if p.axis == "threads")


def test_single_time_steps_are_drawn_only_over_width(tmp_path: Path) -> None:
    run = fake_runs.sweep(tmp_path / "run", names=("torch-native",), steps=(10, 100))
    panels = scaling_panels(fake_runs.summary(run).speed)
    assert {p.axis for p in panels if p.phase == "stream"} == {"hidden_size"}


def test_items_are_spread_evenly() -> None:
    assert spread(list(range(10)), 3) == [0, 4, 9]
    assert spread([1, 2], 3) == [1, 2]
    assert spread(list(range(5)), 1) == [0]


# --- the roof ------------------------------------------------------------------------


def test_marks_and_roof_are_drawn_at_their_numbers(summary: Summary) -> None:
    rows = [r for r in roofline.roofline_rows(summary.speed) if r.phase == "stream"]
    peak = Peak(Rate(80e9, library="torch"), Rate(12e9, library="numpy"))
    ranges = (0.1, 1000.0, 1e7, 1e12)
    axes = drawn(
        summary.speed, lambda a, s: roofline.roofline_axes(a, rows, peak, ranges, s)
    )
    (roof,) = curves(axes)
    assert list(roof.get_xdata()) == pytest.approx([0.1, 80 / 12, 1000.0])
    assert list(roof.get_ydata()) == pytest.approx([1.2e9, 80e9, 80e9])
    words = "matrix product 80 GFLOP/s (torch)\ncopy 12 GB/s (numpy)"
    assert texts(axes)[0] == words
    assert set(points(axes)) == {(r.intensity, r.flop_per_s) for r in rows}
    assert all(r.flop_per_s < r.roof_flop_per_s for r in rows)


def test_a_figure_without_a_peak_has_no_roof_and_says_so(summary: Summary) -> None:
    rows = roofline.roofline_rows(summary.speed)
    ranges = (0.1, 1000.0, 1e7, 1e12)
    axes = drawn(
        summary.speed, lambda a, s: roofline.roofline_axes(a, rows, None, ranges, s)
    )
    assert curves(axes) == []
    assert "peak not measured: no roof" in texts(axes)


def written(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def roofs(rows: Sequence[SpeedRow]) -> list[str]:
    """Return the text of a drawn roofline."""
    palette = Palette.of(["gru"], [row.implementation for row in rows])
    with drawing():
        return written(roofline.draw_roofline(rows, (), palette).svg)


@pytest.mark.slow
def test_no_panel_of_the_roofline_is_empty_and_all_labels_are_alike(
    tmp_path: Path,
) -> None:
    run = fake_runs.sweep(tmp_path / "run", threads=(1, 2))
    rows = [
        row
        for row in fake_runs.summary(run).speed
        if row.phase == "train_step"
        or (row.phase, row.trial.threads) == ("stream", 1)
        or (row.phase, row.trial.threads) == ("forward", 2)
    ]
    words = roofs(rows)
    assert words.count("peak not measured: no roof") == 4
    assert words.count("FLOP/byte") == 3, "under the lowest panel of each phase"
    # FLOP/byte span six powers of ten for one thread, and two for two threads.
    powers = {1: (1e-2, 1e4), 2: (1.0, 1e2)}
    spread_out = [
        replace(row, flops=powers[row.trial.threads][n % 2], least_bytes=1.0)
        for n, row in enumerate(rows)
    ]
    ticks = [
        word for word in roofs(spread_out) if re.fullmatch("10(0+|[⁰¹²³⁴⁻]+)", word)
    ]
    assert len(ticks) > 4
    assert not any(word.isascii() for word in ticks)


def test_a_time_step_has_one_mark_and_overlapping_marks_are_counted(
    summary: Summary,
) -> None:
    rows = roofline.roofline_rows(summary.speed)
    steps = [row for row in rows if row.phase == "stream"]
    assert len(steps) == len({(r.implementation, r.trial.hidden_size) for r in steps})
    assert {r.trial.batch for r in steps if r.implementation != "jax-scan"} == {64}
    left, right = steps[0], replace(steps[0], flop_per_s=100 * steps[0].flop_per_s)
    close = replace(steps[0], flop_per_s=1.05 * steps[0].flop_per_s)
    ranges = (0.1, 1000.0, 1e7, 1e12)
    for shown, words in (
        ([left, right], []),
        ([left, right, close], ["3 marks, 1 close to another"]),
    ):
        axes = drawn(
            summary.speed,
            lambda a, s, shown=shown: roofline.roofline_axes(a, shown, None, ranges, s),
        )
        assert texts(axes)[1:] == words


# --- the map -------------------------------------------------------------------------


def test_the_map_names_the_fastest_at_each_size(summary: Summary) -> None:
    (found,) = (m for m in summary.fastest if m.phase == "train_step")
    colours = fastest.colours_of([found])
    axes = drawn(summary.speed, lambda a, s: fastest.fastest_axes(a, found, colours, s))
    placed = {(t.get_position(), t.get_text()) for t in axes.texts}
    expected = set()
    for spot in found.spots:
        at = ((1, 64).index(spot.batch or 0), (64, 1024).index(spot.hidden_size or 0))
        expected.add((at, fastest.spot_words(spot)[0]))
    assert placed == expected
    boxes = {
        (box.get_x() + 0.5, box.get_y() + 0.5): to_rgb(box.get_facecolor())
        for box in axes.patches
        if isinstance(box, Rectangle)
    }
    small = next(s for s in found.spots if (s.batch, s.hidden_size) == (1, 64))
    assert small.winner == "jax-scan"
    assert boxes[0, 0] == to_rgb(colours["jax-scan"])
    assert boxes[1, 1] == to_rgb(colours["torch-native"])


def test_words_can_be_read_on_every_colour_of_the_map() -> None:
    for colour in fastest.COLOURS:
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in to_rgb(colour)
        )
        luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        assert (luminance + 0.05) / 0.065 > 4.5, colour  # the ink has 0.015


# --- latency -------------------------------------------------------------------------


def test_latencies_are_drawn_with_their_tail(summary: Summary) -> None:
    rows = next(iter(latency.latency_panels(summary.speed)))
    axes = drawn(summary.speed, lambda a, s: latency.latency_axes(a, rows, s))
    lines = [line for line in curves(axes) if len(line.get_xdata()) > 2]
    assert len(lines) == len(rows) == 3
    for line, row in zip(lines, rows, strict=True):
        sample = np.sort(row.latency_sample_s)
        assert np.array_equal(line.get_xdata(), sample)
        share = np.asarray(line.get_ydata())
        assert share[0] == 1.0
        assert share[-1] == pytest.approx(1 / len(sample)), "the longest wait is drawn"
        at = sample[np.searchsorted(-share, -0.01)]
        assert row.latency is not None
        assert row.latency.p99_s == pytest.approx(at, rel=0.1)
    marked = set(points(axes)) - set(rings(axes))
    for row in rows:
        assert row.latency is not None
        assert (row.latency.p50_s, 0.5) in marked
        assert (row.latency.p99_s, 0.01) in marked
    assert texts(axes) == ["p50", "p95", "p99"]


def test_a_time_step_is_drawn_once_whatever_the_batch_of_its_trial(
    summary: Summary,
) -> None:
    panels = latency.latency_panels(summary.speed)
    assert [len(panel) for panel in panels] == [3, 3]
    assert [panel[0].trial.hidden_size for panel in panels] == [64, 1024]


# --- first calls ---------------------------------------------------------------------


def test_the_diamond_is_drawn_where_both_have_taken_the_same_time(
    summary: Summary,
) -> None:
    (found,) = (
        p
        for p in payback.payback_panels(summary.paybacks)
        if (p[0].row.trial.batch, p[0].row.trial.hidden_size) == (1, 64)
    )
    axes = drawn(summary.speed, lambda a, s: payback.payback_axes(a, found, s))
    diamonds = points(axes, marker="D")
    crossed = [each for each in found if each.calls is not None and each.calls > 1]
    assert len(diamonds) == len(crossed) == 2
    for (calls, total), each in zip(diamonds, crossed, strict=True):
        for row in (each.row, each.against):
            assert row is not None
            first, time_s = row.first_call_s or 0, row.time_s or 0
            assert total == pytest.approx(first + (calls - 1) * time_s)
    starts = {float(line.get_ydata()[0]) for line in curves(axes)}
    assert starts == {each.row.first_call_s for each in found}


# --- names beside lines --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_names_beside_lines_keep_their_order_and_never_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = list(rng.random(10) ** 3)
    found = within(apart(wanted, 0.05))
    order = sorted(range(10), key=lambda i: wanted[i])
    placed = [found[i] for i in order]
    gaps = np.diff(placed)
    assert (gaps >= 0.05 - 1e-9).all()
    assert max(placed) <= 0.97 + 1e-9


def test_names_that_do_not_overlap_are_not_moved() -> None:
    assert apart([0.9, 0.1, 0.5], 0.05) == [0.9, 0.1, 0.5]
    assert apart([], 0.05) == within([]) == []


def test_a_few_panels_cover_every_cell() -> None:
    panels = [f"{cell}{i}" for cell in "abc" for i in range(9)]
    lines = few_of_each(panels, lambda name: name[0], 6)
    assert lines == [["a0", "a8"], ["b0", "b8"], ["c0", "c8"]]
    assert few_of_each(["a0", "b0"], lambda name: name[0], 6) == [["a0", "b0"]]
    alone = few_of_each([f"a{i}" for i in range(9)], lambda name: name[0], 6)
    assert [len(line) for line in alone] == [3, 3]


# --- all together --------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_has_a_bounded_number_of_figures(
    run: RunFolder, summary: Summary
) -> None:
    parts = sections(Results(summary))
    assert [found.name for part in parts for found in part.figures] == [
        "overview-speed",
        "fastest",
        "throughput-1",
        "throughput-2",
        "throughput-3",
        "scaling",
        "roofline",
        "latency",
        "payback",
    ]
    (speed,) = (part for part in parts if part.name == "speed")
    for found in speed.figures:
        assert len(found.alt) > 100, found.name
        assert len(found.caption) > 100, found.name
        shown = {implementation for _, implementation in found.marks.values()}
        assert shown <= {"torch-native", "jax-scan", "my-fused-gru"}
        assert len(shown) > 1
        assert all(f'id="{mark}"' in found.svg for mark in found.marks)
    page = document("sweep", summary, parts)
    assert "Throughput is drawn for 3 of 4 headings" in page
    for words in ("table-fastest", "table-rates", "table-latency", "table-peaks"):
        assert f'id="{words}"' in page
    text = summary_text("sweep", "", parts)
    assert "figures/fastest.svg" in text
    assert "**Shaky timings and what to do" in text


@pytest.mark.slow
def test_a_figure_is_the_same_bytes_on_a_second_drawing(summary: Summary) -> None:
    panels = [panel(summary, "batch", "hidden 64")]
    names = [line.implementation for line in panels[0].lines]
    with drawing():
        first, again = (
            scaling.draw_scaling(panels, 0, Palette.of(["gru"], names)) for _ in "ab"
        )
    assert (first.svg, first.png) == (again.svg, again.png)
