"""The outcome of a trial, and the reason in words."""

from __future__ import annotations

import signal

from harness.errors import HarnessError, RefusedError, UnavailableError, describe_error

KEPT = frozenset({"ok", "diverged", "refused"})
"""Final outcomes: the same trial would end the same way again.

A trial with another outcome runs again if the user asks for it.
"""


def outcome_of(error: BaseException) -> tuple[str, str]:
    """Return outcome and reason of an exception that ended a measure."""
    if isinstance(error, UnavailableError):
        return "unavailable", str(error)
    if isinstance(error, RefusedError):
        return "refused", str(error)
    # Every framework has its own class for this on CUDA; the names all contain this.
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return "out_of_memory", describe_error(error)
    if isinstance(error, HarnessError):
        return "failed", str(error)
    return "failed", describe_error(error)


def outcome_of_death(returncode: int, implementation: str) -> tuple[str, str]:
    """Return outcome and reason of a worker that ended without an answer."""
    if returncode >= 0:
        return "crashed", f"the worker of {implementation} exited with {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    hint = ", often the system out of memory" if name == "SIGKILL" else ""
    return "crashed", f"{name} in {implementation}{hint}"
