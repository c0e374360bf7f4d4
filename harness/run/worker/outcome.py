"""The outcome of a trial, and the reason in words."""

from __future__ import annotations

from harness.errors import (
    MOST_REASON,
    HarnessError,
    RefusedError,
    UnavailableError,
    describe_error,
    is_out_of_memory,
    made_safely,
    shortened,
    signal_name,
)
from harness.runner.process import RunnerDiedError, RunnerError

KEPT = frozenset({"ok", "diverged", "refused"})
"""Final outcomes: the same trial would end the same way again.

A trial with another outcome runs again if the user asks for it.
"""


def outcome_of(error: BaseException) -> tuple[str, str]:
    """Return outcome and reason of an exception that ended a measure."""
    text = describe_error(error)
    if isinstance(error, HarnessError | RunnerError):
        text = made_safely(lambda: str(error), text)
    return _outcome(error), shortened(text, MOST_REASON)


def _outcome(error: BaseException) -> str:
    if isinstance(error, UnavailableError):
        return "unavailable"
    if isinstance(error, RefusedError):
        return "refused"
    missing = isinstance(error, RunnerError) and error.out_of_memory
    return "out_of_memory" if missing or is_out_of_memory(error) else "failed"


def outcome_of_runner(error: RunnerDiedError, implementation: str) -> tuple[str, str]:
    """Return outcome and reason of a trial whose runner ended without an answer."""
    if error.answered is not None:
        return "crashed", f"{implementation} {error.answered}"
    return outcome_of_death(error.returncode, implementation)


def outcome_of_death(returncode: int, implementation: str) -> tuple[str, str]:
    """Return outcome and reason of a worker that ended without an answer."""
    if returncode >= 0:
        return "crashed", f"the worker of {implementation} exited with {returncode}"
    name = signal_name(-returncode)
    hint = ", often the system out of memory" if name == "SIGKILL" else ""
    return "crashed", f"{name} in {implementation}{hint}"
