"""The table of which implementation to use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.analysis.speed.conditions import budget_of, title_of
from harness.analysis.speed.fastest import FastestMap, Spot
from harness.analysis.summary import Summary
from harness.report.tables.form import Column, Table, ends, table
from harness.report.tables.timings import phase
from harness.report.text import NOTHING, few, seconds, times

MOST_EQUAL = 3
"""How many of the implementations that are equally fast are named."""

OnMap = tuple[FastestMap, Spot]
"""One batch and hidden size, and the map that it is on."""

COLUMNS: Sequence[Column[OnMap]] = (
    Column("cell", lambda at: at[0].cell),
    Column("phase", lambda at: phase(at[0].phase)),
    Column("batch", lambda at: str(at[1].batch or NOTHING), "r"),
    Column("hidden size", lambda at: str(at[1].hidden_size or NOTHING), "r"),
    Column("fastest certified", lambda at: fastest_words(at[1]) + _shaky(at[1].shaky)),
    Column("library", lambda at: at[1].framework),
    Column("kernel", lambda at: at[1].kernel),
    Column("time of a call", lambda at: seconds(at[1].time_s), "r"),
    Column("next", lambda at: _next(at[1])),
    Column("next ÷ fastest", lambda at: _ratio(at[1]), "r"),
    Column("not counted", lambda at: _not_counted(at[1])),
)


def fastest_table(summary: Summary) -> Table:
    """Return the fastest certified implementation at each batch and hidden size."""
    notes = (
        "≈: equally fast, as the difference is below 2 % or its 95 % interval contains "
        "1. Implementations are compared within one session, round by round; an "
        "uncertified one is never the fastest. Library and kernel are those of the "
        "implementation that is named first.",
    )
    maps = [found for found in summary.fastest if is_choice(found)]
    return table(
        "fastest",
        "Fastest certified implementation",
        COLUMNS,
        [(found, spot) for found in maps for spot in found.spots],
        keys=lambda at: ("", at[0].cell, at[1].winner or ""),
        tone=lambda at: "doubt" if _is_doubtful(at[1]) else "",
        block=lambda at: title(at[0], summary),
        notes=notes,
    )


def map_table(summary: Summary) -> Table:
    """Return `fastest_table` if several sizes were timed, else a table without rows.

    The timings of many sizes fill many screens; this table fills one.
    """
    found = fastest_table(summary)
    mapped = any(each.is_map for each in summary.fastest)
    return found if mapped else replace(found, blocks=())


def title(found: FastestMap, summary: Summary) -> str:
    """Return the conditions of a map, with the machine if the run has several."""
    several = len({m.conditions.machine for m in summary.fastest}) > 1
    alike = (title_of if several else budget_of)(found.conditions)
    return f"{found.where} · {alike}"


def is_choice(found: FastestMap) -> bool:
    """Return whether there was more than one implementation to choose from."""
    return any(
        len(spot.certified) + len(spot.uncertified) + len(spot.failures) > 1
        for spot in found.spots
    )


def fastest_words(spot: Spot) -> str:
    """Return "torch-native", "torch-native ≈ jax-scan", or why none is the fastest."""
    if not spot.equals:
        return "none certified" if spot.uncertified else "no timing"
    return " ≈ ".join(few(spot.equals, MOST_EQUAL))


def _is_doubtful(spot: Spot) -> bool:
    return not spot.equals or spot.shaky or spot.runner_up_shaky


def _shaky(shaky: bool) -> str:
    return " (shaky)" if shaky else ""


def _next(spot: Spot) -> str:
    return (spot.runner_up or NOTHING) + _shaky(spot.runner_up_shaky)


def _ratio(spot: Spot) -> str:
    return times(spot.ratio) + ends(spot.interval, times)


def _not_counted(spot: Spot) -> str | None:
    names = [
        f"{name} uncertified" + (" (faster)" if name in spot.faster_uncertified else "")
        for name in spot.uncertified
    ]
    names += [f"{name} {how.replace('_', ' ')}" for name, how in spot.failures]
    return "; ".join(names) or None
