"""Is a timing shaky? The reasons, and what to do about each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from harness.intervals import FEWEST, MedianInterval, median, quantiles
from harness.machine.clock import READING_S
from harness.measure.speed.turns import Turns
from harness.reason import Reason

WIDEST = 0.05
"""An interval wider than this share of its median is too wide to show the smallest
difference that a comparison reports."""

DRIFT = 0.05
"""A larger change from the first to the last third of the turns is a drift. It is a
share of the first third's median."""

_TREND_Z = 2.58
"""A trend is significant at 1 % beyond this value of Mann and Kendall's statistic."""

_APART = 5.0
"""The least Ashman's D of two groups of turns. The two halves of one normal group have
2.7, those of a uniform group 3.5."""

_GROUP = 0.2
"""The smaller of two groups has at least this share of the turns."""

OTHER_LOAD = 0.2
"""A timing is doubted if other processes keep this many cores busy during it."""

_JUMP, _JUMP_S = 10.0, 0.1
"""A reading contains something besides its calls if it is at least this many times as
long as the median and this many seconds longer."""

_SLOW = 3.0
"""A call is slow if it takes more than this many times as long as most calls."""

_UNEVEN, _UNEVEN_TURNS = 0.1, 3
"""Calls are uneven if slow calls occurred in at least this many turns, and if their
time beyond that of other calls is at least this share of all time; waiting for a core
does not count. Other disturbances take less, or happen once."""

_MORE_THREADS = 0.25
"""This many more cores may be busy than threads were asked for: a garbage collector or
an idle thread pool takes as much."""


def unstable(turns: Turns, interval: MedianInterval) -> list[Reason]:
    """Return the reasons why the median over these turns is shaky.

    Args:
        turns: The record of the turns.
        interval: The median and its interval.
    """
    seen = itertools.chain(
        _of_readings(turns, interval),
        _of_medians(turns, interval),
        _of_calls(turns, interval),
        _of_process_and_machine(turns),
        _wide(interval),
    )
    return [Reason(kind, words, _ADVICE[kind]) for kind, words in seen]


_ADVICE = {
    "clock": "check the machine's clock source, then measure again",
    "warm-up": "measure again; if it stays, the implementation builds something late",
    "few": "raise rounds or time_budget_s of the [[speed]] section",
    "short": "measure a larger shape; or the calls compute less than they should",
    "drift": "ratios within the session can be used; for times wait until the machine "
    "is idle",
    "correlated": "raise time_budget_s of the [[speed]] section, or use a machine with "
    "a steadier speed; ratios within the session may be known better",
    "bimodal": "look for a clock that changes, a core that is shared or a cache that "
    "is full",
    "jump": "something was built, collected or interrupted while it was timed; measure "
    "again",
    "uneven": "something is built, collected or loaded in them, which should happen in "
    "the first calls; or a hypervisor took the core",
    "built": "change the implementation to keep what it builds for one shape",
    "load": "end other programs on this machine, then measure again",
    "threads": "keep the implementation to its threads, or measure with as many",
    "wide": "raise time_budget_s of the [[speed]] section, or use a quieter machine",
}


# --- what was seen, as a kind and in words -------------------------------------------

Seen = Iterator[tuple[str, str]]


def _of_readings(turns: Turns, interval: MedianInterval) -> Seen:
    if turns.clock_wrong or not all(s > 0 for t in turns.readings for s in t):
        yield "clock", "the clock stepped or ran at another rate while it was read"
    if not turns.stationary:
        yield "warm-up", "calls still got faster when the warm-up ended"
    count = len(turns.readings)
    if count < FEWEST:
        yield "few", f"{_counted(count, 'turn')}, and an interval takes {FEWEST}"
    reading_s = turns.loops * interval.median
    if reading_s < READING_S / 2:
        words = f"a reading of {turns.loops} calls took {1e6 * reading_s:.0f} µs only"
        yield "short", words


