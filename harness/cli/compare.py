"""`rnn-harness compare`: two runs, a verdict for every timing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.exits import DONE, NO, NOTHING
from harness.cli.options import json_option, plugin_option, stdout
from harness.cli.read import read_run
from harness.errors import MisuseError, NothingMeasuredError

if TYPE_CHECKING:
    from harness.analysis.compare import Comparison
    from harness.store import TrialRecord


def _share(
    context: click.Context, option: click.Parameter, value: str | None
) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", value)
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share < 1:
        raise MisuseError(
            f"--effect {value}: give a share above 0 and below 1, as 5% or 0.05"
        )
    return share


effect_option = click.option(
    "--effect",
    metavar="5%|0.05",
    callback=_share,
    help="The least difference that counts [default: 5%].",
)


@click.command()
@click.argument("base", metavar="BASE", type=click.Path(path_type=Path))
@click.argument("new", metavar="NEW", type=click.Path(path_type=Path))
@click.option(
    "--across-machines",
    is_flag=True,
    help="Put unlike machines, thread counts, dtypes or precisions side by side.",
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
    """Say of every timing of NEW whether it is slower than that of BASE.

    Both are run folders. Exit code 0: nothing is slower; 3: something is, or failed; 5:
    nothing could be decided.
    """
    from harness.analysis.compare import EFFECT, compare

    if base.exists() and new.exists() and base.samefile(new):
        raise MisuseError(f"{base} and {new} are the same run; give two")
    found = compare(
        _timings(base),
        _timings(new),
        effect=effect or EFFECT,
        across_machines=across_machines,
    )
    return tell(found, as_json=as_json)


def _timings(folder: Path) -> list[TrialRecord]:
    """Return the records of a run that has timed something."""
    _, records = read_run(folder)
    if not any(record.trial.measure == "speed" for record in records):
        raise NothingMeasuredError(
            f"{folder} holds no speed trial, and timings are what is compared; run a "
            "suite with a [[speed]] section"
        )
    return records


def tell(found: Comparison, *, as_json: bool) -> int:
    """Print a comparison and return the exit code that it earns."""
    from harness.analysis.compare import DECIDED, REGRESSIONS
    from harness.report.tables.compare import (
        compare_json,
        compare_sentence,
        compare_table,
    )
    from harness.report.terminal import render
    from harness.store import to_json

    if as_json:
        click.echo(to_json(compare_json(found)))
    else:
        table = compare_table(found)
        stdout().print(render(table))
        for note in ("", *table.notes, "", compare_sentence(found)):
            click.echo(note)
    if found.of(*REGRESSIONS):
        return NO
    return DONE if found.of(*DECIDED) else NOTHING
