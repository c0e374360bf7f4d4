"""Whether a timing may be bet on: what made it shaky, and what to do about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from harness.intervals import FEWEST, MedianInterval
from harness.machine.clock import READING_S
from harness.machine.reason import Reason

WIDEST = 0.05
"""An interval wider than this share of its median cannot tell what a comparison takes
to be a difference."""

DRIFT = 0.05
"""Change from the first to the last third of the turns, as a share of the median."""

_TREND_Z = 2.58
"""Mann and Kendall's statistic beyond which a trend is no chance, at 1 %."""

_APART = 5.0
"""Ashman's D of two groups of turns. Two halves of one normal group have 2.7, of a
uniform one 3.5."""

_GROUP = 0.2
"""Share of the turns that the smaller of two groups has at least."""

OTHER_LOAD = 0.2
"""Cores that others keep busy beside a timing."""

_JUMP, _JUMP_S = 10.0, 0.1
"""A reading so many times the median, and so much longer, was not this call alone."""

_SLOW = 3.0
"""A call so many times what most take did something that most do not."""

_UNEVEN, _UNEVEN_TURNS = 0.1, 3
"""Share of all time that slow calls took beyond what others take and beyond waiting for
a core, and turns that had some: what else disturbs a call is less, or happens once."""

_MORE_THREADS = 0.25
"""Cores beyond the pinned threads: what a garbage collector or an idle pool takes."""


@dataclass
class Turns:
    """What was seen in the turns of one phase.

    Attributes:
        readings: Kept readings of each turn, in seconds a call.
        other_load: Cores that others kept busy during each turn.
        own_load: Cores that this process and what it started kept busy in each turn.
        pieces: Calls and seconds of the pieces of each turn's readings [pieces, 2].
        aside_s: Seconds that threads waited for a core in each turn.
        built: Whether the framework traced or compiled something, in each turn.
        set_threads: What the framework was set to in each turn, where it tells.
        loops: Calls of a reading.
        threads: What was asked for, or None where that is not to be looked at.
    """

    readings: list[list[float]] = field(default_factory=list)
    other_load: list[float] = field(default_factory=list)
    own_load: list[float] = field(default_factory=list)
    pieces: list[np.ndarray] = field(default_factory=list)
    aside_s: list[float] = field(default_factory=list)
    built: list[bool] = field(default_factory=list)
    set_threads: list[int] = field(default_factory=list)
    loops: int = 1
    stationary: bool = True
    clock_wrong: bool = False
    threads: int | None = None


def unstable(turns: Turns, interval: MedianInterval) -> list[Reason]:
    """Return every reason why the median over these turns is shaky, or none.

    Args:
        turns: What was seen.
        interval: The median with its interval.
    """
    medians = np.array([np.median(turn) for turn in turns.readings])
    found = [
        _clock(turns),
        _warm_up(turns),
        _few(medians),
        _short(turns, interval),
        _drift(medians),
        _bimodal(medians),
        _jump(turns, interval),
        _uneven(turns),
        _built(turns),
        _load(turns),
        _threads(turns),
        _wide(interval),
    ]
    return [reason for reason in found if reason is not None]


def _clock(turns: Turns) -> Reason | None:
    if not turns.clock_wrong and all(s > 0 for t in turns.readings for s in t):
        return None
    return Reason(
        "clock",
        "the clock stepped or ran at another rate while it was read",
        "see to the machine's clock source, then measure again",
    )


def _warm_up(turns: Turns) -> Reason | None:
    if turns.stationary:
        return None
    return Reason(
        "warm-up",
        "calls still got faster when the warm-up was given up",
        "measure again; if it stays, the implementation builds something late",
    )


def _few(medians: np.ndarray) -> Reason | None:
    if len(medians) >= FEWEST:
        return None
    turns = "1 turn" if len(medians) == 1 else f"{len(medians)} turns"
    return Reason(
        "few",
        f"{turns}, and an interval takes {FEWEST}",
        "raise rounds or time_budget_s of the [[speed]] section",
    )


def _short(turns: Turns, interval: MedianInterval) -> Reason | None:
    reading_s = turns.loops * interval.median
    if reading_s >= READING_S / 2:
        return None
    return Reason(
        "short",
        f"a reading of {turns.loops} calls took {1e6 * reading_s:.0f} µs only",
        "measure a larger shape; or the calls compute less than they should",
    )


