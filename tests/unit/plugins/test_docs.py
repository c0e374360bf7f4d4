"""The pages of the documentation: line lengths, links, and the list of pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import helpers

DOCS = helpers.ROOT / "docs"
PAGES = (
    helpers.ROOT / "README.md",
    helpers.ROOT / "CONTRIBUTING.md",
    helpers.ROOT / "results" / "README.md",
    *sorted(DOCS.glob("*.md")),
)


def name(page: Path) -> str:
    return str(page.relative_to(helpers.ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_line_is_longer_than_120_characters(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").split("\n")
    long = {i: len(line) for i, line in enumerate(lines, 1) if len(line) > 120}
    assert long == {}


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", head.lower()) for head in heads]
    return {head.strip().replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        target = "".join(link)
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def test_the_list_of_pages_has_every_page() -> None:
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        if page.name != "README.md":
            assert f"({page.name})" in text, page.name


def test_every_word_is_explained_once_and_in_few_lines() -> None:
    text = (DOCS / "words.md").read_text(encoding="utf-8")
    paragraphs = [p for p in text.split("\n\n") if p.startswith("**")]
    words = [re.match(r"\*\*(.+?)\*\*", p)[1] for p in paragraphs]  # type: ignore[index]
    assert len(words) == len(set(words)) > 30
    for paragraph in paragraphs:
        assert len(paragraph.split("\n")) <= 3, paragraph


def test_every_suite_is_in_the_readme_with_its_time() -> None:
    text = (helpers.ROOT / "README.md").read_text(encoding="utf-8")
    for file in (helpers.ROOT / "harness" / "suites").glob("*.toml"):
        row = re.search(rf"^\| \[`{file.stem}`\].*$", text, re.MULTILINE)
        assert row is not None, file.stem
        assert re.search(r"\d+ (s|min|h)|for a GPU", row[0]), row[0]
