"""Print the size of the source, crowded folders, cycles of imports and repeated code.

`python -m tests.benchmarks.structure` prints the source lines without docstrings,
comments and blanks, the folders with more than a dozen files, the cycles of imports
between modules, whether every import points down, as `lint-imports` says, and the runs
of six source lines that are in the source twice.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

import grimp

TREE = Path(__file__).resolve().parents[2]
LINT = Path(sys.executable).with_name("lint-imports")
PACKAGES = ("harness", "implementations", "tasks")
MANY = 12
RUN = 6
"""Source lines in a row that count as repeated code if they are there twice."""

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


def source_lines(file: Path, leave_out: tuple[type[ast.stmt], ...] = ()) -> list[str]:
    """Return the lines of a file that hold code, without their indentation.

    Statements of the types `leave_out` are left out.
    """
    text = file.read_text(encoding="utf-8")
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in _NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    found = text.split("\n")
    code = sorted(lines - _lines_without_code(ast.parse(text), leave_out))
    return [found[number - 1].strip() for number in code]


def _lines_without_code(
    tree: ast.Module, leave_out: tuple[type[ast.stmt], ...]
) -> set[int]:
    """Return the lines of every string that is a statement, and of what is left out."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, leave_out)
        or (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )
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


def repeated() -> list[str]:
    """Return where a run of `RUN` source lines begins that was seen before.

    A longer piece of code counts once. Imports and lines of brackets alone are left
    out.
    """
    seen: dict[tuple[str, ...], str] = {}
    found = []
    for package in PACKAGES:
        for file in sorted((TREE / package).rglob("*.py")):
            code = source_lines(file, (ast.Import, ast.ImportFrom))
            lines = [line for line in code if line.strip("()[]{},: ")]
            last = -RUN
            for start in range(len(lines) - RUN + 1):
                run = tuple(lines[start : start + RUN])
                here = f"{file.relative_to(TREE)}: {run[0]}"
                first = seen.setdefault(run, here)
                if first is not here:
                    if start > last + 1:
                        found.append(f"{here} (first in {first})")
                    last = start
    return found


def main() -> None:
    """Print every figure."""
    total = 0
    for package in PACKAGES:
        count = sum(len(source_lines(file)) for file in (TREE / package).rglob("*.py"))
        total += count
        print(f"{package:16} {count:6} source lines")
    for folder in sorted(p for p in (TREE / "harness").iterdir() if p.is_dir()):
        count = sum(len(source_lines(file)) for file in folder.rglob("*.py"))
        if count:
            print(f"  harness/{folder.name:14} {count:6}")
    print(f"{'together':16} {total:6}")
    print(f"folders with more than {MANY} files: {crowded() or 'none'}")
    found = [c for package in PACKAGES for c in circles(package)]
    print(f"circles of imports: {found or 'none'}")
    checked = subprocess.run([LINT], cwd=TREE, stdout=subprocess.DEVNULL)
    print(f"imports that point up: {'some' if checked.returncode else 'none'}")
    copies = repeated()
    print(f"repeated runs of {RUN} source lines: {len(copies)}")
    for copy in copies:
        print(f"  {copy}")


if __name__ == "__main__":
    main()
