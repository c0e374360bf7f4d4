"""The command line: a file for each command or family; the only place that exits."""

from harness.cli.main import main

__all__ = ["main"]
