"""How much slower is a timing than another, and how surely?

Two questions are asked of every ratio of times: is it above 1 + effect, and is it below
1 / (1 + effect)? Each question has a one-sided p-value. A ratio between the two bounds
is neither slower nor faster.

The p-values come from resampled medians of rounds (percentile bootstrap, fixed seed),
and so does the interval of a ratio of two sessions. The interval of a ratio by common
rounds lies between order statistics, as that of every median does. Where rounds follow
each other, all of these are as wide as for the independent rounds that they are worth.

On a machine that others use, some turns take much longer. In simulations with 2 % noise
and one turn in seven up to twice as long, this test finds a 10 % slower copy within 20
rounds 98 times in 100. Wilcoxon's signed-rank test finds it 75 times, and a t-test less
often. At an effect of exactly 5 %, both this and Wilcoxon's test say "slower" 2 to 4
times in 100 from 10 rounds on. The sign test holds its level exactly but needs two more
rounds. Its smallest p-value, with all rounds on one side, is the smallest used here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.intervals import (
    FEWEST,
    Floats,
    Interval,
    Worth,
    median,
    median_ends,
    middle_interval,
    resampled_medians,
    worth_of,
)

FEWEST_ROUNDS = FEWEST
"""Below this many rounds no test can reach the level, whatever the ratios are."""

MOST_ROUNDS = 200
"""If there are more rounds, consecutive ones are joined in blocks."""

_RESAMPLES = 5000


@dataclass(frozen=True)
class Effect:
    """A ratio of times, new / base.

    Attributes:
        interval: The 95 % interval; None for fewer than `FEWEST_ROUNDS` rounds.
        slower_p: The p-value of "the ratio is at most 1 + effect".
        faster_p: The p-value of "the ratio is at least 1 / (1 + effect)".
        rounds: Number of common rounds, or of the side that has fewer.
        paired: Whether it is the median of the ratios of single rounds.
    """

    ratio: float
    interval: Interval | None
    slower_p: float
    faster_p: float
    rounds: int
    paired: bool


def paired_effect(
    base: Mapping[int, float], new: Mapping[int, float], effect: float
) -> Effect | None:
    """Return the median ratio over rounds of one session; None without a common round.

    If the machine is slow for a whole round, both turns of the round are slow, and
    their ratio does not change.

    Args:
        base: Seconds by round.
        new: Seconds by round.
        effect: The smallest difference that counts, as a share such as 0.05.
    """
    rounds = sorted(base.keys() & new.keys())
    if not rounds:
        return None
    logs = _joined([math.log(new[n] / base[n]) for n in rounds])
    drawn, worth = _drawn(logs, np.random.default_rng(0))
    middle, (low, high) = median(logs), median_ends(logs, worth.count)
    by = worth.stretch
    if by > 1:
        low, high = middle + by * (low - middle), middle + by * (high - middle)
    ends = Interval(low, high)
    return _effect(middle, drawn, ends, len(rounds), effect, paired=True)


def unpaired_effect(
    base: Sequence[float], new: Sequence[float], effect: float, scale: float = 1.0
) -> Effect | None:
    """Return the ratio of medians over rounds of two sessions; None without rounds.

    The rounds of each side are resampled separately. A change of the machine between
    the sessions changes the ratio, and the interval does not show it.

    Args:
        base: Seconds of each round.
        new: Seconds of each round.
        effect: The smallest difference that counts, as a share such as 0.05.
        scale: A factor of the ratio, to correct for a different machine.
    """
    if not base or not new:
        return None
    rng = np.random.default_rng(0)
    sides = [_joined([math.log(time) for time in times]) for times in (base, new)]
    middle = median(sides[1]) - median(sides[0]) + math.log(scale)
    (of_new, _), (of_base, _) = (_drawn(side, rng) for side in sides[::-1])
    drawn = of_new - of_base + math.log(scale)
    rounds = min(len(base), len(new))
    ends = middle_interval(drawn)
    return _effect(middle, drawn, ends, rounds, effect, paired=False)


def _drawn(logs: Floats, rng: np.random.Generator) -> tuple[Floats, Worth]:
    """Return resampled medians that scatter as those of correlated rounds do."""
    drawn, worth = resampled_medians(logs, rng, _RESAMPLES), worth_of(logs)
    if worth.inflation > 1:
        middle = median(logs)
        drawn = middle + worth.inflation * (drawn - middle)
    return drawn, worth


def _joined(logs: Sequence[float]) -> Floats:
    found = np.asarray(logs)
    if len(found) <= MOST_ROUNDS:
        return found
    return np.array([median(b) for b in np.array_split(found, MOST_ROUNDS)])


def _effect(
    middle: float,
    drawn: Floats,
    ends: Interval,
    rounds: int,
    effect: float,
    *,
    paired: bool,
) -> Effect:
    if rounds < FEWEST_ROUNDS:
        return Effect(math.exp(middle), None, 1.0, 1.0, rounds, paired)
    bound, least_p = math.log1p(effect), max(0.5**rounds, 1 / _RESAMPLES)
    return Effect(
        ratio=math.exp(middle),
        interval=Interval(math.exp(ends.low), math.exp(ends.high)),
        slower_p=max(float(np.mean(drawn <= bound)), least_p),
        faster_p=max(float(np.mean(drawn >= -bound)), least_p),
        rounds=rounds,
        paired=paired,
    )
