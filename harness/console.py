"""Standard output and standard error as rich prints to them, every text as it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment
from rich.text import Text

from harness.printing import printable


class Console(rich.console.Console):
    """A console that finds no markup in a string and prints no control character.

    A string is one line, because a name in it may be a stranger's; a `Text`
    may have more.
    The escapes that rich itself makes, for colours and the lines of progress, are left.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as a `Text` of one line."""
        return super().render_str(printable(text), **options)

    def render(
        self,
        renderable: rich.console.RenderableType,
        options: rich.console.ConsoleOptions | None = None,
    ) -> Iterable[Segment]:
        """Return the segments of something, with printable text."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text, "\n"), segment.style)
