"""The table of which implementation to use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.analysis.grouping import group
from harness.analysis.speed.fastest import FastestMap, Spot
from harness.analysis.summary import Summary
from harness.report.tables.form import Block, Row, Table, ends
from harness.report.tables.speed import phase
from harness.report.text import NOTHING, one_line, seconds, times

MOST_EQUAL = 3
"""Names told of those that are equally fast."""


def fastest_table(summary: Summary) -> Table:
    """Return the fastest certified implementation at each batch and hidden size."""
    head = (
        "cell", "phase", "batch", "hidden size", "fastest certified", "library",
        "kernel", "time of a call", "next", "next ÷ fastest", "not counted",
    )  # fmt: skip
    notes = (
        "≈: an advantage under 2 %, or one whose 95 % interval holds 1, is none. "
        "Compared within one session, round by round. Uncertified ones never win. "
        "Library and kernel: of the one named first.",
    )
    maps = [found for found in summary.fastest if is_choice(found)]
    titled = group(maps, lambda m: title(m, summary))
    return Table(
        "fastest",
        "Fastest certified implementation",
        "llrrlllrlrl",
        tuple(
            Block(head, tuple(_row(m, spot) for m in members for spot in m.spots), name)
            for name, members in titled.items()
        ),
        notes,
    )


def map_table(summary: Summary) -> Table:
    """Return the same where several sizes were timed, else a table without rows.

    Timings of many sizes fill many screens; this table fills one.
    """
    found = fastest_table(summary)
    mapped = any(each.is_map for each in summary.fastest)
    return found if mapped else replace(found, blocks=())


def title(found: FastestMap, summary: Summary) -> str:
    """Return what is alike on a map; the machine where the run has several."""
    several = len({m.conditions.machine for m in summary.fastest}) > 1
    alike = found.conditions.title if several else found.conditions.budget
    return f"{found.where} · {alike}"


def is_choice(found: FastestMap) -> bool:
    """Return whether there was anything to choose from."""
    return any(
        len(spot.certified) + len(spot.uncertified) + len(spot.failures) > 1
        for spot in found.spots
    )


def fastest_words(spot: Spot) -> str:
    """Return "torch-native", "torch-native ≈ jax-scan", or why there is none."""
    if not spot.equals:
        return "none certified" if spot.uncertified else "no timing"
    return " ≈ ".join(few(spot.equals))


def few(names: Sequence[str], most: int = MOST_EQUAL) -> list[str]:
    """Return at most so many names, and how many more there are."""
    more = len(names) - most
    return [*names[:most], f"{more} more"] if more > 0 else list(names)


def _row(found: FastestMap, spot: Spot) -> Row:
    not_counted = [
        f"{name} uncertified" + (" (faster)" if name in spot.faster_uncertified else "")
        for name in spot.uncertified
    ]
    not_counted += [f"{name} {how.replace('_', ' ')}" for name, how in spot.failures]
    shaky = " (shaky)" if spot.shaky else ""
    next_shaky = " (shaky)" if spot.runner_up_shaky else ""
    return Row(
        (
            found.cell,
            phase(found.phase),
            NOTHING if spot.batch is None else str(spot.batch),
            NOTHING if spot.hidden_size is None else str(spot.hidden_size),
            fastest_words(spot) + shaky,
            one_line(spot.framework or NOTHING),
            one_line(spot.kernel or NOTHING),
            seconds(spot.time_s),
            (spot.runner_up or NOTHING) + next_shaky,
            times(spot.ratio) + ends(spot.interval, times),
            "; ".join(not_counted) or NOTHING,
        ),
        "" if spot.equals and not (shaky or next_shaky) else "doubt",
        cell=found.cell,
        implementation=spot.winner or "",
    )
