import signal

import pytest

from harness.errors import (
    MisuseError,
    PluginError,
    RefusedError,
    UnavailableError,
    describe_error,
)
from harness.run.worker.outcome import KEPT, outcome_of, outcome_of_death


class OutOfMemoryError(RuntimeError):
    """An error with the name that every framework uses."""


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        (
            UnavailableError("tidal-gru", "no module 'tidalflow'"),
            "unavailable",
            "tidal",
        ),
        (RefusedError("runs on cpu, not on cuda:0"), "refused", "not on"),
        (MemoryError(), "out_of_memory", "MemoryError"),
        (OutOfMemoryError("CUDA out of memory"), "out_of_memory", "CUDA out of memory"),
        (PluginError("my-gru", "lacks 'vjp'"), "failed", "my-gru: lacks 'vjp'"),
        (MisuseError("unknown cell"), "failed", "unknown cell"),
        (ValueError("length must be at least 2"), "failed", "ValueError: length"),
        (SystemExit("no licence"), "failed", "SystemExit: no licence"),
        (KeyError("loss"), "failed", "KeyError: 'loss'"),
    ],
)
def test_every_error_has_an_outcome_and_a_reason(
    error: BaseException, outcome: str, message: str
) -> None:
    found, reason = outcome_of(error)
    assert found == outcome
    assert message in reason


@pytest.mark.parametrize(
    ("returncode", "message"),
    [
        (-signal.SIGSEGV, "SIGSEGV in my-gru"),
        (-signal.SIGKILL, "SIGKILL in my-gru, often the system out of memory"),
        (-250, "signal 250 in my-gru"),
        (7, "the worker of my-gru exited with 7"),
        (0, "the worker of my-gru exited with 0"),
    ],
)
def test_the_death_of_a_worker_is_reported_with_its_signal_or_exit_code(
    returncode: int, message: str
) -> None:
    assert outcome_of_death(returncode, "my-gru") == ("crashed", message)


def test_only_outcomes_that_would_repeat_are_kept() -> None:
    assert {"ok", "diverged", "refused"} == KEPT


def test_an_error_is_described_with_its_line_in_the_plugin() -> None:
    code = compile("\n\n1 / 0", __file__, "exec")
    with pytest.raises(ZeroDivisionError) as raised:
        exec(code)
    assert describe_error(raised.value) == (
        "ZeroDivisionError: division by zero (test_outcomes.py:3)"
    )


def test_a_syntax_error_is_described_with_its_own_line() -> None:
    with pytest.raises(SyntaxError) as raised:
        compile("x = 1\ny = (", "my_gru.py", "exec")
    assert describe_error(raised.value) == (
        "SyntaxError: '(' was never closed (my_gru.py:2)"
    )
