"""What was run where, in one sentence for the page and one line for the terminal."""

from __future__ import annotations

from harness.analysis.header import Header
from harness.printing import one_line
from harness.report.text import counts, seconds

NAMES = {"gradients": "gradient"}
"""Measures whose trials have another name in the sentence."""


def sentence(header: Header) -> str:
    """Return one sentence: what was run where, and how it ended."""
    *others, last = _measured(header) or ["no"]
    measured = f"{', '.join(others)} and {last}" if others else last
    trials = "trial" if sum(header.measures.values()) == 1 else "trials"
    words = f"{header.suite} ran {measured} {trials}"
    words += f" on {' and '.join(header.machines) or 'an unnamed machine'}"
    words += f" ({header.fitness})" if header.fitness else ""
    if header.frameworks:
        words += f" with {', '.join(header.frameworks)}"
    if header.wall_time_s is not None:
        words += f" in {seconds(header.wall_time_s)}"
    ended = counts(header.outcomes).replace(" ok", " ended ok")
    return one_line(f"{words}: {ended}.")


def line(header: Header) -> str:
    """Return the same as a line of facts, for a terminal."""
    facts = [header.suite, ", ".join(_measured(header)), counts(header.outcomes)]
    if header.wall_time_s is not None:
        facts.append(seconds(header.wall_time_s))
    machines = " and ".join(header.machines)
    if machines:
        facts.append(f"{machines} ({header.fitness})" if header.fitness else machines)
    return one_line(" · ".join([*facts, *header.frameworks]))


def _measured(header: Header) -> list[str]:
    return [f"{n} {NAMES.get(name, name)}" for name, n in header.measures.items()]