def _drift(medians: np.ndarray) -> Reason | None:
    third = len(medians) // 3
    if third < 2 or abs(_trend_z(medians)) < _TREND_Z:
        return None
    change = np.median(medians[-third:]) / np.median(medians[:third]) - 1
    if abs(change) < DRIFT:
        return None
    return Reason(
        "drift",
        f"calls got {abs(change):.0%} {'slower' if change > 0 else 'faster'} from the "
        "first to the last third",
        "ratios within the session hold; for times let the machine come to rest first",
    )


def _trend_z(values: np.ndarray) -> float:
    """Return Mann and Kendall's statistic: standard normal where there is no trend."""
    n = len(values)
    upper = np.triu_indices(n, 1)
    s = float(np.sign(values[upper[1]] - values[upper[0]]).sum())
    deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    return (s - math.copysign(1, s)) / deviation if s else 0.0


def _bimodal(medians: np.ndarray) -> Reason | None:
    if len(medians) < 2 * FEWEST:
        return None
    ordered = np.sort(medians)
    fewest = max(2, math.ceil(_GROUP * len(ordered)))
    cut = max(
        range(fewest, len(ordered) - fewest + 1),
        key=lambda i: ordered[i] - ordered[i - 1],
    )
    low, high = ordered[:cut], ordered[cut:]
    apart = high.mean() - low.mean()
    spread = math.sqrt((low.var() + high.var()) / 2)
    if apart < WIDEST * np.median(ordered) or apart < _APART * spread:
        return None
    return Reason(
        "bimodal",
        f"two kinds of turns: {low.mean():.3g} s in {len(low)} and {high.mean():.3g} s "
        f"in {len(high)}",
        "look for a clock that changes, a core that is shared or a cache that is full",
    )


def _jump(turns: Turns, interval: MedianInterval) -> Reason | None:
    longest = max(s for turn in turns.readings for s in turn)
    beyond_s = (longest - interval.median) * turns.loops
    if longest < _JUMP * interval.median or beyond_s < _JUMP_S:
        return None
    return Reason(
        "jump",
        f"one reading took {longest / interval.median:.0f} times the median",
        "something was built, collected or put aside while it was timed; measure again",
    )


def _uneven(turns: Turns) -> Reason | None:
    if not turns.pieces:
        return None
    calls, spans = np.concatenate(turns.pieces).T
    usual_s = float(np.quantile(spans[calls == 1], 0.25))
    slow = spans > _SLOW * usual_s * calls
    beyond_s = spans[slow] - usual_s * calls[slow]
    where = np.repeat(np.arange(len(turns.pieces)), [len(t) for t in turns.pieces])
    own_s = beyond_s.sum() - sum(turns.aside_s)
    if len(np.unique(where[slow])) < _UNEVEN_TURNS or own_s < _UNEVEN * spans.sum():
        return None
    slow_s = float(np.median(usual_s + beyond_s))
    return Reason(
        "uneven",
        f"some calls took {_ms(slow_s)} ms where others take {_ms(usual_s)} ms",
        "something is built, collected or loaded in them, which belongs into the first "
        "calls; or a hypervisor took the core",
    )


def _built(turns: Turns) -> Reason | None:
    count = sum(turns.built)
    if count == 0:
        return None
    return Reason(
        "built",
        f"the framework traced or compiled in {count} of {len(turns.built)} turns",
        "have the implementation keep what it builds, for all calls of one shape",
    )


def _load(turns: Turns) -> Reason | None:
    load = float(np.mean(turns.other_load)) if turns.other_load else 0.0
    if load < OTHER_LOAD:
        return None
    return Reason(
        "load",
        f"others kept {load:.1f} cores busy",
        "end what else runs on the machine, then measure again",
    )


def _threads(turns: Turns) -> Reason | None:
    if turns.threads is None:
        return None
    seen = []
    other = [count for count in turns.set_threads if count != turns.threads]
    if other:
        seen.append(f"was set to {_threads_of(other[-1])}")
    used = float(np.median(turns.own_load)) if turns.own_load else 0.0
    if used > turns.threads + _MORE_THREADS:
        seen.append(f"kept {used:.1f} cores busy")
    if not seen:
        return None
    verb = "was" if turns.threads == 1 else "were"
    return Reason(
        "threads",
        f"{' and '.join(seen)} where {_threads_of(turns.threads)} {verb} asked for",
        "have the implementation keep to its threads, or measure with as many",
    )


def _ms(time_s: float) -> str:
    return f"{float(f'{1e3 * time_s:.2g}'):g}"


def _threads_of(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _wide(interval: MedianInterval) -> Reason | None:
    if interval.width <= WIDEST:
        return None
    return Reason(
        "wide",
        f"the interval is {interval.width:.0%} of the median wide",
        "raise time_budget_s of the [[speed]] section, or use a quieter machine",
    )
