"""What `check` prints of a certificate."""

from __future__ import annotations

from typing import Any

from harness.store import TrialRecord


def certificate_json(record: TrialRecord) -> dict[str, Any]:
    """Return the certificate as JSON values."""
    return {
        "implementation": record.trial.implementation,
        "cell": record.trial.cell,
        "device": record.trial.device,
        "dtype": record.trial.dtype,
        "outcome": record.outcome,
        "reason": record.reason,
        "framework": record.result.get("framework"),
        "kernel": record.result.get("kernel"),
        "checks": {reading.split: dict(reading.values) for reading in record.readings},
    }


def certificate_text(record: TrialRecord) -> str:
    """Return a head line, a line a check, and the verdict."""
    trial, result = record.trial, record.result
    head = [trial.implementation, trial.cell]
    head += [str(result[key]) for key in ("framework", "kernel") if key in result]
    head.append(f"{trial.device} {trial.dtype}")
    shapes = record.value("certificate", "shapes")
    if shapes:
        head.append(f"{shapes} shapes")
    lines = [" · ".join(head)]
    if record.outcome != "ok":
        return "\n".join([*lines, f"  {record.outcome}: {record.reason}", ""])
    lines += [
        f"  {r.split:<22} {_verdict(dict(r.values))}" for r in record.readings[1:]
    ]
    broken, checks = (record.value("certificate", n) for n in ("broken", "checks"))
    if broken:
        lines.append(f"not certified: {broken} of {checks} checks broken")
    else:
        lines.append(f"certified: {checks} checks")
    return "\n".join([*lines, ""])


def _verdict(values: dict[str, float]) -> str:
    error = values.get("error")
    if error is None:
        return "underflow  not compared"
    if error <= values["warned_above"]:
        return f"{error:9.1e}  ok"
    if error <= values["tolerance"]:
        return f"{error:9.1e}  ok, but unusually large"
    return f"{error:9.1e}  BROKEN, allowed {values['tolerance']:.0e}"
