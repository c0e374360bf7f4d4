"""Tables of what was learned, and of how the gradient travels."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.grouping import group
from harness.analysis.learning.gradient_over_lag import GradientRow, Horizon
from harness.analysis.learning.learned import LearningRow, Score
from harness.analysis.learning.solve_time import SolveTime
from harness.analysis.summary import LearnedRow, Summary
from harness.contract import Optimizer
from harness.intervals import CensoredMedian
from harness.report.tables.form import Column, Table, heading, keys, table
from harness.report.tables.solve_time import span
from harness.report.text import (
    NOTHING,
    UNCERTIFIED,
    counts,
    marked,
    number,
    one_line,
    seconds,
    seeds,
    short,
    verdict,
    whole,
)


def learned_table(summary: Summary) -> Table:
    """Return the table of the first screen: a block for each task and length."""
    headings = group(summary.learned, lambda row: row.learning.heading)
    blocks = [
        block
        for where, rows in headings.items()
        for block in table(
            "learned", "", _learned_columns(where.title, rows), rows,
            keys=lambda row: keys(row.learning), tone=_learned_tone,
        ).blocks
    ]  # fmt: skip
    notes = _learned_notes(summary)
    return Table("learned", "Results", "llllll", tuple(blocks), notes, nested=True)


def _learned_columns(
    title: str, rows: Sequence[LearnedRow]
) -> Sequence[Column[LearnedRow]]:
    several = _several(rows)

    def named(row: LearnedRow) -> str:
        found = row.learning
        name = network(found) + (f" · {found.implementation}" if several else "")
        return marked(name, found.doubt)

    return (
        Column(title, named),
        Column("solved", lambda row: solved(row.learning)),
        Column("updates to solve", lambda row: updates(row.learning.updates)),
        Column(_score_head(rows), lambda row: number(row.learning.scores[0].value)),
        Column("time to solve", _fastest),
        Column("horizon before → after", _horizon),
    )


def _fastest(row: LearnedRow) -> str:
    return solve_time_short(row.solve_times[0]) if row.solve_times else NOTHING


def _horizon(row: LearnedRow) -> str:
    return horizon(row.gradients.loss) if row.gradients else NOTHING


def _learned_tone(row: LearnedRow) -> str:
    if row.learning.other_outcomes:
        return "bad"
    return "doubt" if row.learning.doubt else ""


def _several(rows: Sequence[LearnedRow]) -> bool:
    """Return whether rows differ in their implementation alone."""
    return len({network(row.learning) for row in rows}) < len(rows)


def _score_head(rows: Sequence[LearnedRow]) -> str:
    score = rows[0].learning.scores[0]
    floor = next(
        (f for r in rows if (f := r.learning.scores[0].floor) is not None), None
    )
    return f"{score.metric.replace('_', ' ')} (floor {number(floor)})"


def _learned_notes(summary: Summary) -> tuple[str, ...]:
    spreads = [row.learning.updates for row in summary.learned if row.learning.updates]
    kinds = {updates.spread for updates in spreads}
    words = []
    if "range" in kinds:
        words.append("[ ] is the range over the seeds")
    if "interval" in kinds:
        words.append(
            "[ ] is a 95 % interval of the median where there are 6 seeds or more"
        )
    notes = [
        f"Medians over seeds; {'; '.join(words)}." if words else "Medians over seeds."
    ]
    if summary.solve_times:
        notes.append(
            "Time to solve: updates to solve × the time of one update with the fastest "
            "certified implementation that was timed at this shape on one thread; its "
            "[ ] multiplies the ends of both."
        )
    if any(row.gradients for row in summary.learned):
        notes.append(
            "Horizon: the largest lag, in time steps, at which the gradient of one "
            "loss term keeps a thousandth of its norm; ≥ where it does so at the "
            "largest lag measured."
        )
    return (*notes, *_doubts([row.learning for row in summary.learned]))


def _doubts(rows: Sequence[LearningRow]) -> list[str]:
    """Return a sentence a doubt: "Uncertified (not checked): gru torch-native."."""
    doubted = group((row for row in rows if row.doubt), lambda row: row.doubt)
    return [
        f"{UNCERTIFIED.capitalize()} ({one_line(doubt)}): "
        f"{', '.join(dict.fromkeys(f'{r.cell} {r.implementation}' for r in members))}."
        for doubt, members in doubted.items()
    ]


def network(found: LearningRow) -> str:
    """Return "gru 64 · 12.9k weights"."""
    trial = found.trial
    layers = f"{trial.num_layers} × " if trial.num_layers > 1 else ""
    weights = (
        "" if found.parameters is None else f" · {short(found.parameters)} weights"
    )
    return f"{found.cell} {layers}{trial.hidden_size}{weights}"


def solved(found: LearningRow) -> str:
    """Return "3/3", with the seeds that did not end ok beside it."""
    share = f"{found.solved}/{found.count}" if found.count else NOTHING
    others = counts(found.other_outcomes)
    return f"{share} ({others})" if others else share


def updates(found: CensoredMedian | None) -> str:
    """Return "1000 [800, 1200]", or "not within 3000"."""
    if found is None:
        return NOTHING
    beyond = f">{whole(found.budget)}"
    middle = whole(found.median)
    if found.median is None:
        middle = f"not within {whole(found.budget)}"
    if found.spread == "single" or found.low is None:
        return middle
    high = beyond if found.high is None else whole(found.high)
    return f"{middle} [{whole(found.low)}, {high}]"


def horizon(found: Horizon) -> str:
    """Return "61 → ≥100"."""
    return f"{_lag(found.initial, found)} → {_lag(found.trained, found)}"


def _lag(value: float | None, found: Horizon) -> str:
    reached = value is not None and found.max_lag is not None and value >= found.max_lag
    return ("≥" if reached else "") + whole(value)


def solve_time_short(found: SolveTime) -> str:
    """Return "14 s [10, 18 s] torch-native"."""
    device = "" if found.device == "cpu" else f" {found.device}"
    mark = " (shaky)" if found.shaky else ""
    return f"{seconds(found.seconds)}{span(found)} {found.implementation}{device}{mark}"


LEARNING: Sequence[Column[LearningRow]] = (
    Column("network", lambda row: network(row)),
    Column("trained on", lambda row: _trained_on(row)),
    Column("init", lambda row: row.trial.init),
    Column("optimiser", lambda row: _optimiser(row.trial.optimizer)),
    Column("batch", lambda row: whole(row.trial.batch)),
    Column("seeds", lambda r: seeds([s.seed for s in r.seeds if s.seed is not None])),
    Column("solved fraction [95 %]", lambda row: f"{solved(row)}: {_fraction(row)}"),
    Column("final held-out scores (floor)", lambda r: "; ".join(map(_score, r.scores))),
    Column("certified", lambda row: verdict(row.doubt) if row.count else NOTHING),
)


def learning_table(summary: Summary) -> Table:
    """Return how each configuration was trained, and the results of its seeds."""
    notes = (
        "A diverged seed counts as unsolved, and its scores as worse than every other. "
        "Seeds that crashed or ran out of time or memory are not counted. Certified: "
        "the implementation has a certificate, and its results at this batch and "
        "length, before and after training, agree with the float64 reference.",
    )
    return table(
        "learning",
        "How the networks were trained, and their results",
        LEARNING,
        [row.learning for row in summary.learned],
        keys=keys,
        tone=lambda row: "doubt" if row.doubt else "",
        block=heading,
        notes=notes,
    )


def _trained_on(row: LearningRow) -> str:
    return f"{row.implementation}, {row.trial.device} {row.trial.dtype}"


def _optimiser(found: Optimizer) -> str:
    clipped = "" if found.clip_norm is None else f", clip {found.clip_norm:g}"
    return f"{found.name} {found.learning_rate:g}{clipped}"


def _fraction(row: LearningRow) -> str:
    if row.solved_interval is None:
        return NOTHING
    low, high = row.solved_interval.low, row.solved_interval.high
    return f"{row.solved / row.count:.2f} [{low:.2f}, {high:.2f}]"


def _score(score: Score) -> str:
    name = score.metric.replace("_", " ")
    return f"{name} {number(score.value)} ({number(score.floor)})"


def horizon_table(summary: Summary) -> Table:
    """Return the horizons of every network, for both cotangents."""
    rows = summary.gradients
    names = {(row.heading, _named(row)) for row in rows}
    several = len(names) < len(rows)  # only the implementation names the row

    def named(row: GradientRow) -> str:
        return _named(row) + (f" · {row.implementation}" if several else "")

    columns: Sequence[Column[GradientRow]] = (
        Column("network", named),
        Column("loss term", lambda row: horizon(row.loss)),
        Column("random cotangent", lambda row: horizon(row.random)),
        Column("largest lag", lambda row: whole(row.loss.max_lag), "r"),
        Column("seeds", lambda r: str(max(r.loss.seeds, r.random.seeds)), "r"),
        Column("certified", lambda row: verdict(row.doubt)),
    )
    notes = (
        "Medians over seeds. The horizon is the largest lag at which R(lag) = "
        "|dL/ds(τ−lag)| / |dL/ds(τ)|, as a median over examples, exceeds 10⁻³. "
        "Certified: the implementation that trained the network is certified.",
    )
    return table(
        "horizons",
        "Horizon in time steps, initial → trained",
        columns,
        rows,
        keys=keys,
        tone=lambda row: "doubt" if row.doubt else "",
        block=heading,
        notes=notes,
    )


def _named(row: GradientRow) -> str:
    return f"{row.cell} {whole(row.trial.hidden_size)}"
