"""A channel is of use to the process that made it, and to no copy of that process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from harness.messages.channel import Channel
from harness.messages.pipe import Message, receive

# Another test may have imported JAX in this process, which warns of any fork. The
# copies that are made here use nothing that has threads.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

Made = tuple[Channel, tuple[int, int], int]
"""A channel, its descriptors, and the other end of what it sends."""


@pytest.fixture
def made() -> Iterator[Made]:
    """Return a channel that nobody answers."""
    source, requests = os.pipe()
    answers, target = os.pipe()
    channel = Channel.of(source, target)
    yield channel, (source, target), answers
    channel.close()
    os.close(requests)
    os.close(answers)


def in_a_copy(act: Callable[[], int]) -> int:
    """Return the exit code of a copy of this process, which `act` returns."""
    if copy := os.fork():
        _, status = os.waitpid(copy, 0)
        return os.waitstatus_to_exitcode(status)
    os._exit(act())


def test_a_copy_ends_when_it_uses_the_channel(made: Made) -> None:
    channel, _, answers = made

    def send() -> int:
        channel.send(Message({"of": "the copy"}))
        return 1

    def wait() -> int:
        channel.receive()
        return 1

    assert in_a_copy(send) == 0
    assert in_a_copy(wait) == 0
    channel.send(Message({"of": "the owner"}))
    with os.fdopen(os.dup(answers), "rb") as stream:
        found = receive(stream)
    assert found is not None
    assert found.values == {"of": "the owner"}


def test_a_file_of_a_copy_gets_no_number_of_the_channel(made: Made) -> None:
    _, descriptors, _ = made

    def opens() -> int:
        return int(os.open(os.devnull, os.O_RDONLY) in descriptors)

    assert in_a_copy(opens) == 0
