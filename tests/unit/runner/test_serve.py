"""Whatever code of a plugin raises or returns, its request has a readable answer."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from harness.contract import (
    Forward,
    Gradients,
    Handle,
    LossAndGradients,
    Updates,
)
from harness.errors import (
    HarnessError,
    PluginError,
    RefusedError,
    describe_error,
    error_text,
    shown,
)
from harness.measure.problem import Problem
from harness.messages.channel import Channel
from harness.messages.pipe import receive, send
from harness.run.worker.outcome import outcome_of
from harness.runner.codec import decode, encode
from harness.runner.process import _raised
from harness.runner.returned import FormError
from harness.runner.runner import InProcess
from harness.runner.serve import Server, serve
from tests import helpers
from tests.helpers import REGISTRY


class UnreadableError(Exception):
    """An exception without a text."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class NoTextError(Exception):
    """An exception whose text is a number."""

    def __str__(self) -> str:
        return cast(str, 7)


class InterruptingError(Exception):
    """An exception whose text is an interruption."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


class Own(BaseException):
    """An exception that `except Exception` does not catch."""


class OddReasonError(HarnessError):
    """A reason that cannot be read."""

    @property
    def plugin(self) -> str:
        raise ZeroDivisionError

    reason = plugin

    def __str__(self) -> str:
        raise Own


def odd(error: HarnessError, **attributes: object) -> HarnessError:
    """Return an error with other attributes than it should have."""
    vars(error).update(attributes)
    return error


def odd_syntax() -> SyntaxError:
    """Return a syntax error whose file and text are no texts."""
    error = SyntaxError("x")
    error.filename, error.msg = cast(str, 3), cast(str, UnreadableError())
    return error


RAISED = [
    (UnreadableError(), "failed", "UnreadableError: its text cannot be read"),
    (NoTextError(), "failed", "NoTextError: its text cannot be read"),
    (InterruptingError(), "failed", "InterruptingError"),
    (KeyboardInterrupt(), "failed", "KeyboardInterrupt"),
    (asyncio.CancelledError("late"), "failed", "CancelledError: late"),
    (GeneratorExit(), "failed", "GeneratorExit"),
    (Own("odd"), "failed", "Own: odd"),
    (SystemExit(10**30), "failed", "SystemExit: 1000"),
    (KeyError(UnreadableError()), "failed", "KeyError: its text cannot be read"),
    (odd_syntax(), "failed", "SyntaxError"),
    (type("N" * 5_000_000, (Exception,), {})("x"), "failed", "NNNN"),
    (odd(RefusedError("on a GPU only"), reason=object()), "refused", "on a GPU only"),
    (odd(PluginError("a", "b"), plugin=object()), "failed", ": b"),
    (odd(PluginError("a", "b"), reason=object()), "failed", "a: PluginError: a: b"),
    (OddReasonError("y"), "failed", "OddReasonError: its text cannot be read"),
    (MemoryError(), "out_of_memory", "MemoryError"),
]


def asked(runner: object, method: str, *given: Any) -> dict[str, Any]:
    """Return the answer of a server of a runner to a request."""
    answers = io.BytesIO()
    channel = cast(Channel, SimpleNamespace(send=partial(send, answers)))
    request = {
        "request": "one",
        "of": None,
        "method": method,
        "given": given,
        "made": None,
        "freed": (),
    }
    serve(Server(cast(InProcess, runner)), channel, encode(request))
    answers.seek(0)
    message = receive(answers)
    assert message is not None
    assert receive(answers) is None
    return decode(message)


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    RAISED,
    ids=[type(r[0]).__name__[:9] for r in RAISED],
)
def test_whatever_is_raised_ends_its_trial_with_a_reason(
    error: BaseException, outcome: str, reason: str
) -> None:
    def act() -> None:
        raise error

    answer = asked(SimpleNamespace(act=act, written=[]), "act")
    found, told = outcome_of(_raised(answer["error"]))
    assert (found, told[: len(reason)]) == (outcome, reason)
    assert len(told) <= 2000


def test_a_text_of_a_plugin_never_raises_where_it_is_told() -> None:
    assert error_text(UnreadableError()) == "UnreadableError: its text cannot be read"
    assert describe_error(NoTextError()) == "NoTextError: its text cannot be read"
    assert shown(UnreadableError()) == "a UnreadableError"
    assert (
        outcome_of(OddReasonError("y"))[1] == "OddReasonError: its text cannot be read"
    )
    with pytest.raises(KeyboardInterrupt):  # a user's own
        error_text(InterruptingError())


def nested() -> list[Any]:
    """Return lists within lists, too deep for any recursion."""
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (10**5000, "`act` returned what cannot be sent: a value cannot be sent"),
        (nested(), "`act` returned values within values without end"),
        (np.broadcast_to(np.float32(1), (2**35,)), "of shape (34359738368,) is too"),
        (np.zeros((1,) * 30), "is too large"),
        (np.array(["a"]), "`act` returned an array of dtype <U1"),
        ({1}, "`act` returned a set"),
    ],
    ids=["digits", "nested", "broadcast", "dimensions", "text", "set"],
)
def test_what_cannot_be_sent_is_an_error_of_the_one_who_returned_it(
    found: object, words: str
) -> None:
    answer = asked(SimpleNamespace(act=lambda: found, written=[]), "act")
    assert words in answer["error"]["text"]


def test_a_number_of_more_digits_than_a_float_arrives() -> None:
    found = np.longdouble(1) / 4
    answer = asked(SimpleNamespace(act=lambda: (found, 3), written=[]), "act")
    assert answer["found"] == (0.25, 3)


# --- what the methods of a network return --------------------------------------------


PROBLEM = Problem(REGISTRY, helpers.LEARNING)
BATCH = PROBLEM.batch("train", 0)
STATE = (np.zeros((1, BATCH.size, PROBLEM.spec.hidden_size), np.float32),)
OUTPUTS = np.zeros((*BATCH.scored.shape, 1), np.float32)
WEIGHTS = {n: w.astype(np.float32) for n, w in PROBLEM.initial_weights().items()}
WITHOUT = {n: w for n, w in WEIGHTS.items() if n != "readout.b"}
INPUTS = np.zeros(BATCH.inputs.shape, np.float32)


def queued(read: object) -> Handle[Any]:
    return Handle(lambda: None, lambda: read)


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "forward": lambda n, placed: n.forward(placed).read(),
    "step": lambda n, placed: n.step(BATCH.inputs[:, 0], STATE).read(),
    "vjp": lambda n, placed: n.vjp(placed, STATE, OUTPUTS, STATE),
    "loss_and_gradients": lambda n, placed: n.loss_and_gradients(placed).read(),
    "train_steps": lambda n, placed: n.train_steps([placed]).read(),
    "weights": lambda n, placed: n.weights(),
    "optimizer_state": lambda n, placed: n.optimizer_state(),
    "kernel": lambda n, placed: n.kernel(),
}

WRONG = [
    ("forward", None, "None; it returns Handle(wait, read)"),
    ("forward", queued(None), "None; it returns Forward(outputs [batch, readouts"),
    ("forward", queued((OUTPUTS, STATE)), "a tuple of 2; it returns Forward("),
    ("forward", queued(Forward(1.0, STATE)), "1.0 (float) as outputs; it is an array"),  # type: ignore[arg-type]
    ("forward", queued(Forward(10**5000, STATE)), "an int of many digits as outputs"),  # type: ignore[arg-type]
    ("forward", queued(Forward(nested(), STATE)), "a list as outputs; it is an array"),  # type: ignore[arg-type]
    (
        "forward",
        queued(Forward(OUTPUTS[0], STATE)),
        "outputs of shape [1, 1]; expected [8, 1, 1]",
    ),
    (
        "forward",
        queued(Forward(np.broadcast_to(np.float32(1), (2**35,)), STATE)),
        "outputs of shape [34359738368]; expected [8, 1, 1]",
    ),
    (
        "forward",
        queued(Forward(OUTPUTS + 1j, STATE)),
        "outputs of dtype complex64; expected floating-point numbers",
    ),
    ("forward", queued(Forward(OUTPUTS, None)), "None as state; it is 1 array"),  # type: ignore[arg-type]
    ("forward", queued(Forward(OUTPUTS, ())), "a tuple of 0 as state; it is 1 array"),
    (
        "step",
        queued(Forward(OUTPUTS, (STATE[0][0],))),
        "state[0] of shape [8, 8]; expected [1, 8, 8]",
    ),
    ("vjp", None, "None; it returns Gradients(weights, inputs, state)"),
    ("vjp", Gradients(WITHOUT, INPUTS, STATE), "no 'readout.b' in weights"),
    (
        "vjp",
        Gradients(WEIGHTS, INPUTS[:, 1:], STATE),
        "inputs of shape [8, 9, 2]; expected [8, 10, 2]",
    ),
    (
        "loss_and_gradients",
        queued(LossAndGradients(cast(float, None), WEIGHTS)),
        "None as loss",
    ),
    (
        "loss_and_gradients",
        queued(LossAndGradients(0.0, cast(Any, [1]))),
        "a list as gradients; it is a dict of arrays by name",
    ),
    ("train_steps", 3, "3 (int); it returns Handle(wait, read)"),
    (
        "train_steps",
        queued(Updates(np.zeros(2), np.zeros(2))),
        "losses of shape [2]; expected [1]",
    ),
    ("weights", None, "None; it is a dict of arrays by name"),
    ("weights", {**WEIGHTS, "readout.b": 0.0}, "0.0 (float) as weights['readout.b']"),
    ("optimizer_state", {"updates": "3"}, "'3' (str) as 'updates'; it is an array"),
    ("kernel", 3, "3 (int); it returns a text"),
]


@pytest.mark.parametrize(
    ("method", "returned", "words"),
    WRONG,
    ids=[f"{n} {method}" for n, (method, *_) in enumerate(WRONG)],
)
def test_an_answer_of_another_form_is_named_with_its_method(
    method: str, returned: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network: Any = InProcess(REGISTRY).network("numpy-reference", PROBLEM.spec, "cpu")
    network.load_weights(PROBLEM.initial_weights())
    placed = network.place(BATCH)
    CALLS[method](network, placed)  # its own answer has the right form
    monkeypatch.setattr(network.network, method, lambda *_: returned)
    with pytest.raises(FormError) as raised:
        CALLS[method](network, placed)
    assert str(raised.value).startswith(f"`{method}` returned {words}")


def test_numbers_of_another_precision_are_a_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network: Any = InProcess(REGISTRY).network("numpy-reference", PROBLEM.spec, "cpu")
    for loss in (np.longdouble(0.5), np.float32(0.5), np.array(0.5)):
        answer = queued(LossAndGradients(cast(float, loss), WEIGHTS))
        monkeypatch.setattr(
            network.network, "loss_and_gradients", lambda _, found=answer: found
        )
        found = network.loss_and_gradients(network.place(BATCH)).read()
        assert (type(found.loss), found.loss) == (float, 0.5)


@pytest.mark.parametrize("phase", ["forward", "train_step", "stream"])
@pytest.mark.parametrize("returned", [None, queued(None)], ids=["None", "queued None"])
def test_a_timed_answer_of_another_form_is_named_too(
    phase: str, returned: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = InProcess(REGISTRY)
    network: Any = runner.network("numpy-reference", PROBLEM.spec, "cpu")
    stopwatch = runner.stopwatch(
        "numpy-reference", network, PROBLEM.zero_state(), "cpu"
    )
    stopwatch.place(BATCH)
    stopwatch.add_steps(BATCH.inputs[0])
    method = {"train_step": "train_steps", "stream": "step"}.get(phase, phase)
    monkeypatch.setattr(network.network, method, lambda *_: returned)
    stopwatch.begin(phase, PROBLEM.initial_weights())
    gauges = runner.gauges("numpy-reference", "cpu")
    words = rf"^`{method}` returned None; it returns"
    with pytest.raises(FormError, match=words):
        stopwatch.turn(phase, (0, 0), 1, 1)
    if returned is None or phase == "stream":
        with pytest.raises(FormError, match=words):
            gauges.measure(phase, network, BATCH, PROBLEM.zero_state(), 1)
