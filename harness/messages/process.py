"""Start a process that answers messages."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from harness.messages.channel import Channel
from harness.messages.pipe import EndingPipe


def start(
    module: str, stop: Callable[[], bool] = lambda: False, **options: Any
) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start a module of this project in a process, with a channel to it.

    The module is given the numbers of two descriptors: of one it receives, on the other
    it sends.

    Args:
        module: The name of the module.
        stop: Says whether no answer is waited for any longer.
        options: Further arguments of `subprocess.Popen`.
    """
    theirs, ours = os.pipe()
    answers, answering = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(theirs), str(answering)],
        stdin=subprocess.DEVNULL,
        pass_fds=(theirs, answering),
        **options,
    )
    os.close(theirs)
    os.close(answering)
    source = EndingPipe(answers, lambda: process.poll() is not None or stop())
    return process, Channel(io.BufferedReader(source), os.fdopen(ours, "wb"))
