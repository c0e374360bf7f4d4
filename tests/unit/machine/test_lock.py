import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.machine import lock
from harness.machine.lock import measuring
from harness.run.job import StoppedError
from tests import helpers

ELSEWHERE = """\
import sys
from harness.machine.lock import measuring
nothing = lambda *_: None
with measuring(alone=sys.argv[1] == "alone", waits=nothing, check=nothing):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@contextmanager
def elsewhere(how: str) -> Iterator[subprocess.Popen[str]]:
    """Let another process measure in the meantime."""
    process = subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def nothing(*_: object) -> None:
    pass


def never(for_what: str | None) -> None:
    pytest.fail(f"waits for {for_what}")


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + helpers.PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class Trial(threading.Thread):
    """Measures on a thread until it may end."""

    def __init__(self, *, alone: bool) -> None:
        super().__init__(daemon=True)
        self.alone = alone
        self.waits, self.is_in, self.may_end = (threading.Event() for _ in range(3))
        self.start()

    def run(self) -> None:
        with measuring(
            alone=self.alone, waits=lambda _: self.waits.set(), check=nothing
        ):
            self.is_in.set()
            self.may_end.wait(helpers.PATIENCE_S)


def test_trials_do_not_wait_for_each_other() -> None:
    with elsewhere("beside"), measuring(alone=False, waits=never, check=nothing):
        pass


@pytest.mark.parametrize(
    ("there", "alone"), [("alone", False), ("alone", True), ("beside", True)]
)
def test_a_session_has_its_machine_to_itself(there: str, alone: bool) -> None:
    with elsewhere(there) as process:
        trial = Trial(alone=alone)
        wait_for(trial.waits.is_set)
        assert not trial.is_in.wait(0.3)
        process.kill()  # a dead process holds no lock
        wait_for(trial.is_in.is_set)
    trial.may_end.set()
    trial.join()


def test_a_waiting_session_goes_before_later_trials() -> None:
    with elsewhere("beside") as process:
        session = Trial(alone=True)
        wait_for(session.waits.is_set)
        late = Trial(alone=False)
        wait_for(late.waits.is_set)
        assert not late.is_in.is_set()
        process.kill()
        wait_for(session.is_in.is_set)
        assert not late.is_in.wait(0.3)
        session.may_end.set()
        wait_for(late.is_in.is_set)
    late.may_end.set()
    late.join()


def test_a_stopped_run_does_not_wait_any_longer() -> None:
    def stop() -> None:
        raise StoppedError

    waiting = measuring(alone=True, waits=nothing, check=stop)
    with elsewhere("beside"), pytest.raises(StoppedError), waiting:
        pass


def test_nothing_waits_if_no_lock_can_be_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(lock, "user_cache", lambda: tmp_path / "file" / "no")
    with (
        measuring(alone=True, waits=never, check=nothing),
        measuring(alone=True, waits=never, check=nothing),
    ):
        pass
