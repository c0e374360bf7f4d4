"""Every string of a stranger's run folder is text in every output."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import re
import shutil
import subprocess
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from harness.analysis.comparison.compare import compare
from harness.analysis.frame import COLUMNS
from harness.analysis.run import JudgedRun
from harness.analysis.summary import Summary
from harness.console import Console
from harness.printing import one_line, printable
from harness.report import markdown
from harness.report.certificate import certificate_json, certificate_text
from harness.report.exports import tidy_csv
from harness.report.figures.axes import name_lines, write
from harness.report.figures.sketch import Sketch, file_name
from harness.report.figures.style import Palette, drawing, line_handle
from harness.report.markup import inline_svg, tag
from harness.report.page import write_report
from harness.report.tables.compare import compare_json, compare_table
from harness.report.terminal import all_tables, end_of_run, render
from harness.store import RunFolder, to_json
from tests import fake_runs, helpers, hostile

pytestmark = pytest.mark.slow

TEXTS = pytest.mark.parametrize("text", hostile.TEXTS.values(), ids=hostile.TEXTS)

FIGURE = re.compile(r"figures/[A-Za-z0-9._-]+\.(svg|png)")


def worse(text: str) -> str:
    """Return a string of each kind around a string of a run."""
    if text == "numpy-reference":  # with which others are compared
        return text
    kinds = [*hostile.TEXTS.values()]
    which = sum(map(ord, text))
    return f"{kinds[which % len(kinds)]}{text}{hostile.LINE if which % 8 == 0 else ''}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run with a report, in a folder that holds nothing else."""
    folder = tmp_path_factory.mktemp("hostile") / "in" / "run"
    folder.parent.mkdir()
    found = hostile.every_part(folder)
    begun = fake_runs.learning_trial("rnn", 99)
    found.begin(begun, "<script>x [red]\x1b[31m\n- begun", {}).abandon()
    hostile.poison(folder, worse)
    assert found.contents().left_out == {}, "everything is read"
    write_report(found)
    return found


@pytest.fixture(scope="module")
def summary(run: RunFolder) -> Summary:
    return fake_runs.summary(run)


# --- pages and pictures --------------------------------------------------------------


