"""Print the size of the source, crowded folders and import cycles.

`python -m tests.benchmarks.structure` prints the source lines without docstrings,
comments and blanks, the folders with more than a dozen files, and the cycles of
imports between modules. `lint-imports` checks the direction of imports.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

import grimp

TREE = Path(__file__).resolve().parents[2]
PACKAGES = ("harness", "implementations", "tasks")
MANY = 12
ONE_A_FILE = ("figures", "tables")
"""Folders that hold one figure or table a file, and so may hold more."""

_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


def source_lines(file: Path) -> int:
    """Count the lines of a file that hold code."""
    text = file.read_text(encoding="utf-8")
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in _NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - _docstring_lines(ast.parse(text)))


def _docstring_lines(tree: ast.Module) -> set[int]:
    """Return the lines of every string that is a statement: docstrings."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def circles(package: str) -> list[list[str]]:
    """Return the groups of modules that import each other in a cycle."""
    graph = grimp.build_graph(package)
    reached = {
        module: graph.find_downstream_modules(module) for module in graph.modules
    }
    found: dict[str, list[str]] = {}
    for module in sorted(graph.modules):
        for other in reached[module]:
            if module in reached[other]:
                found.setdefault(min(module, other), []).append(max(module, other))
    return [[first, *sorted(set(rest))] for first, rest in found.items()]


def crowded() -> dict[str, int]:
    """Return the folders with more than `MANY` Python files except `__init__`."""
    counts = Counter(
        str(file.parent.relative_to(TREE))
        for package in PACKAGES
        for file in (TREE / package).rglob("*.py")
        if file.name != "__init__.py" and file.parent.name not in ONE_A_FILE
    )
    return {folder: count for folder, count in counts.items() if count > MANY}


def main() -> None:
    """Print every figure."""
    total = 0
    for package in PACKAGES:
        count = sum(source_lines(file) for file in (TREE / package).rglob("*.py"))
        total += count
        print(f"{package:16} {count:6} source lines")
    for folder in sorted(p for p in (TREE / "harness").iterdir() if p.is_dir()):
        count = sum(source_lines(file) for file in folder.rglob("*.py"))
        if count:
            print(f"  harness/{folder.name:14} {count:6}")
    print(f"{'together':16} {total:6}")
    print(f"folders with more than {MANY} files: {crowded() or 'none'}")
    found = [c for package in PACKAGES for c in circles(package)]
    print(f"circles of imports: {found or 'none'}")


if __name__ == "__main__":
    main()
