"""`rnn-harness compare`: two runs, a verdict for every timing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.exits import DONE, NO, NOTHING
from harness.cli.options import FileName, json_option, plugin_option, stdout
from harness.cli.read import read_run
from harness.errors import MisuseError, NothingMeasuredError
from harness.printing import echo, echo_lines, one_line

if TYPE_CHECKING:
    from harness.analysis.comparison.compare import Comparison
    from harness.analysis.run import JudgedRun


_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"


def _share(
    context: click.Context, option: click.Parameter, value: str | None
) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(rf"\s*({_NUMBER})\s*(%?)\s*", value, re.IGNORECASE)
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share < 1:
        raise MisuseError(
            f"--effect {value}: give a share above 0 and below 1, e.g. 5%, 0.05 or 5e-2"
        )
    return share


effect_option = click.option(
    "--effect",
    metavar="5%|0.05",
    callback=_share,
    help="The smallest difference that counts  [default: 5%].",
)


@click.command()
@click.argument("base", metavar="BASE", type=FileName(path_type=Path))
@click.argument("new", metavar="NEW", type=FileName(path_type=Path))
@click.option(
    "--across-machines",
    is_flag=True,
    help="Compare timings of different machines, thread counts, dtypes or precisions.",
)
@effect_option
@json_option
@plugin_option
def compare(
    base: Path,
    new: Path,
    across_machines: bool,
    effect: float | None,
    as_json: bool,
    plugins: tuple[Path, ...],
) -> int:
    """Compare every timing of NEW with that of BASE: faster, the same or slower.

    Both are run folders. Exit code 0: no timing is seen to be slower; 3: a timing is
    slower or failed; 5: too many timings are undecided.
    """
    from harness.analysis.comparison.compare import EFFECT, compare

    if base.exists() and new.exists() and base.samefile(new):
        raise MisuseError(f"{base} and {new} are the same run; give two")
    found = compare(
        _timings(base),
        _timings(new),
        effect=effect or EFFECT,
        across_machines=across_machines,
    )
    return print_comparison(found, as_json=as_json)


def _timings(folder: Path) -> JudgedRun:
    """Read a run that has timings."""
    _, run = read_run(folder)
    if not run.of("speed"):
        raise NothingMeasuredError(
            f"{folder} has no speed trial, so there is nothing to compare; run a suite "
            "with a [[speed]] section"
        )
    return run


def print_comparison(found: Comparison, *, as_json: bool) -> int:
    """Print a comparison and return its exit code."""
    from harness.report.tables.compare import (
        compare_json,
        compare_sentence,
        compare_table,
    )
    from harness.report.terminal import render
    from harness.store import to_json

    code = _code(found)
    undecided = _undecided(found, code)
    if as_json:
        whole = replace(found, notes=(*found.notes, *undecided))
        echo_lines(to_json(compare_json(whole)))
    else:
        table = compare_table(found)
        stdout().print(render(table))
        for note in ("", *table.notes, "", compare_sentence(found), *undecided):
            echo(one_line(note))
    return code


def _code(found: Comparison) -> int:
    from harness.analysis.comparison.compare import DECIDED, REGRESSIONS

    if found.of(*REGRESSIONS):
        return NO
    decided = len(found.of(*DECIDED))
    return DONE if decided and _may_be_slower(found) <= decided else NOTHING


def _may_be_slower(found: Comparison) -> int:
    """Count the unclear keys whose interval does not exclude a slowdown."""
    effects = [row.judged for row in found.of("unclear")]
    intervals = [None if each is None else each.interval for each in effects]
    return sum(i is None or i.high > 1 + found.effect for i in intervals)


def _undecided(found: Comparison, code: int) -> tuple[str, ...]:
    """Return how many keys may be slower and what to do about it, or nothing."""
    count = _may_be_slower(found)
    if not count:
        return ()
    keys = f"{count} of {len(found.rows)} key" + ("" if len(found.rows) == 1 else "s")
    verb = "is" if count == 1 else "are"
    many = ", too many to say that none is" if code == NOTHING else ""
    return (
        f"{keys} {verb} undecided and may be slower by more than "
        f"{100 * found.effect:g} %{many} (exit code {code}); give more time (--set "
        "speed.time_budget_s=120), ask for less at once (-k) or use a quieter machine.",
    )