def _of_medians(turns: Turns, interval: MedianInterval) -> Seen:
    medians = np.array([median(turn) for turn in turns.readings])
    drifts = False
    third = len(medians) // 3
    if third >= 2 and abs(_trend_z(medians)) >= _TREND_Z:
        change = median(medians[-third:]) / median(medians[:third]) - 1
        if abs(change) >= DRIFT:
            how = f"{abs(change):.0%} {'slower' if change > 0 else 'faster'}"
            yield "drift", f"calls got {how} from the first to the last third"
            drifts = True
    worth = interval.worth
    if worth and worth.too_little and interval.width > WIDEST and not drifts:
        words = f"{len(medians)} turns are worth {worth.count:.1f} independent ones"
        yield "correlated", f"turns follow each other: {words}"
    if len(medians) >= 2 * FEWEST:
        yield from _bimodal(np.sort(medians))


def _trend_z(values: np.ndarray) -> float:
    """Return Mann and Kendall's statistic: standard normal if there is no trend."""
    n = len(values)
    upper = np.triu_indices(n, 1)
    s = float(np.sign(values[upper[1]] - values[upper[0]]).sum())
    deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    return (s - math.copysign(1, s)) / deviation if s else 0.0


def _bimodal(ordered: np.ndarray) -> Seen:
    fewest = max(2, math.ceil(_GROUP * len(ordered)))
    # Cut where two neighbours are furthest apart, with enough turns on both sides.
    gaps = np.diff(ordered)[fewest - 1 : len(ordered) - fewest]
    cut = fewest + int(np.argmax(gaps))
    low, high = ordered[:cut], ordered[cut:]
    apart = high.mean() - low.mean()
    spread = math.sqrt((low.var() + high.var()) / 2)
    if apart >= WIDEST * median(ordered) and apart >= _APART * spread:
        kinds = [f"{group.mean():.3g} s in {len(group)}" for group in (low, high)]
        yield "bimodal", f"two kinds of turns: {' and '.join(kinds)}"


def _of_calls(turns: Turns, interval: MedianInterval) -> Seen:
    longest = max(s for turn in turns.readings for s in turn)
    beyond_s = (longest - interval.median) * turns.loops
    if longest >= _JUMP * interval.median and beyond_s >= _JUMP_S:
        yield (
            "jump",
            f"one reading took {longest / interval.median:.0f} times the median",
        )
    if turns.pieces:
        yield from _uneven(turns)


def _uneven(turns: Turns) -> Seen:
    calls, spans = np.concatenate(turns.pieces).T
    usual_s = float(quantiles(spans[calls == 1], 0.25)[0])
    slow = spans > _SLOW * usual_s * calls
    beyond_s = spans[slow] - usual_s * calls[slow]
    where = np.repeat(np.arange(len(turns.pieces)), [len(t) for t in turns.pieces])
    own_s = beyond_s.sum() - sum(turns.waited_s)
    if len(np.unique(where[slow])) >= _UNEVEN_TURNS and own_s >= _UNEVEN * spans.sum():
        slow_s = median(usual_s + beyond_s)
        both = f"{_ms(slow_s)} ms where others take {_ms(usual_s)} ms"
        yield "uneven", f"some calls took {both}"


def _of_process_and_machine(turns: Turns) -> Seen:
    if count := sum(turns.built):
        words = (
            f"the framework traced or compiled in {count} of {len(turns.built)} turns"
        )
        yield "built", words
    load = float(np.mean(turns.other_load)) if turns.other_load else 0.0
    if load >= OTHER_LOAD:
        yield "load", f"other processes kept {load:.1f} cores busy"
    if turns.threads is not None:
        yield from _threads(turns, turns.threads)


def _threads(turns: Turns, threads: int) -> Seen:
    seen = []
    other = [count for count in turns.set_threads if count != threads]
    if other:
        seen.append(f"was set to {_counted(other[-1], 'thread')}")
    used = median(turns.own_load) if turns.own_load else 0.0
    if used > threads + _MORE_THREADS:
        seen.append(f"kept {used:.1f} cores busy")
    if seen:
        asked = f"{_counted(threads, 'thread')} {'was' if threads == 1 else 'were'}"
        yield "threads", f"{' and '.join(seen)} where {asked} asked for"


def _wide(interval: MedianInterval) -> Seen:
    if interval.width > WIDEST:
        yield "wide", f"the interval is {interval.width:.0%} of the median wide"


def _ms(time_s: float) -> str:
    return f"{float(f'{1e3 * time_s:.2g}'):g}"


def _counted(count: int, of: str) -> str:
    return f"1 {of}" if count == 1 else f"{count} {of}s"
