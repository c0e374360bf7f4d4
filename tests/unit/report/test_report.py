"""The report is complete, offline, escaped, and has the same bytes every time."""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb

from harness.analysis.learning.gradient_over_lag import gradient_panels
from harness.analysis.learning.held_out_curves import learning_panels
from harness.analysis.run import JudgedRun
from harness.errors import NothingMeasuredError
from harness.printing import one_line
from harness.report import markdown
from harness.report.figures import overview, style
from harness.report.figures.axes import log_label
from harness.report.figures.gradients import draw_gradients
from harness.report.figures.layout import arrange
from harness.report.figures.learning import draw_learning
from harness.report.figures.sketch import Sketch
from harness.report.markup import Html, inline_svg, tag
from harness.report.page import write_report
from harness.report.text import number, seconds, seeds, short
from harness.store import RunFolder
from tests import fake_runs

pytestmark = pytest.mark.slow

VOID = {"meta", "br", "hr", "img", "input", "link", "use", "path"}


@dataclass
class Outline(HTMLParser):
    """The tags, ids, links and text of a page."""

    open_: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag not in VOID:
            self.open_.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [str(value) for key, value in attrs if key == "id"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open_.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def outline(page: Path) -> Outline:
    parser = Outline()
    parser.feed(page.read_text(encoding="utf-8"))
    parser.close()
    assert parser.open_ == [], "every element is closed"
    return parser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = fake_runs.quick(tmp_path_factory.mktemp("report") / "run")
    assert write_report(folder) == folder.path / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(run: RunFolder) -> Outline:
    return outline(run.path / "report.html")


def test_every_figure_is_drawn_as_svg_and_png(run: RunFolder) -> None:
    names = {file.stem for file in (run.path / "figures").iterdir()}
    assert names == {
        "overview-learning",
        "overview-gradients",
        "overview-speed",
        "learning-adding",
        "learning-copy-memory",
        "solved-adding",
        "solved-copy-memory",
        "gradients-adding",
        "gradients-copy-memory",
        "throughput-1-adding",
        "throughput-2",
        "roofline",
        "payback",
        "time-to-solve-adding",
    }
    for name in names:
        svg = run.path / "figures" / f"{name}.svg"
        root = ET.fromstring(svg.read_text(encoding="utf-8"))
        assert len(list(root.iter())) > 100, f"{name} is not empty"
        png = (run.path / "figures" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert len(png) > 10_000


def test_the_page_can_be_parsed_and_its_ids_are_unique(page: Outline) -> None:
    assert len(page.ids) == len(set(page.ids))


def test_the_page_refers_to_nothing_outside_its_folder(
    page: Outline, run: RunFolder
) -> None:
    for name, attributes in page.tags:
        for key in ("src", "href", "xlink:href", "action", "data"):
            target = attributes.get(key)
            if target is None:
                continue
            inside = target.startswith("#") and target[1:] in page.ids
            assert inside or (run.path / target).is_file(), (name, target)
    text = (run.path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"url\((?!#)", text) == []
    assert "@import" not in text
    # The only address in the page is in a reason, as text.
    assert len(re.findall("https?:", text)) == text.count("[file](http://x)")


def test_markup_in_a_reason_is_shown_as_text(page: Outline, run: RunFolder) -> None:
    text = (run.path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<script>alert(1)</script> | x no *such*" in page.words
    assert [name for name, _ in page.tags].count("script") == 1


def test_figures_have_text_for_screen_readers(page: Outline) -> None:
    pictures = [attributes for name, attributes in page.tags if name == "svg"]
    assert len(pictures) == 14
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert len(str(attributes["aria-label"])) > 40


def test_words_in_figures_are_text(page: Outline) -> None:
    assert "held-out loss (mean squared error)" in page.words
    assert "lag (time steps)" in page.words
    assert "tokens/s" in page.words


def test_figures_show_failures_doubts_and_the_floor(run: RunFolder) -> None:
    def words(name: str) -> str:
        return (run.path / "figures" / f"{name}.svg").read_text(encoding="utf-8")

    assert "not ok: lstm: 1 crashed; rnn: 1 diverged" in words("learning-copy-memory")
    assert "0.1667" in words("learning-adding")
    assert "not within the limit" in words("solved-adding")
    assert "– (1 crashed)" in words("solved-copy-memory")
    throughput = words("throughput-1-adding")
    assert throughput.count("· uncertified") == 6
    assert throughput.count("· shaky") == 3
    assert throughput.count(">unavailable<") == 3
    assert throughput.count("fill: url(#") == 6 + 1, "hatched, as in the legend"
    faded = re.findall(r"fill: url\(#\w+\); fill-opacity", throughput)
    assert faded == [], "an opacity of the face would fade the hatch too"
    assert "not within 3000" in words("time-to-solve-adding")


def test_page_summary_and_figures_mark_uncertified_learning(
    tmp_path: Path,
) -> None:
    writer = fake_runs.Writer.create(tmp_path / "run")
    fake_runs.parity(writer, "torch-native", "gru")
    trial = fake_runs.learning_trial("gru", 0)
    fake_runs.learning(writer, trial, 1000, read_back=False)
    (learned,) = (r for r in writer.run.records() if r.trial == trial)
    fake_runs.gradients(writer, trial, (61, 100), follows=learned.id)
    fake_runs.speed(writer, fake_runs.speed_trial("torch-native", "gru"), 0.014)
    page = outline(write_report(writer.run))
    assert page.words.count("gru 64 · 12.9k weights · uncertified") == 1
    assert page.words.count("NO: read-back differs by 3.0e-01") == 2
    text = (writer.run.path / "summary.md").read_text(encoding="utf-8")
    assert "| gru 64 · 12.9k weights · uncertified |" in text
    assert text.count("NO: read-back differs by 3.0e-01") == 2
    for name, words in (
        ("learning-adding", "uncertified: gru"),
        ("solved-adding", "gru · uncertified"),
        ("gradients-adding", "uncertified: gru"),
        ("time-to-solve-adding", "14 s · uncertified"),
    ):
        svg = (writer.run.path / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert words in svg, name
    assert "uncertified" not in (
        writer.run.path / "figures" / "throughput-1-adding.svg"
    ).read_text(encoding="utf-8")


def test_rows_and_marks_have_the_attributes_that_the_filter_needs(
    page: Outline,
) -> None:
    rows = [a for name, a in page.tags if name == "tr" and "data-cell" in a]
    assert {a["data-cell"] for a in rows} == {"gru", "lstm", "rnn"}
    marks = [a for name, a in page.tags if name == "g" and "data-cell" in a]
    assert {a["data-implementation"] for a in marks} >= {"my-gru", "torch-native"}
    figures = [a for name, a in page.tags if name == "figure"]
    assert {a.get("data-task") for a in figures} == {"adding", "copy-memory", None}
    options = [a["value"] for name, a in page.tags if name == "option"]
    assert "torch-loop" in options


def test_the_first_screen_has_the_table_before_the_three_pictures(
    page: Outline,
) -> None:
    order = [page.ids.index(name) for name in ("first", "table-learned")]
    order += [
        page.ids.index(f"fig-overview-{name}")
        for name in ("learning", "gradients", "speed")
    ]
    order += [
        page.ids.index(name)
        for name in (
            "learning",
            "gradients",
            "speed",
            "certificates",
            "outcomes",
            "environment",
        )
    ]
    assert order == sorted(order)


def test_the_summary_links_existing_figures(run: RunFolder) -> None:
    text = (run.path / "summary.md").read_text(encoding="utf-8")
    linked = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(linked) == 14
    assert all((run.path / target).is_file() for target in linked)
    assert "| 1000 \\[800, 1200\\] |" in text
    assert text.index("| adding, length 100 |") < text.index("overview-learning")


def test_the_summary_escapes_markup_in_a_reason(run: RunFolder) -> None:
    text = (run.path / "summary.md").read_text(encoding="utf-8")
    (found,) = (part for part in text.splitlines() if "alert" in part)
    assert "<script>" not in found
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\| x no \\*such\\*" in found
    cells = re.split(r"(?<!\\)\|", found)
    assert len(cells) == 5 + 2, "a bar in a reason makes no column"


def test_figures_are_the_same_bytes_on_a_second_drawing(run: RunFolder) -> None:
    judged = JudgedRun.read(run)
    palette = style.Palette.of(
        [record.trial.cell for record in judged.records],
        [record.trial.implementation for record in judged.records],
    )
    curves = [p for p in learning_panels(judged) if p.heading.task == "adding"]
    lags = [p for p in gradient_panels(judged) if p.heading.task == "copy-memory"]
    for draw, panels in ((draw_learning, curves), (draw_gradients, lags)):
        with style.drawing():
            again = draw(panels, palette)  # type: ignore[operator]
        file = run.path / "figures" / again.name
        assert file.with_suffix(".svg").read_text(encoding="utf-8") == again.svg
        assert file.with_suffix(".png").read_bytes() == again.png


def test_a_report_is_the_same_bytes_on_a_second_writing(tmp_path: Path) -> None:
    def written(folder: Path) -> dict[str, bytes]:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return {
            str(p.relative_to(folder)): p.read_bytes()
            for p in files
            if "trials" not in p.parts
        }

    run = fake_runs.only_speed(tmp_path / "run")
    write_report(run)
    first = written(run.path)
    write_report(run)
    assert written(run.path) == first
    assert not [name for name in first if name.endswith(".tmp")]


def test_the_report_of_timings_alone_says_what_was_not_measured(tmp_path: Path) -> None:
    run = fake_runs.only_speed(tmp_path / "run")
    words = outline(write_report(run)).words
    assert "Learning was not measured in this run." in words
    assert "The gradient over lag was not measured in this run." in words
    assert "Nothing was certified in this run" in words
    names = {file.name for file in (run.path / "figures").glob("*.svg")}
    assert names == {"overview-speed.svg", "throughput-1-adding.svg", "roofline.svg"}
    assert "The peak of the machine was not measured beside these timings" in words


def test_a_run_of_one_crashed_trial_has_a_page_and_figures(tmp_path: Path) -> None:
    run = fake_runs.only_crashed(tmp_path / "run")
    found = outline(write_report(run))
    assert "– (1 crashed)" in found.words
    assert "figure" in {name for name, _ in found.tags}
    assert (run.path / "figures" / "solved-adding.svg").is_file()


def test_a_run_without_a_finished_trial_has_no_report(tmp_path: Path) -> None:
    run = fake_runs.empty(tmp_path / "run")
    with pytest.raises(NothingMeasuredError):
        write_report(run)
    assert not (run.path / "report.html").exists()


def test_damaged_and_unfinished_trials_are_named(tmp_path: Path) -> None:
    run = fake_runs.only_crashed(tmp_path / "run")
    trial = fake_runs.learning_trial("lstm", 0)
    writer = fake_runs.Writer(run)
    writer.commit(trial)
    damaged = run.trials / trial.identity({"fake": "0"})
    (damaged / "attempt-001" / "events.jsonl").write_text("{}\n")
    other = fake_runs.learning_trial("rnn", 0)
    run.begin(other, "rnn-begun", {}).abandon()
    words = outline(write_report(run)).words
    assert f"{damaged.name} is left out: attempt-001/events.jsonl does not" in words
    assert "Begun and not finished: 1 (rnn-begun)." in words


# --- parts ---------------------------------------------------------------------------


def test_tags_escape_text_that_is_not_html() -> None:
    written = tag("p", "<b>", Html("<i>x</i>"), title='"&', data_cell="a", hidden=None)
    assert written == ('<p title="&quot;&amp;" data-cell="a">&lt;b&gt;<i>x</i></p>')


def test_references_in_an_inlined_svg_are_unique() -> None:
    svg = (
        '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">'
        '<metadata>http://x</metadata><path id="p1"/><use xlink:href="#p1"/>'
        '<g id="mark0" clip-path="url(#p1)"/></svg>'
    )
    found = inline_svg(svg, "f", 'a "b"', {"mark0": ("<c>", "i")})
    assert found == (
        '<svg role="img" aria-label="a &quot;b&quot;"><path id="f-p1"/>'
        '<use xlink:href="#f-p1"/><g id="f-mark0" data-cell="&lt;c&gt;" '
        'data-implementation="i" clip-path="url(#f-p1)"/></svg>'
    )


def test_markdown_escapes_special_characters() -> None:
    assert markdown.escape("a|b\n<i> *c* `d` [e](https://f) $g$ @h #1") == (
        "a\\|b &lt;i&gt; \\*c\\* \\`d\\` \\[e\\](https&#58;//f) \\$g\\$ @<!-- -->h \\#1"
    )


def test_colours_of_cells_can_be_distinguished() -> None:
    names = ["gru", "lstm", "rnn", "gru-reset-before", "min-gru", "other"]
    palette = style.Palette.of(names, [])
    assert len(set(palette.cells.values())) == 6
    assert palette.cells["gru"] == style.Palette.of(["rnn", "gru"], []).cells["gru"]
    # Every colour is dark enough to be seen on white paper.
    for colour in palette.cells.values():
        red, green, blue = to_rgb(colour)
        assert 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.75


def test_dashes_and_markers_distinguish_eight_implementations() -> None:
    names = [f"implementation-{i}" for i in range(8)]
    palette = style.Palette.of([], names)
    assert len({str(palette.dash(name)) for name in names}) == 8
    assert len({palette.marker(name) for name in names}) == 8


def test_the_first_screen_shows_the_best_of_each_cell(tmp_path: Path) -> None:
    writer = fake_runs.Writer.create(tmp_path / "run")
    for cell in ("gru", "lstm"):
        for index, name in enumerate(("a", "b", "c")):
            if name != "c":
                fake_runs.parity(writer, name, cell)
            trial = fake_runs.speed_trial(name, cell)
            fake_runs.speed(writer, trial, 0.01 / (index + 1))
    rows = overview.overview_speed(fake_runs.summary(writer.run).speed, None)
    assert {row.phase for row in rows} == {"train_step"}
    best = overview.best_of_each(rows, 2)
    # c is the fastest and not certified.
    assert [(r.cell, r.implementation) for r in best] == [("gru", "b"), ("lstm", "b")]
    assert overview.best_of_each(rows, 6) == rows


def test_the_first_screen_shows_the_sizes_with_most_implementations(
    tmp_path: Path,
) -> None:
    writer = fake_runs.Writer.create(tmp_path / "run")
    fake_runs.learning(writer, fake_runs.learning_trial("gru", 0), 1000)
    fake_runs.speed(writer, fake_runs.speed_trial("a", "gru"), 0.01)
    for batch, names in ((1, "a"), (8, "abc"), (64, "abc")):
        for name in names:
            trial = fake_runs.shape_trial(name, "gru", batch=batch, session=f"{batch}")
            fake_runs.speed(writer, trial, 0.01)
    found = fake_runs.summary(writer.run)
    assert found.focus is not None
    rows = overview.overview_speed(found.speed, found.focus)
    assert {row.trial.batch for row in rows} == {8}
    assert len(rows) == 3
    # The task in focus has as many, so it is shown.
    for name in "bc":
        fake_runs.speed(writer, fake_runs.speed_trial(name, "gru"), 0.01)
    found = fake_runs.summary(writer.run)
    rows = overview.overview_speed(found.speed, found.focus)
    assert {row.heading.task for row in rows} == {"adding"}


@pytest.mark.parametrize(
    ("kinds", "cells"),
    [
        (["a"], [(0, 0)]),
        (["a", "b"], [(0, 0), (0, 1)]),
        (["a", "a", "b", "b"], [(0, 0), (0, 1), (1, 0), (1, 1)]),
        (["a"] * 4, [(0, 0), (0, 1), (0, 2), (1, 0)]),
    ],
)
def test_panels_are_arranged_by_kind(
    kinds: list[str], cells: list[tuple[int, int]]
) -> None:
    assert arrange(kinds) == cells


def test_no_legend_is_wider_than_its_figure(run: RunFolder) -> None:
    names = ["rnn", "gru", "lstm", "numpy-reference", "torch-native", "single seed"]
    for width in (4.0, 5.0, 6.5, 8.0):
        with style.drawing():
            sketch = Sketch(width, 3.0, style.Palette.of([], []))
            sketch.figure.subplots()
            sketch.legend([style.line_handle(name) for name in names])
            sketch.figure.draw_without_rendering()
            (legend,) = sketch.figure.legends
            box = legend.get_window_extent()
        assert box.width / sketch.figure.dpi <= width, width


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (312.0, "5 min 12 s"),
        (3725.0, "1 h 02 min"),
        (14.0, "14 s"),
        (119.7, "2 min 00 s"),
        (0.0042, "4.2 ms"),
        (3e-6, "3 µs"),
        (2e-8, "20 ns"),
        (0.0, "0 ns"),
        (None, "–"),
    ],
)
def test_durations_are_written_in_readable_form(
    value: float | None, words: str
) -> None:
    assert seconds(value) == words


def test_numbers_are_written_in_readable_form() -> None:
    assert (number(1 / 6), number(3.1e-7), number(0.0)) == ("0.1667", "3.1e-07", "0")
    assert number(6.4e-4) == "0.00064"
    assert (short(12_929), short(999_960), short(512)) == ("12.9k", "1M", "512")
    assert (seeds([0, 1, 2]), seeds(range(10))) == ("0, 1, 2", "0 to 9")
    assert one_line("a\n\x1b[31mb\u202ec") == "a [31mb c"


@pytest.mark.parametrize(
    ("value", "words"),
    [(1.0, "1"), (0.01, "0.01"), (1e-8, "10⁻⁸"), (2e-8, "2·10⁻⁸"), (1e6, "10⁶")],
)
def test_log_labels_are_written_in_readable_form(value: float, words: str) -> None:
    assert log_label(value) == words