@dataclass
class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text in scripts."""

    found: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    code: dict[str, str] = field(default_factory=dict)
    words: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img", "br"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        last = self.inside[-1] if self.inside else ""
        if last in ("script", "style"):
            self.code[last] = self.code.get(last, "") + data
        self.words += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data[:80]}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data[:80]}")


def elements(text: str) -> Elements:
    parser = Elements()
    parser.feed(text)
    parser.close()
    return parser


_PICTURE = "svg g defs path use clippath rect text tspan pattern image"
_PAGE = (
    "html head meta title style body header h1 h2 h3 p nav a form label select option "
    "main section div table tbody tr th td figure figcaption strong span details "
    "summary script"
)
PICTURE = {*_PICTURE.split()}
PAGE = PICTURE | {*_PAGE.split()}


def assert_harmless(found: Elements, allowed: set[str]) -> None:
    """Assert that elements run nothing and ask for nothing outside."""
    ids = [attributes["id"] for _, attributes in found.found if "id" in attributes]
    assert len(ids) == len(set(ids)), "an id is there twice"
    for name, attributes in found.found:
        assert name in allowed, name
        for key, value in attributes.items():
            assert not key.startswith("on"), (name, key)
            assert key not in ("src", "srcdoc", "action", "formaction", "xml:base")
            if key.endswith("href"):
                inside = value.startswith("#") and value[1:] in ids
                assert inside or FIGURE.fullmatch(value), (name, value)
            if key == "style" or "url(" in value.split(" ")[0]:
                asked = re.findall(r"url\((?!#)", value)
                assert not asked, (name, value)
                assert "@import" not in value


def test_the_page_runs_nothing_and_asks_for_nothing(run: RunFolder) -> None:
    text = (run.path / "report.html").read_text(encoding="utf-8")
    found = elements(text)
    assert_harmless(found, PAGE)
    assert printable(text, "\n\xa0") == text
    own = files("harness.report")
    script = (own / "page.js").read_text(encoding="utf-8")
    style = (own / "page.css").read_text(encoding="utf-8")
    assert [name for name, _ in found.found].count("script") == 1
    assert [name for name, _ in found.found].count("style") == 1
    assert found.code == {"script": script, "style": style}
    assert not found.inside, "every element is closed"
    headers = [a.get("http-equiv") for name, a in found.found if name == "meta"]
    assert headers == [None, "Content-Security-Policy", None, None]
    assert one_line(hostile.LINE) in one_line(found.words), "the text is there, as text"


def test_pictures_run_nothing_and_ask_for_nothing(run: RunFolder) -> None:
    pictures = list((run.path / "figures").glob("*.svg"))
    assert len(pictures) == 20
    for file in pictures:
        text = file.read_text(encoding="utf-8")
        ET.fromstring(text)  # it can be read as XML
        body = text[text.index("<svg") :]
        body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
        found = elements(body)
        assert_harmless(found, PICTURE | {"style"})
        assert set(found.code) <= {"style"}
        assert found.code.get("style", "") in (
            "*{stroke-linejoin: round; stroke-linecap: butt}"
        )


def test_files_are_written_into_the_run_folder_only(run: RunFolder) -> None:
    assert [path.name for path in run.path.parent.iterdir()] == ["run"]
    assert [path.name for path in run.path.parent.parent.iterdir()] == ["in"]
    for path in (run.path / "figures").iterdir():
        assert path.name.startswith(".") or FIGURE.fullmatch(f"figures/{path.name}")


# --- text ----------------------------------------------------------------------------


def rendered(text: str) -> Elements:
    """Return the elements that a renderer makes of Markdown; comments are not shown."""
    made = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    return elements(made.replace("<!-- -->", ""))


_MARKDOWN = "h1 h2 p img table thead tbody tr th td strong"
MARKDOWN = {*_MARKDOWN.split()}


def test_the_summary_has_no_link_and_no_markup(run: RunFolder) -> None:
    text = (run.path / "summary.md").read_text(encoding="utf-8")
    found = rendered(text)
    for name, attributes in found.found:
        assert name in MARKDOWN, name
        if name == "img":
            assert (run.path / attributes["src"]).is_file()
            assert FIGURE.fullmatch(attributes["src"])
    # What some renderers make a link of without any markup.
    assert not re.search(r"\w://|\bwww\.|\w@\w|(?<!\w)@\w", text)
    assert printable(text, "\n\xa0") == text


def texts(run: RunFolder, summary: Summary) -> Iterator[str]:
    """Return all that the commands would print about a run."""
    for terminal in (False, True):
        file = io.StringIO()
        console = Console(
            file=file, force_terminal=terminal, color_system=None, width=140
        )
        console.print(end_of_run(summary, run.path / "report.html"))
        console.print(all_tables(summary))
        console.print(render(compare_table(compare(summary.run, summary.run))))
        yield file.getvalue()


def test_what_is_printed_is_text(run: RunFolder, summary: Summary) -> None:
    shown = list(texts(run, summary))
    for record in summary.run.of("parity"):
        shown.append(certificate_text(record))
        # No text makes a line of its own.
        verdicts = re.findall(r"^(?:not )?certified", shown[-1], re.MULTILINE)
        assert len(verdicts) == 1
    for text in shown:
        assert printable(text, "\n") == text
    assert "[red]x[/red]" in "".join("".join(shown).split())
    assert ":smile:" in "".join("".join(shown).split())


def test_json_is_json(run: RunFolder, summary: Summary) -> None:
    compared = compare_json(compare(summary.run, summary.run))
    certificates = [certificate_json(record) for record in summary.run.of("parity")]
    for value in (summary.to_json(), compared, certificates):
        text = to_json(value)
        assert text.isascii()
        assert json.loads(text)


def test_no_cell_of_the_export_is_a_formula(run: RunFolder, summary: Summary) -> None:
    file = io.StringIO(newline="")
    tidy_csv.write_csv(summary.run, file)
    head, *rows = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert tuple(head) == COLUMNS
    assert len(rows) > 500
    for row in rows:
        assert len(row) == len(COLUMNS)
        for cell in row:
            assert printable(cell) == cell
            if cell.startswith(tuple("=+-@＝＋－＠")):
                float(cell)  # a number is a number


# --- one kind at a time --------------------------------------------------------------


@TEXTS
def test_an_element_contains_text_and_no_element(text: str) -> None:
    found = elements(tag("p", text, title=text, data_task=text))
    assert found.found == [("p", {"title": found.words, "data-task": found.words})]
    assert one_line(found.words) == one_line(text)
    picture = f'<svg xmlns="x"><g id="mark0"><text>{html.escape(text)}</text></g></svg>'
    found = elements(inline_svg(picture, text, text, {"mark0": (text, text)}))
    assert [name for name, _ in found.found] == ["svg", "g", "text"]
    assert found.words == text, "what looks like a reference is left"


@TEXTS
def test_markdown_contains_text_and_no_element(text: str) -> None:
    for before, after in (("", ""), ("# ", ""), ("| a |\n|---|\n| ", " |\n")):
        found = rendered(f"{before}{markdown.escape(text)}{after}")
        names = {name for name, _ in found.found}
        assert names <= {"p", "h1", "table", "thead", "tbody", "tr", "th", "td"}
        assert one_line(text) in one_line(found.words)
    picture = markdown.picture(text, "figures/x.svg")
    (_, (name, attributes)) = rendered(picture).found
    assert (name, attributes["src"]) == ("img", "figures/x.svg")
    assert one_line(attributes["alt"]) == one_line(text)


@TEXTS
def test_a_file_has_a_name_that_is_one_part_of_a_path(text: str) -> None:
    found = file_name(f"learning-{text}")
    assert FIGURE.fullmatch(f"figures/{found}.svg")
    assert len(found) <= 81
    assert not found.startswith(".")


def test_each_name_has_a_file_of_its_own() -> None:
    names = [f"learning-{text}" for text in hostile.TEXTS.values()]
    names += ["learning-A b", "learning-A-b", "learning-A/b", "learning-A--b"]
    names += [file_name("learning-A/b")]
    assert len({file_name(name) for name in names}) == len(set(names))
    assert file_name("learning-copy-memory") == "learning-copy-memory"


@TEXTS
def test_a_figure_contains_text(text: str) -> None:
    with drawing():
        sketch = Sketch(5.0, 3.0, Palette.of([text], [text]))
        axes = sketch.figure.subplots()
        axes.set_title(text)
        axes.set_xlabel(f"lag {text}")
        name_lines(axes, [text, "other"])
        write(axes, text, (0.5, 0.5), (1, 1))
        sketch.legend([line_handle(text), *sketch.palette.cell_handles([text])])
        found = sketch.finish(text, text, text, text)
    words = "".join(ET.fromstring(found.svg).itertext())
    assert printable(words, "\n\xa0") == words
    assert one_line(text)[:20] in one_line(words)
    legend = sketch.figure.legends[0].get_texts()
    assert len(legend) == 2, "no name hides its entry"
    assert inline_svg(found.svg, found.name, found.alt, found.marks)


@TEXTS
def test_a_cell_of_a_table_file_is_text(text: str) -> None:
    found = tidy_csv.text(text)
    assert found.lstrip("'") == one_line(text).lstrip("'")
    assert not found.startswith(tuple("=+-@＝＋－＠"))


@pytest.mark.parametrize("number", ["-1.5", "+3", "-1e-05", "-.5", "12"])
def test_a_number_stays_a_number(number: str, tmp_path: Path) -> None:
    assert tidy_csv.text(number) == number
    writer = fake_runs.Writer.create(tmp_path / "run")
    trial = fake_runs.learning_trial("gru", 0)
    reading = fake_runs.Reading("outcome", {"margin": float(number)})
    writer.commit(trial, readings=[reading], reason=number)
    tidy_csv.write_csv(JudgedRun.read(writer.run), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (float(row["value"]), row["reason"]) == (float(number), number)


# --- a browser -----------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

RAW = "".join(
    f"<p>{printable(text)}</p>"
    for name, text in hostile.TEXTS.items()
    if name != "base"  # it loads the page for ever
)
"""Texts as a page would have them if nobody escaped them."""

needs_browser = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")


@dataclass
class Opened:
    """What a browser made of a page, and what it asked of other hosts."""

    document: str
    asked: list[str]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[Path], Opened]]:
    """Return a function that opens a file in Chromium; every host is this test."""
    asked: list[str] = []

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.headers['Host']}{self.path}")
            with contextlib.suppress(OSError):  # the browser may have ended
                self.send_response(404)
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def open_(page: Path) -> Opened:
        asked.clear()
        done = subprocess.run(
            [
                *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu"),
                *("--disable-background-networking", "--disable-component-update"),
                *("--no-first-run", "--disable-sync", "--disable-dev-shm-usage"),
                f"--user-data-dir={tmp_path / 'profile'}",
                f"--host-resolver-rules=MAP * 127.0.0.1:{server.server_port}",
                *("--virtual-time-budget=3000", "--dump-dom", page.as_uri()),
            ],
            capture_output=True,
            timeout=100,
            check=True,
        )
        # Chromium itself may ask its maker for something.
        ours = [each for each in asked if hostile.OUTSIDE in each]
        return Opened(done.stdout.decode("utf-8", "replace"), ours)

    yield open_
    server.shutdown()
    thread.join()
    server.server_close()


def title(document: str) -> str:
    found = re.search(r"<title>(.*?)</title>", document, re.DOTALL)
    return "" if found is None else html.unescape(found[1])


@needs_browser
def test_a_browser_shows_what_a_hostile_page_does(
    opened: Callable[[Path], Opened], tmp_path: Path
) -> None:
    """This is the control: without it, a browser that does nothing would pass."""
    page = f"<!doctype html><meta charset=utf-8><title>x</title>{RAW}"
    found = opened(helpers.write(tmp_path / "page.html", page))
    assert title(found.document) == hostile.RAN
    assert {f"{hostile.OUTSIDE}/{name}" for name in ("script", "image")} <= {
        *found.asked
    }


@needs_browser
def test_a_browser_runs_nothing_of_a_strangers_page(
    run: RunFolder, opened: Callable[[Path], Opened]
) -> None:
    found = opened(run.path / "report.html")
    assert hostile.RAN not in title(found.document)[:20]
    assert title(found.document).startswith("rnn-harness: ")
    assert found.asked == []
    (form,) = re.findall(r'<form id="filters"[^>]*>', found.document)
    assert "hidden" not in form, "the page's own script has run"


@needs_browser
def test_a_browser_runs_nothing_of_text_that_nobody_escaped(
    run: RunFolder, opened: Callable[[Path], Opened], tmp_path: Path
) -> None:
    """The policy of the page is a second wall."""
    text = (run.path / "report.html").read_text(encoding="utf-8")
    before, main, after = text.partition("<main>")
    page = f"{before}{RAW}{main}{after}"
    found = opened(helpers.write(tmp_path / "page.html", page))
    assert title(found.document).startswith("rnn-harness: ")
    assert found.asked == []
    assert f"<script>{hostile.TEXTS['script'][8:30]}" in found.document


@needs_browser
def test_a_browser_runs_nothing_of_a_strangers_pictures(
    run: RunFolder, opened: Callable[[Path], Opened], tmp_path: Path
) -> None:
    shutil.copytree(run.path / "figures", tmp_path / "figures")
    names = sorted(path.name for path in (tmp_path / "figures").glob("*.svg"))
    frames = "".join(f'<iframe src="figures/{name}"></iframe>' for name in names)
    page = f"<!doctype html><title>x</title>{frames}"
    found = opened(helpers.write(tmp_path / "page.html", page))
    assert (title(found.document), found.asked) == ("x", [])
