"""The text and the JSON of a certificate, which `check` prints."""

from __future__ import annotations

from typing import Any

from harness.analysis.certificates import Check, checks_of, likely_causes
from harness.printing import one_line
from harness.report.tables.checks import arithmetic, verdict
from harness.report.text import few
from harness.store import TrialRecord

MOST_NAMED = 4
"""The most checks with one likely cause that are named."""


_OF_TRIAL = ("implementation", "cell", "device", "dtype", "precision", "threads")
_OF_RESULT = ("framework", "kernel", "against")


def certificate_json(record: TrialRecord) -> dict[str, Any]:
    """Return the certificate as JSON values."""
    return {
        **{name: getattr(record.trial, name) for name in _OF_TRIAL},
        "outcome": record.outcome,
        "reason": record.reason,
        **{name: record.result.get(name) for name in _OF_RESULT},
        "checks": {reading.split: dict(reading.values) for reading in record.readings},
        "where": record.result.get("where") or {},
        "causes": record.result.get("causes") or {},
        "remarks": _remarks(record),
        "unproven": record.result.get("unproven"),
    }


def _remarks(record: TrialRecord) -> list[str]:
    """Return what was compared less closely than usual; a stored value may be any."""
    found = record.result.get("remarks")
    return [str(remark) for remark in found] if isinstance(found, list) else []


def certificate_text(record: TrialRecord) -> str:
    """Return a first line, a table of the checks, likely causes and the verdict."""
    lines = [one_line(" · ".join(_head(record)))]
    if record.outcome != "ok":
        ended = one_line(f"{record.outcome}: {record.reason}")
        return "\n".join([*lines, f"  {ended}", ""])
    lines.append(
        f"  {'':<26} {'error':>9} {'allowed':>9} {'expected':>11} {'found':>11}"
    )
    lines += [line for check in checks_of(record) for line in _lines(check)]
    for cause, checks in likely_causes(record).items():
        named = ", ".join(few(checks, MOST_NAMED))
        lines.append(one_line(f"likely cause of {named}: {cause}"))
    lines += [one_line(f"note: {remark}") for remark in _remarks(record)]
    broken, checks = (record.value("certificate", n) for n in ("broken", "checks"))
    if broken:
        lines.append(f"not certified: {broken} of {checks} checks broken")
    else:
        lines.append(f"certified: {checks} checks")
        if record.result.get("unproven"):
            lines.append(one_line(f"not proven: {record.result['unproven']}"))
    return "\n".join([*lines, ""])


def _head(record: TrialRecord) -> list[str]:
    trial, result = record.trial, record.result
    head = [trial.implementation, trial.cell]
    head += [str(result[key]) for key in ("framework", "kernel") if key in result]
    head.append(arithmetic(trial))
    shapes = record.value("certificate", "shapes")
    if shapes:
        head.append(f"{shapes} shapes against {result.get('against', 'the reference')}")
    return head


def _lines(check: Check) -> list[str]:
    """Return a check: its name, error, tolerance, both norms and the verdict."""
    # Exact equality is checked: the error is the share of values that differ.
    exact = check.tolerance == 0
    numbers = [
        _number(check.error, 9, "underflow"),
        f"{'none':>9}" if exact else _number(check.tolerance, 9),
        _number(check.expected, 11),
        _number(check.found, 11, "" if check.expected is None else "another form"),
    ]
    words = verdict(check)
    if words == "ok" and check.warned:
        words = "ok, but unusually large"
    lines = [f"  {one_line(check.name):<26} {' '.join(numbers)}  {words}"]
    if check.usual is not None:
        lines.append(
            f"  {'':<26} more than {_number(check.usual, 0)} is allowed here: "
            "rounding the weights alone changes it"
        )
    if (check.broken or check.usual is not None) and check.where:
        lines.append(f"  {'':<26} {one_line(check.where)}")
    return lines


def _number(value: float | None, width: int, missing: str = "") -> str:
    if value is None:
        return f"{missing:>{width}}"
    if value >= 1e300:
        return f"{'not finite':>{width}}"
    text = f"{value:.1e}" if width < 11 else f"{value:.5g}"
    return f"{text:>{width}}"
