"""Build HTML from parts, and escape every text that is not an `Html`."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

from harness.printing import printable
from harness.report.tables.form import Block, Row, Table

VOID = frozenset({"meta", "br", "hr", "img", "input"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(child: object) -> Html:
    """Return a child as HTML: printable and escaped, unless it is HTML already."""
    if isinstance(child, Html):
        return child
    return Html(html.escape(printable(child, "\n\xa0")))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element; attributes that are None or False are left out.

    An underscore in an attribute's name becomes a hyphen; one at its end is dropped.
    """
    written = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        known = "" if value is True else f'="{_value(value)}"'
        written += f" {label}{known}"
    if name in VOID:
        return Html(f"<{name}{written}>")
    inner = "".join(escape(child) for child in children)
    return Html(f"<{name}{written}>{inner}</{name}>")


def _value(value: object) -> str:
    """Return the value of an attribute, in which nothing is HTML already."""
    return escape(printable(value, "\n\xa0"))


def join(*parts: Html) -> Html:
    """Return parts with a line break between them."""
    return Html("\n".join(parts))


# --- tables --------------------------------------------------------------------------


def table(found: Table) -> Html:
    """Return a table with its notes below; a wide one scrolls by itself."""
    bodies, shown = [], None
    for block in found.blocks:
        head = block.head if block.head != shown else None
        bodies.append(_body(block, head, found.align))
        shown = block.head
    notes = [tag("p", " ".join(found.notes), class_="note")] if found.notes else []
    body = tag("table", *bodies, aria_label=found.title)
    scroll = tag("div", body, class_="scroll", tabindex="0")
    return tag("div", scroll, *notes, class_="table", id=f"table-{found.name}")


def _body(block: Block, head: tuple[str, ...] | None, align: str) -> Html:
    lines = []
    if block.title:
        width = len(block.head)
        title = tag("th", block.title, colspan=width, scope="rowgroup")
        lines.append(tag("tr", title, class_="place"))
    if head is not None:
        cells = _cells("th", head, align, scope="col")
        lines.insert(0, tag("tr", *cells, class_="head"))
    for row in block.rows:
        cells = _cells("td", row.cells, align)
        lines.append(tag("tr", *cells, class_=row.tone or None, **keys(row)))
    return tag("tbody", *lines)


def _cells(
    name: str, words: Sequence[str], align: str, **attributes: str
) -> list[Html]:
    sides = ("right" if side == "r" else None for side in align)
    return [
        tag(name, _unbroken(each), class_=side, **attributes)
        for each, side in zip(words, sides, strict=True)
    ]


def _unbroken(words: str) -> str:
    """Return words in which an interval is not broken over two lines."""
    return re.sub(r"\[[^\]]*\]", lambda m: m.group().replace(" ", "\u00a0"), words)


def keys(row: Row) -> dict[str, str]:
    """Return the attributes that the page's filter reads."""
    names = ("task", "cell", "implementation")
    return {f"data_{n}": getattr(row, n) for n in names if getattr(row, n)}


# --- pictures ------------------------------------------------------------------------


def inline_svg(
    text: str, prefix: str, alt: str, marks: Mapping[str, tuple[str, str]]
) -> Html:
    """Return an SVG file as part of a page.

    Its ids get a prefix, because ids must differ between the pictures of a page. Each
    mark gets its cell and implementation as attributes, which the page's filter reads.
    """
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    known = _value(prefix)

    def changed(found: re.Match[str]) -> str:
        if found[1] is not None:
            return _identity(found[1], known, marks)
        return "" if found[0].startswith(" xmlns") else f"{found[0]}{known}-"

    # Only within tags: the same words between tags are text of a name.
    body = re.sub(r"<[^>]*>", lambda tag: re.sub(_REFERENCES, changed, tag[0]), body)
    label = f'<svg role="img" aria-label="{_value(alt)}"'
    return Html(body.replace("<svg", label, 1))


_REFERENCES = re.compile(r' id="([^"]*)"| xmlns(?::\w+)?="[^"]*"|href="#|url\(#')


def _identity(name: str, prefix: str, marks: Mapping[str, tuple[str, str]]) -> str:
    written = f' id="{prefix}-{_value(name)}"'
    if name in marks:
        cell, implementation = map(_value, marks[name])
        written += f' data-cell="{cell}" data-implementation="{implementation}"'
    return written
