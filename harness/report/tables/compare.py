"""The table of a comparison, its closing sentence, and both as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.analysis.comparison.compare import (
    DECIDED,
    REGRESSIONS,
    Compared,
    Comparison,
)
from harness.analysis.comparison.effect import Effect
from harness.analysis.comparison.normalise import Normalised
from harness.analysis.grouping import group
from harness.analysis.speed.conditions import budget_of
from harness.analysis.speed.timings import SpeedRow
from harness.printing import one_line
from harness.report.tables.form import Column, Table, ends, table
from harness.report.tables.timings import phase
from harness.report.text import NOTHING, number, seconds
from harness.trial import Trial

MOST_NAMED = 4
"""The most keys with one reason that are named."""

_TONES = {"faster": "good", "same": "", "slower": "bad", "failed in new": "bad"}


def compare_table(found: Comparison) -> Table:
    """Return every key, the worst first, with normalised ratios before raw times."""
    normal = any(row.normalised is not None for row in found.rows)
    raw = "raw new / base" if normal else "new / base"
    columns: Sequence[Column[Compared]] = (
        Column("cell", lambda row: row.trial.cell),
        Column("implementation", lambda row: row.trial.implementation),
        Column("library", lambda row: _both(*(s.framework for s in _sides(row)))),
        Column("kernel", lambda row: _both(*(side.kernel for side in _sides(row)))),
        Column("phase", lambda row: phase(row.phase or NOTHING)),
        Column("of", lambda row: _where(row.trial)),
        *(NORMALISED if normal else ()),
        Column("base", lambda r: seconds(r.base.time_s) if r.base else None, "r"),
        Column("new", lambda r: seconds(r.new.time_s) if r.new else None, "r"),
        Column(raw, lambda row: _ratio(row.effect), "r"),
        Column("verdict", lambda row: row.verdict),
        Column("marks", lambda row: "; ".join(_marks(row)) or None),
    )
    return table(
        "compare",
        "Base against new",
        columns,
        found.rows,
        keys=lambda r: (r.trial.task or "", r.trial.cell, r.trial.implementation),
        tone=_tone,
        block=_budget,
        notes=(*_reasons(found), _how(found), *found.notes),
    )


def _how(found: Comparison) -> str:
    return (
        "new / base is a ratio of times with its 95 % interval; where one session "
        "timed both, the ratio is formed round by round. a → b: base has a, new has b. "
        f"Slower: above {1 + found.effect:.2f}, faster: below "
        f"{1 / (1 + found.effect):.2f}, each with 5 % false discoveries over all keys; "
        "same: the interval is between the two."
    )


def _reasons(found: Comparison) -> list[str]:
    """Return the reasons of verdicts, each with its keys."""
    reasons = group(found.rows, lambda row: (row.verdict, one_line(row.why)))
    return [
        f"{verdict}: {why} ({_keys(rows)})"
        for (verdict, why), rows in reasons.items()
        if why
    ]


def _keys(rows: Sequence[Compared]) -> str:
    """Name the keys with one reason, or count them if there are many."""
    if len(rows) > MOST_NAMED:
        return f"{len(rows)} keys"
    return "; ".join(map(_key, rows))


def _key(row: Compared) -> str:
    trial = row.trial
    words = (trial.cell, trial.implementation, phase(row.phase), _where(trial))
    return " ".join(filter(None, words))


def _budget(row: Compared) -> str:
    """Return the conditions of a key, "… → …" where base and new differ."""
    sides = [budget_of(side.trial) for side in _sides(row)]
    return _both(*(sides or [budget_of(row.trial)]))


def _both(*of_sides: str | None) -> str:
    """Return the words once if both sides have the same, else "base → new"."""
    words = dict.fromkeys(one_line(each) for each in of_sides if each)
    return " → ".join(words) or NOTHING


def _sides(row: Compared) -> list[SpeedRow]:
    return [side for side in (row.base, row.new) if side is not None]


def _tone(row: Compared) -> str:
    tone = _TONES.get(row.verdict, "doubt")
    return "doubt" if row.marks and tone != "bad" else tone


def _marks(row: Compared) -> list[str]:
    """Return the marks without the reasons for a shaky timing, which `show` has."""
    found = {mark.partition(" (")[0] if "shaky" in mark else mark for mark in row.marks}
    if {"base shaky", "new shaky"} <= found:
        found = (found - {"base shaky", "new shaky"}) | {"shaky"}
    return sorted(found)


def _normalised(found: Normalised) -> str:
    return f"{number(found.base)} → {number(found.new)} {found.by}"


NORMALISED: Sequence[Column[Compared]] = (
    Column("normalised", lambda r: _normalised(r.normalised) if r.normalised else None),
    Column(
        "ratio", lambda r: _ratio(r.normalised.effect) if r.normalised else None, "r"
    ),
)


def _ratio(effect: Effect | None) -> str:
    if effect is None:
        return NOTHING
    interval = ends(effect.interval, _three) or " (no interval)"
    return _three(effect.ratio) + interval


def _three(ratio: float) -> str:
    return f"{ratio:.3f}"


def _where(trial: Trial) -> str:
    """Return the task and sizes: "adding 100 · 32×64", "32×100×2×64"."""
    of_input = () if trial.task else (trial.time_steps, trial.input_size)
    layers = (trial.num_layers,) if trial.num_layers > 1 else ()
    words = "×".join(map(str, (trial.batch, *of_input, trial.hidden_size, *layers)))
    return f"{trial.task} {trial.length} · {words}" if trial.task else words


def compare_sentence(found: Comparison) -> str:
    """Return the answer in one sentence."""
    counts = Counter(row.verdict for row in found.rows)
    counted = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    share = f"{100 * found.effect:g} %"
    keys = f"{len(found.rows)} key" + ("" if len(found.rows) == 1 else "s")
    worse = len(found.of(*REGRESSIONS))
    if worse:
        verb = "is" if worse == 1 else "are"
        answer = f"{worse} of {keys} {verb} slower by more than {share} or failed"
    elif not found.of(*DECIDED):
        answer = f"of {keys} none could be decided"
    else:
        answer = f"of {keys} none is seen to be slower by more than {share}"
    return f"{answer}: {counted}." if counted else f"{answer}."


def compare_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON values."""
    return {
        "effect": found.effect,
        "sentence": compare_sentence(found),
        "notes": list(found.notes),
        "rows": [_row_json(row) for row in found.rows],
    }


