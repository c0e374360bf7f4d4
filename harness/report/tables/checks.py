"""Tables of certificates, of trials that failed, and of the environment."""

from __future__ import annotations

import textwrap
from dataclasses import replace

from harness.analysis.certificates import ParityRow
from harness.analysis.grouping import Heading
from harness.analysis.summary import OutcomeRow, Summary
from harness.report.tables.form import Block, Row, Table
from harness.report.text import NOTHING, one_line, seeds, whole

MOST_WORDS = 120
"""Characters of a log's last line that a table shows."""


def parity_table(summary: Summary) -> Table:
    """Return one line a certificate."""
    head = (
        "implementation", "cell", "on", "kernel", "certified", "worst error",
        "tolerance", "at", "broken / checks", "warned",
    )  # fmt: skip
    rows = tuple(_parity_row(row) for row in summary.parity)
    notes = (
        "Error: ‖a − r‖₂ / ‖r‖₂ of a tensor against the float64 reference, unless told "
        "otherwise below; the worst is the largest in units of its tolerance. Kernel: "
        "what really ran, from evidence.",
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
    return Table("parity", "Certificates", "llllrrrlrr", (Block(head, rows),), notes)


def _parity_row(row: ParityRow) -> Row:
    keys = ("", row.cell, row.implementation)
    where = _where(row)
    kernel = one_line(row.kernel or NOTHING)
    if row.outcome != "ok":
        why = f"{row.outcome.replace('_', ' ')}: {one_line(row.reason or '')}"
        nothing = [NOTHING] * 2
        head = (row.implementation, row.cell, where, kernel)
        cells = (*head, "NO", *nothing, why, *nothing)
        return Row(cells, "bad", *keys)
    worst = row.worst
    return Row(
        (
            row.implementation,
            row.cell,
            where,
            kernel,
            "yes" if row.certified else "NO",
            NOTHING if worst is None or worst.error is None else f"{worst.error:.1e}",
            NOTHING if worst is None else f"{worst.tolerance:.0e}",
            NOTHING if worst is None else worst.name,
            f"{whole(row.broken)} / {whole(row.count)}",
            whole(row.warned),
        ),
        "good" if row.certified else "bad",
        *keys,
    )


def _where(row: ParityRow) -> str:
    precision = "" if row.precision == "highest" else f" {row.precision}"
    return f"{row.device} {row.dtype}{precision}"


def checks_table(summary: Summary) -> Table:
    """Return every compared tensor of every certificate."""
    head = ("implementation", "cell", "on", "check", "error", "tolerance", "verdict")
    rows = tuple(
        Row(
            (
                row.implementation,
                row.cell,
                _where(row),
                check.name,
                "underflow" if check.error is None else f"{check.error:.1e}",
                NOTHING if check.tolerance is None else f"{check.tolerance:.0e}",
                _verdict(check.broken, check.error),
            ),
            "bad" if check.broken else "",
            "",
            row.cell,
            row.implementation,
        )
        for row in summary.parity
        for check in row.checks
    )
    return Table("checks", "Every check", "llllrrl", (Block(head, rows),))


def _verdict(broken: bool, error: float | None) -> str:
    if error is None:
        return "not compared"
    return "BROKEN" if broken else "ok"


def outcome_table(summary: Summary) -> Table:
    """Return the trials that did not end ok, with their reasons."""
    head = ("measure", "trial", "seeds", "outcome", "reason")
    rows = tuple(_outcome_row(row) for row in summary.outcomes)
    name, title = "outcomes", "Trials that did not end ok"
    last = [one_line(row.last_words or NOTHING) for row in summary.outcomes]
    if not any(row.last_words for row in summary.outcomes):
        return Table(name, title, "lllll", (Block(head, rows),))
    rows = tuple(
        replace(row, cells=(*row.cells, textwrap.shorten(words, MOST_WORDS)))
        for row, words in zip(rows, last, strict=True)
    )
    block = Block((*head, "last line of its log"), rows)
    return Table(name, title, "llllll", (block,))


def _outcome_row(row: OutcomeRow) -> Row:
    where = Heading(row.task, row.length).title
    trial = " · ".join(w for w in (row.cell, row.implementation, where) if w)
    named = seeds(row.seeds)
    if row.count > max(1, len(row.seeds)):
        named = f"{named} (× {row.count})".strip()
    return Row(
        (
            row.measure,
            trial,
            named or NOTHING,
            row.outcome.replace("_", " "),
            one_line(row.reason),
        ),
        "bad",
        row.task,
        row.cell,
        row.implementation,
    )


def environment_table(summary: Summary) -> Table:
    """Return machine, versions, commit and the choices made once."""
    rows = [
        Row((one_line(name), one_line(value))) for name, value in summary.environment
    ]
    rows += [
        Row((f"learning, {one_line(name)}, runs on", one_line(value)))
        for name, value in summary.choices
    ]
    block = Block(("what", "value"), tuple(rows))
    return Table("environment", "Environment", "ll", (block,))
