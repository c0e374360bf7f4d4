"""A worker that continues from a checkpoint learns as an uninterrupted one does."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

from harness.messages.pipe import Message, receive, send
from harness.run.job import Start
from harness.run.worker.judge import Worker
from harness.run.worker.process import Request
from harness.runner.runner import InProcess
from harness.trial import LearningSettings, SpeedSettings
from tests import helpers
from tests.helpers import REGISTRY

LEARNING = replace(
    helpers.LEARNING,
    length=4,
    hidden_size=4,
    batch=4,
    settings=LearningSettings(30, evaluate_every=10, evaluate_sequences=20),
)


MADE = replace(
    LEARNING,
    measure="speed",
    implementation="numpy-reference",
    settings=SpeedSettings(phases=("forward",), rounds=2, readings=1, target=1e9),
)


class TellsLater(InProcess):
    """A runner that finds at the second request what the first has started."""

    asked: tuple[str, ...] = ()

    def changes(self, asked: str) -> dict[str, list[str]]:
        self.asked += (asked,)
        return {self.asked[0]: ["a process is left"]} if asked == "b" else {}


def learn(start: Start | None = None) -> list[Message]:
    """Return the messages of a worker that writes checkpoints as often as it can."""
    answers = io.BytesIO()
    request = Request("measure", "one", LEARNING, start=start)
    channel = SimpleNamespace(send=partial(send, answers))
    worker = Worker(REGISTRY, channel, InProcess(REGISTRY))
    worker.answer(request.message(checkpoint_s=0.0))
    answers.seek(0)
    return list(iter(lambda: receive(answers), None))


def kinds(answers: list[Message]) -> set[str]:
    return {answer.values["kind"] for answer in answers}


def curve(answers: list[Message]) -> list[dict[str, Any]]:
    return [a.values["reading"] for a in answers if a.values["kind"] == "event"]


def checkpoints(answers: list[Message]) -> dict[int, Start]:
    """Return the checkpoints by the number of updates done."""
    return {
        answer.values["state"]["updates"]: Start(answer.values["state"], answer.arrays)
        for answer in answers
        if answer.values["kind"] == "checkpoint"
    }


def test_a_resumed_trial_has_the_curve_of_an_uninterrupted_trial() -> None:
    whole = learn()
    assert kinds(whole) == {"begins", "event", "checkpoint", "result"}
    assert not whole[0].values["resumed"]
    resumed = learn(checkpoints(whole)[20])
    assert kinds(resumed) == kinds(whole), resumed[-1].values
    assert resumed[0].values["resumed"]
    left = curve(resumed)
    assert left == curve(whole)[-len(left) :]
    assert len(left) < len(curve(whole))
    for n, tensor in whole[-1].arrays.items():
        assert tensor.tobytes() == resumed[-1].arrays[n].tobytes()
    assert resumed[-1].values["readings"] == whole[-1].values["readings"]


def test_a_checkpoint_of_another_environment_is_not_used() -> None:
    whole = learn()
    start = checkpoints(whole)[20]
    elsewhere = {**start.state, "environment": {"processor": "another"}}
    again = learn(Start(elsewhere, start.arrays))
    assert not again[0].values["resumed"]
    assert curve(again) == curve(whole)


def test_what_is_found_late_is_told_of_its_maker() -> None:
    answers: list[Message] = []
    channel = SimpleNamespace(send=answers.append)
    worker = Worker(REGISTRY, channel, TellsLater(REGISTRY))
    worker.answer(Request("open", "a", MADE).message(checkpoint_s=1e9))
    turns = [Request("turn", "a", MADE, each) for each in answers[0].values["phases"]]
    for request in (
        Request("probe", "b", replace(MADE, implementation="torch-native")),
        Request("warm", "a", MADE),
        *turns,
        Request("close", "a", MADE),
    ):
        worker.answer(request.message(checkpoint_s=1e9))
    found = [answer.values["changed"] for answer in answers]
    assert found[:2] == [{}, {"numpy-reference": ["a process is left"]}]
    assert not any(found[2:])
    facts = answers[-1].values["facts"]
    assert facts["changed_process"] == ["a process is left"]