_ASKED = (
    "cell", "implementation", "task", "length", "batch", "time_steps", "input_size",
    "hidden_size", "num_layers", "device", "dtype", "precision", "threads",
)  # fmt: skip


_OF_SIDE = ("time_s", "session", "framework", "kernel")


def _row_json(row: Compared) -> dict[str, Any]:
    by = row.normalised
    return {
        **{name: getattr(row.trial, name) for name in _ASKED},
        "phase": row.phase or None,
        "verdict": row.verdict,
        "why": row.why or None,
        "marks": list(row.marks),
        "p": row.p,
        "normalised": None
        if by is None
        else {"by": by.by, "base": by.base, "new": by.new, **_effect_json(by.effect)},
        **_effect_json(row.effect),
        "base": _side_json(row.base),
        "new": _side_json(row.new),
    }


def _effect_json(effect: Effect | None) -> Mapping[str, Any]:
    interval = effect.interval if effect else None
    return {
        "ratio": effect.ratio if effect else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "rounds": 0 if effect is None else effect.rounds,
        "paired": effect is not None and effect.paired,
    }


def _side_json(side: SpeedRow | None) -> dict[str, Any] | None:
    if side is None:
        return None
    named = {name: getattr(side, name) for name in _OF_SIDE}
    return {**named, **side.machine_facts}
