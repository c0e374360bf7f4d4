"""`summary.md`: the tables and links to the figures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.printing import one_line
from harness.report.contents import Section
from harness.report.tables.form import Table

_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def escape(text: str) -> str:
    """Return text in one line in which Markdown finds no markup."""
    found = one_line(text).translate(_ENTITIES)
    found = re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", found)
    # No renderer turns words into a link if a part of them is an entity, or after a
    # comment, which is not shown.
    found = found.replace("://", "&#58;//").replace("@", "@<!-- -->")
    found = re.sub(r"\b(www)\.", r"\1&#46;", found, flags=re.IGNORECASE)
    # At the beginning these make a list, a rule or a heading; a number stays.
    return re.sub(r"^(\d*)([-+.)](?= |$)|[-=](?=[-= ]*$))", r"\1\\\2", found)


def picture(title: str, file: str) -> str:
    """Return a picture with a title in place of it."""
    # Some renderers show a comment there, and none makes a link of a part of it.
    return f"![{escape(title).replace('<!-- -->', '')}]({file})"


def summary_text(title: str, sentence: str, sections: Sequence[Section]) -> str:
    """Return the content of `summary.md`."""
    parts = [f"# {escape(title)}", escape(sentence)]
    for section in sections:
        if section.title:
            parts.append(f"## {escape(section.title)}")
        parts += [escape(words) for words in section.missing]
        pictures = [
            picture(figure.title, f"figures/{figure.name}.svg")
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
