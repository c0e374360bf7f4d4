"""The command `rnn-harness`, outside the packages that another project may hide."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import NoReturn


def hidden(name: str, root: Path) -> str | None:
    """Return what hides the package of a name below `root` from Python, or None."""
    spec = importlib.util.find_spec(name)
    origin = spec.origin if spec is not None else None
    if origin is not None and Path(origin).resolve().parent.parent == root:
        return None
    return (
        f"the package '{name}' on Python's path is {origin or 'missing'}, not "
        "rnn-harness's own; run from another folder or rename it"
    )


def main() -> NoReturn:
    """Run the command, if Python finds the package that holds it."""
    what = hidden("harness", Path(__file__).resolve().parents[1])
    if what is not None:
        print(f"rnn-harness: {ascii(what)[1:-1]}", file=sys.stderr)
        sys.exit(2)
    from harness.cli import main

    main()
