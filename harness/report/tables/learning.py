"""Tables of what was learned, and of how far the gradient travels back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.analysis.grouping import group
from harness.analysis.learning.gradient_over_lag import GradientRow, Horizon
from harness.analysis.learning.initial_values import InitialRow
from harness.analysis.learning.learned import LearningRow, Score
from harness.analysis.learning.solve_time import SolveTime
from harness.analysis.summary import LearnedRow, Summary
from harness.contract import Optimizer
from harness.intervals import CensoredMedian, Spread
from harness.printing import one_line
from harness.report.tables.form import Column, Table, heading, keys, table
from harness.report.tables.solve_time import span
from harness.report.text import (
    NOTHING,
    UNCERTIFIED,
    counts,
    marked,
    number,
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
    several = len({network(row.learning) for row in rows}) < len(rows)

    def named(row: LearnedRow) -> str:
        found = row.learning
        name = network(found) + (f" · {found.implementation}" if several else "")
        return marked(name, found.doubt)

    return (
        Column(title, named),
        Column("solved", lambda row: solved(row.learning)),
        Column("updates to solve", lambda row: updates(row.learning.updates)),
        Column(_score_head(rows), lambda row: number(row.learning.scores[0].value)),
        Column("time to solve", lambda r: next(map(_solve_time, r.solve_times), None)),
        Column(
            "horizon before → after",
            lambda row: horizon(row.gradients.loss) if row.gradients else None,
        ),
    )


def _learned_tone(row: LearnedRow) -> str:
    if row.learning.other_outcomes:
        return "bad"
    return "doubt" if row.learning.doubt else ""


def _score_head(rows: Sequence[LearnedRow]) -> str:
    scores = [row.learning.scores[0] for row in rows]
    floors = (score.floor for score in scores if score.floor is not None)
    metric = scores[0].metric.replace("_", " ")
    return f"{metric} (floor {number(next(floors, None))})"


_SPREADS: Mapping[Spread, str] = {
    "range": "[ ] is the range over the seeds",
    "interval": "[ ] is a 95 % interval of the median where there are 6 seeds or more",
}


def _learned_notes(summary: Summary) -> tuple[str, ...]:
    updates = [row.learning.updates for row in summary.learned]
    kinds = {found.spread for found in updates if found}
    spreads = [words for kind, words in _SPREADS.items() if kind in kinds]
    notes = [f"{'; '.join(['Medians over seeds', *spreads])}."]
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
    """Return sentences such as "Uncertified (not checked): gru torch-native."."""
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
    known = found.parameters is not None
    weights = f" · {short(found.parameters)} weights" if known else ""
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
    limit = whole(found.limit)
    middle = f"not within {limit}" if found.median is None else whole(found.median)
    if found.spread == "single" or found.low is None:
        return middle
    high = f">{limit}" if found.high is None else whole(found.high)
    return f"{middle} [{whole(found.low)}, {high}]"


def horizon(found: Horizon) -> str:
    """Return "61 → ≥100"."""
    return " → ".join(lag(end, found.max_lag) for end in (found.initial, found.trained))


def lag(value: float | None, most: float | None) -> str:
    """Return "61", or "≥100" if that is the largest lag that was measured."""
    reached = value is not None and most is not None and value >= most
    return ("≥" if reached else "") + whole(value)


def _solve_time(found: SolveTime) -> str:
    """Return "14 s [10, 18 s] torch-native"."""
    device = "" if found.device == "cpu" else f" {found.device}"
    mark = " (shaky)" if found.shaky else ""
    return f"{seconds(found.seconds)}{span(found)} {found.implementation}{device}{mark}"


LEARNING: Sequence[Column[LearningRow]] = (
    Column("network", lambda row: network(row)),
    Column(
        "trained on", lambda r: f"{r.implementation}, {r.trial.device} {r.trial.dtype}"
    ),
    Column("init", lambda row: row.trial.init),
    Column("optimiser", lambda row: _optimiser(row.trial.optimizer)),
    Column("batch", lambda row: whole(row.trial.batch)),
    Column("seeds", lambda r: seeds([s.seed for s in r.seeds if s.seed is not None])),
    Column("solved fraction [95 %]", lambda row: f"{solved(row)}: {_fraction(row)}"),
    Column("final held-out scores (floor)", lambda r: "; ".join(map(_score, r.scores))),
    Column("certified", lambda row: verdict(row.doubt) if row.count else None),
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
    names = {(row.heading, sized(row)) for row in rows}
    several = len(names) < len(rows)  # only the implementation names the row

    def named(row: GradientRow) -> str:
        return sized(row) + (f" · {row.implementation}" if several else "")

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


def sized(row: GradientRow | InitialRow) -> str:
    """Return "gru 64"."""
    return f"{row.cell} {whole(row.trial.hidden_size)}"
