"""The report of a run: figures, `summary.md` and one offline `report.html`."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from harness.analysis.run import JudgedRun
from harness.analysis.summary import Summary, summarize
from harness.files.own import write_own_files
from harness.printing import one_line
from harness.report.contents import Section, sections
from harness.report.figures.results import Results
from harness.report.figures.sketch import Drawn
from harness.report.header import sentence
from harness.report.markdown import summary_text
from harness.report.markup import Html, inline_svg, join, table, tag
from harness.report.text import few
from harness.store import RunFolder

FILTERS = ("task", "cell", "implementation")


def write_report(
    run: RunFolder,
    summary: Summary | None = None,
    report: Callable[[str], object] = lambda words: None,
) -> Path:
    """Write figures, `summary.md` and `report.html` into the run's folder.

    Args:
        run: The folder to read and to write to.
        summary: Its tables, if they are known already.
        report: Is given a sentence on each file of others that was renamed.

    Returns:
        The page.

    Raises:
        NothingMeasuredError: If there is no finished trial.
        OSError: If the folder cannot be written.
    """
    if summary is None:
        summary = summarize(JudgedRun.read(run))
    parts = sections(Results(summary, unfinished(run)))
    contents: dict[str, bytes] = {}
    for found in (figure for part in parts for figure in part.figures):
        contents[f"figures/{found.name}.svg"] = found.svg.encode()
        contents[f"figures/{found.name}.png"] = found.png
    title = f"rnn-harness: {one_line(summary.header.suite)}"
    text = summary_text(title, sentence(summary.header), parts)
    contents["summary.md"] = text.encode()
    contents["report.html"] = document(title, summary, parts).encode()
    write_own_files(run.path, contents, report)
    return run.path / "report.html"


def unfinished(run: RunFolder) -> tuple[str, ...]:
    """Return sentences on the trials that were begun and have no usable result."""
    said = [
        f"{name} is left out: {why.what}; {why.advice}."
        for name, why in run.contents().left_out.items()
    ]
    begun = [spec.parent for spec in sorted(run.trials.glob("*/spec.json"))]
    open_ = [folder.name for folder in begun if not (folder / "result.json").exists()]
    if open_:
        named = ", ".join(few(open_, 5))
        said.append(f"Begun and not finished: {len(open_)} ({named}).")
    return tuple(said)


# --- the page ------------------------------------------------------------------------


def document(title: str, summary: Summary, parts: Sequence[Section]) -> str:
    """Return the page; it contains its style and script, and needs no other file."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy()),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", _asset("page.css")),
    )
    about = [tag("p", sentence(summary.header), class_="sentence")]
    if summary.header.why:
        about.append(tag("p", one_line(summary.header.why), class_="note"))
    links = [tag("a", part.title, href=f"#{part.name}") for part in parts if part.title]
    body = tag(
        "body",
        tag("header", tag("h1", title), *about),
        tag("nav", *links, aria_label="Sections"),
        _filter_bar(parts),
        tag("main", *map(section, parts)),
        tag("script", _asset("page.js")),
    )
    return f"<!doctype html>\n{tag('html', join(head, body), lang='en')}\n"


def _policy() -> str:
    """Return what a browser lets the page do: run its own script, and ask for nothing.

    Every text is escaped. If one is not, its script does not run.
    """
    script = hashlib.sha256(_asset("page.js").encode()).digest()
    return (
        f"default-src 'none'; script-src 'sha256-{b64encode(script).decode()}'; "
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> Html:
    return Html((files("harness.report") / name).read_text(encoding="utf-8"))


def _filter_bar(parts: Sequence[Section]) -> Html:
    rows = [row for part in parts for found in part.tables for row in found.rows]
    boxes = []
    for name in FILTERS:
        values = sorted({getattr(row, name) for row in rows} - {""})
        if len(values) > 1:
            options = [tag("option", "all", value="")]
            options += [tag("option", value, value=value) for value in values]
            boxes.append(tag("label", f"{name} ", tag("select", *options, name=name)))
    if not boxes:
        return Html("")
    # The script shows the form, because without a script the boxes do nothing.
    return tag("form", *boxes, id="filters", hidden=True, aria_label="Filters")


def section(part: Section) -> Html:
    """Return a section: what was not measured, the figures, the tables.

    On the first screen the table comes before the pictures.
    """
    missing = [tag("p", words, class_="missing") for words in part.missing]
    figures = [figure(found) for found in part.figures]
    written = [join(tag("h3", each.title), table(each)) for each in part.tables]
    folded = [
        tag("details", tag("summary", found.title), table(found))
        for found in part.folded
    ]
    if not part.title:
        row = tag("div", *figures, class_="overview") if figures else Html("")
        shown = [table(found) for found in part.tables]
        return tag("section", *missing, *shown, row, id=part.name)
    heading = tag("h2", part.title)
    return tag("section", heading, *missing, *figures, *written, *folded, id=part.name)


def figure(found: Drawn) -> Html:
    """Return a figure with its caption and links to its files."""
    prefix = f"fig-{found.name}"
    picture = inline_svg(found.svg, prefix, found.alt, found.marks)
    links = [
        tag("a", ending.upper(), href=f"figures/{found.name}.{ending}")
        for ending in ("svg", "png")
    ]
    caption = tag(
        "figcaption",
        tag("strong", found.title),
        " ",
        found.caption,
        " ",
        tag("span", *links, class_="files"),
    )
    return tag(
        "figure",
        caption,
        tag("div", picture, class_="scroll", tabindex="0"),
        id=prefix,
        data_task=found.task or None,
    )
