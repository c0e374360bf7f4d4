"""A worker: the process that judges trials, and the parent of the runner of their code.

It reads requests from standard input; `harness.run.worker.judge` lists them. All that a
plugin prints is written to the log. SIGUSR1 makes a learning trial write a checkpoint
and end as `stopped`.
"""

from __future__ import annotations

import faulthandler
import os
import signal

from harness.machine.orphans import adopt_orphans, end_descendants
from harness.messages.channel import Channel
from harness.messages.pipe import Message
from harness.runner.process import RunnerProcess


def main() -> None:
    """Serve requests until the other side closes."""
    faulthandler.enable()  # a crash in C then writes its Python stack to the log
    adopt_orphans()
    channel = _own_channel()
    first = channel.receive()
    if first is None:
        return
    declared = first.values["declared"]
    process = RunnerProcess(declared)
    process.start()
    # Imported only now, so that the runner imports its framework meanwhile.
    from harness.registry import Registry
    from harness.run.worker.judge import Worker
    from harness.runner.remote import RemoteRunner

    # Nobody sends it before this process is ready.
    signal.signal(signal.SIGUSR1, lambda *_: worker.stop())
    worker = Worker(Registry.given(declared), channel, RemoteRunner(process))
    channel.send(Message({"kind": "ready"}))
    try:
        while (request := channel.receive()) is not None:
            worker.answer(request)
    finally:
        process.close()
        end_descendants(os.getpid())


def _own_channel() -> Channel:
    """Take standard input and output for messages, and leave others in their place.

    What a plugin prints must not end up between two answers.
    """
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Channel.of(requests, answers)


if __name__ == "__main__":
    main()
