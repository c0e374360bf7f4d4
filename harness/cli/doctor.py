"""`rnn-harness doctor`: is this machine fit to measure on, and how fast is it?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.cli.exits import DONE, NOTHING, exit_code
from harness.cli.options import json_option, plugin_option, read_plugins
from harness.printing import echo, echo_lines


@click.command()
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto|cpu|cuda|cuda:N; auto is the CPU, and the first GPU if there is one.",
)
@click.option(
    "--threads",
    metavar="1,2",
    help="Threads on the CPU, joined by commas.  [default: 1 and all cores]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Print only the verdict.",
)
@json_option
@plugin_option
def doctor(
    device: str,
    threads: str | None,
    quick: bool,
    as_json: bool,
    plugins: tuple[Path, ...],
) -> int:
    """Say whether this machine is fit to measure on, and how fast its libraries are.

    The verdict is fit, noisy or unfit; each reason comes with what to do. The rates are
    those of the best matrix product and copy of every installed library.

    Exit codes: 0 fit or noisy; 5 unfit.
    """
    from harness.interpreters.choose import load_interpreters
    from harness.report.doctor import doctor_json, doctor_text
    from harness.run.doctor import devices_of, diagnose, threads_of

    devices, counts = devices_of(device), threads_of(threads)
    registry = read_plugins(plugins)
    registry.interpreters = load_interpreters({}, registry)
    found = diagnose(
        registry,
        devices,
        counts,
        report=lambda line: echo(line, err=True),
        log=lambda _: None,
        peaks=not quick,
    )
    if as_json:
        echo_lines(json.dumps(doctor_json(found), indent=1, allow_nan=False))
    else:
        echo_lines(doctor_text(found))
    unfit = found.fitness.verdict == "unfit"
    return exit_code(registry, NOTHING if unfit else DONE)
