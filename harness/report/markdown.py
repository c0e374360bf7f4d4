"""`summary.md`: the tables and links to the figures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.printing import one_line
from harness.report.contents import Section
from harness.report.tables.form import Table

_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def escape(text: str) -> str:
    """Return text in which Markdown finds no markup."""
    found = one_line(text).translate(_ENTITIES)
    found = re.sub(r"([\\`*_\[\]|~$#@])", r"\\\1", found)
    # With the colon as an entity, no renderer turns the text into a link.
    return found.replace("://", "&#58;//")


def summary_text(title: str, sentence: str, sections: Sequence[Section]) -> str:
    """Return the content of `summary.md`."""
    parts = [f"# {escape(title)}", escape(sentence)]
    for section in sections:
        if section.title:
            parts.append(f"## {escape(section.title)}")
        parts += [escape(words) for words in section.missing]
        pictures = [
            f"![{escape(figure.title)}](figures/{figure.name}.svg)"
            for figure in section.figures
        ]
        written = [table_text(table) for table in section.tables]
        # On the first screen the table comes before the pictures.
        parts += [*pictures, *written] if section.title else [*written, *pictures]
    return "\n\n".join(parts) + "\n"


def table_text(table: Table) -> str:
    """Return a Markdown table for each block, with its title before it."""
    rule = ["---:" if side == "r" else ":---" for side in table.align]
    parts = []
    for block in table.blocks:
        title = " · ".join(word for word in (table.title, block.title) if word)
        # The head of a nested table has the title of the block.
        parts += [] if table.nested else [f"**{escape(title)}**"]
        lines = [_line([escape(word) for word in block.head]), _line(rule)]
        lines += [_line([escape(word) for word in row.cells]) for row in block.rows]
        parts.append("\n".join(lines))
    parts += [escape(note) for note in table.notes]
    return "\n\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
