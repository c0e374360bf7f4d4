"""Who is asked when a shared worker dies is asked once more, without the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.registry import Registry
from harness.run.engine.pool import WorkerPool
from harness.run.engine.session import run_job
from harness.run.job import Answer, Begins, Event, Job, Limits, News, Printed
from harness.trial import LearningSettings, SpeedSettings, Trial
from tests import helpers

REGISTRY = Registry.discover([helpers.PLUGINS / "leaves_behind.py"])
LEARNING = replace(
    helpers.LEARNING,
    cell="rnn",
    length=4,
    hidden_size=4,
    settings=LearningSettings(30, evaluate_every=10, evaluate_sequences=20),
)
TIMED = Trial(
    "speed",
    "arms",
    "rnn",
    batch=1,
    time_steps=2,
    input_size=2,
    hidden_size=2,
    seed=0,
    data_seed=0,
    settings=SpeedSettings(phases=("train_step",), rounds=2, time_budget_s=0.1),
)


class Asked:
    """A pool of real workers, and what became of its jobs."""

    def __init__(self, built: Path) -> None:
        # Under a memory limit, the highest rates of this machine are not measured.
        limits = Limits(memory_bytes=8 << 30, checkpoint_s=0.0)
        self.pool = WorkerPool(REGISTRY, limits, lambda _: None)
        self.news: list[News] = []
        self._built = built

    def learn(self, name: str) -> Answer:
        """Let an implementation learn in the worker of its kind."""
        trial = replace(LEARNING, implementation=name)
        self.news.clear()
        return run_job(self.pool, Job({name: trial}), self.news.append)[name]

    def time(self, *names: str) -> dict[str, Answer]:
        """Time implementations in one session."""
        trials = {name: replace(TIMED, implementation=name) for name in names}
        job = Job(trials, session=True)
        return dict(run_job(self.pool, job, self.news.append))

    @property
    def printed(self) -> str:
        """The output of the last job."""
        data = [each.data for each in self.news if isinstance(each, Printed)]
        return b"".join(data).decode()

    @property
    def built(self) -> Counter[str]:
        """How often a network of each implementation was built."""
        return Counter(self._built.read_text(encoding="utf-8").split())


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """Return a pool whose workers end after the test."""
    monkeypatch.setenv("LEAVES_BEHIND", str(tmp_path / "built"))
    made = Asked(tmp_path / "built")
    yield made
    made.pool.close()


def test_an_innocent_neighbour_is_measured_in_a_process_of_its_own(
    asked: Asked,
) -> None:
    answers = {name: asked.learn(name) for name in ("arms", "innocent")}
    words = "the worker of innocent exited with 3, beside arms; asked once more without"
    assert words in asked.printed
    answers["also-innocent"] = asked.learn("also-innocent")
    assert {n: (a.outcome, a.reason) for n, a in answers.items()} == dict.fromkeys(
        answers, ("ok", None)
    )
    assert len({a.facts["worker"] for a in answers.values()}) == 3
    assert asked.built == {"arms": 1, "innocent": 2, "also-innocent": 1}


def test_who_dies_alone_too_is_blamed_and_is_not_asked_again(asked: Asked) -> None:
    assert asked.learn("innocent").outcome == "ok"
    died = asked.learn("dies")
    assert died.outcome == "crashed"
    assert died.reason == "the worker of dies exited with 3"
    assert asked.built["dies"] == 2
    # From now on it has no neighbours, so that the next death is its own.
    assert asked.learn("dies").outcome == "crashed"
    assert asked.built["dies"] == 3


def test_who_dies_in_a_worker_without_others_is_blamed_at_once(asked: Asked) -> None:
    died = asked.learn("dies")
    assert (died.outcome, died.in_doubt) == ("crashed", False)
    assert asked.built == {"dies": 1}


def test_learning_goes_on_from_its_checkpoint_in_the_other_process(
    asked: Asked,
) -> None:
    asked.learn("arms")
    assert asked.learn("learns-on").outcome == "ok"
    begun = [each.resumed for each in asked.news if isinstance(each, Begins)]
    assert begun == [False, True]
    events = [each for each in asked.news if isinstance(each, Event)]
    updates = [e.reading.x for e in events if e.reading.split == "held_out"]
    assert updates == [0, 10, 20, 30]


def test_a_session_goes_on_without_the_one_that_dies_alone(asked: Asked) -> None:
    answers = asked.time("arms", "innocent", "also-innocent", "dies")
    ended = {name: answer.outcome for name, answer in answers.items()}
    assert ended == {
        "arms": "ok",
        "innocent": "ok",
        "also-innocent": "ok",
        "dies": "crashed",
    }
    assert answers["dies"].reason == "the worker of dies exited with 3"
    ok = [a for a in answers.values() if a.outcome == "ok"]
    assert len({answer.facts["worker"] for answer in ok}) == 3
    # Each is asked once more at most, and the session starts again after each death.
    assert asked.built["dies"] <= 5
