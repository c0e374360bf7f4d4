"""Tables of certificates, of trials that failed, and of the environment."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from harness.analysis.certificates import Check, ParityRow
from harness.analysis.grouping import Heading
from harness.analysis.outcomes import OutcomeRow
from harness.analysis.summary import Summary
from harness.printing import one_line
from harness.report.tables.form import Column, Keys, Table, table, through
from harness.report.text import NOTHING, seeds, whole
from harness.trial import Trial

MOST_WORDS = 120
"""Characters of a log's last line that a table shows."""

WHO: Sequence[Column[ParityRow]] = (
    Column("implementation", lambda row: row.implementation),
    Column("cell", lambda row: row.cell),
    Column("on", lambda row: arithmetic(row)),
)
CERTIFICATES: Sequence[Column[ParityRow]] = (
    *WHO,
    Column("kernel", lambda row: row.kernel),
    Column("certified", lambda row: "yes" if row.certified else "NO", "r"),
    Column("worst error", lambda row: _error(row.worst) if row.worst else None, "r"),
    Column("tolerance", lambda row: _tolerance(row.worst) if row.worst else None, "r"),
    Column("at", lambda row: _at(row)),
    Column("broken / checks", lambda row: _broken(row), "r"),
    Column("warned", lambda row: whole(row.warned), "r"),
)


def parity_table(summary: Summary) -> Table:
    """Return one line for each certificate."""
    notes = (
        "Error: ‖a − r‖₂ / ‖r‖₂, where a is a tensor and r the float64 reference's, "
        "unless a sentence below names another reference. The worst error is the "
        "largest compared with its tolerance. Kernel: what was seen to run.",
        *(
            f"{row.implementation} {row.cell}: {', '.join(wider)}: more than the usual "
            "tolerance is allowed, because rounding the weights alone changes the "
            "reference."
            for row in summary.parity
            if (wider := [c.name for c in row.checks if c.usual is not None])
        ),
        *(
            f"{row.implementation} {row.cell}: against {one_line(row.against)}."
            for row in summary.parity
            if row.against and not row.against.endswith("float64 reference")
        ),
        *(
            f"{row.implementation} {row.cell}, {', '.join(checks)}: likely "
            f"{one_line(cause)}."
            for row in summary.parity
            for cause, checks in row.causes.items()
        ),
    )
    return table(
        "parity", "Certificates", CERTIFICATES, summary.parity,
        keys=_keys, tone=lambda row: "good" if row.certified else "bad", notes=notes,
    )  # fmt: skip


def _keys(row: ParityRow) -> Keys:
    return "", row.cell, row.implementation


def arithmetic(row: ParityRow | Trial) -> str:
    """Return the device, dtype and precision: "cuda:0 float32 tf32"."""
    precision = "" if row.precision == "highest" else f" {row.precision}"
    return f"{row.device} {row.dtype}{precision}"


def _error(check: Check) -> str:
    return "underflow" if check.error is None else f"{check.error:.1e}"


def _tolerance(check: Check) -> str | None:
    return None if check.tolerance is None else f"{check.tolerance:.0e}"


def _at(row: ParityRow) -> str | None:
    if row.outcome != "ok":
        return f"{row.outcome.replace('_', ' ')}: {row.reason or ''}"
    return None if row.worst is None else row.worst.name


def _broken(row: ParityRow) -> str | None:
    if row.outcome != "ok":
        return None
    return f"{whole(row.broken)} / {whole(row.count)}"


Checked = tuple[ParityRow, Check]
"""A certificate and one of its checks."""

CHECKS: Sequence[Column[Checked]] = (
    *through(lambda pair: pair[0], WHO),
    Column("check", lambda pair: pair[1].name),
    Column("error", lambda pair: _error(pair[1]), "r"),
    Column("tolerance", lambda pair: _tolerance(pair[1]), "r"),
    Column("verdict", lambda pair: verdict(pair[1])),
)


def checks_table(summary: Summary) -> Table:
    """Return every compared tensor of every certificate."""
    return table(
        "checks",
        "Every check",
        CHECKS,
        [(row, check) for row in summary.parity for check in row.checks],
        keys=lambda pair: _keys(pair[0]),
        tone=lambda pair: "bad" if pair[1].broken else "",
    )


def verdict(check: Check) -> str:
    """Return whether a check is ok, broken or not compared."""
    if check.error is None:
        return "not compared"
    return "BROKEN" if check.broken else "ok"


OUTCOMES: Sequence[Column[OutcomeRow]] = (
    Column("measure", lambda row: row.measure),
    Column("trial", lambda row: _trial(row)),
    Column("seeds", lambda row: _seeds(row)),
    Column("outcome", lambda row: row.outcome.replace("_", " ")),
    Column("reason", lambda row: row.reason),
)
LAST_WORDS: Column[OutcomeRow] = Column(
    "last line of its log",
    lambda row: textwrap.shorten(one_line(row.last_words or NOTHING), MOST_WORDS),
)


def outcome_table(summary: Summary) -> Table:
    """Return the trials that did not end ok, with their reasons."""
    logged = any(row.last_words for row in summary.outcomes)
    return table(
        "outcomes",
        "Trials that did not end ok",
        [*OUTCOMES, LAST_WORDS] if logged else OUTCOMES,
        summary.outcomes,
        keys=lambda row: (row.task, row.cell, row.implementation),
        tone=lambda row: "bad",
    )


def _trial(row: OutcomeRow) -> str:
    where = Heading(row.task, row.length).title
    return " · ".join(w for w in (row.cell, row.implementation, where) if w)


def _seeds(row: OutcomeRow) -> str | None:
    named = seeds(row.seeds)
    if row.count > max(1, len(row.seeds)):
        named += f" (× {row.count})"
    return named or None


def environment_table(summary: Summary) -> Table:
    """Return machine, versions, commit, and what each network was trained on."""
    chosen = [(f"learning, {name}, runs on", value) for name, value in summary.choices]
    columns: Sequence[Column[tuple[str, str]]] = (
        Column("what", lambda pair: pair[0]),
        Column("value", lambda pair: pair[1]),
    )
    rows = [*summary.environment, *chosen]
    return table("environment", "Environment", columns, rows)
