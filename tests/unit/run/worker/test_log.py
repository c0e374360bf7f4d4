"""The output of workers is read completely; its head and tail are kept."""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.files import log
from harness.run.worker.log import LogPump
from tests import helpers


def test_output_is_passed_to_the_listener_of_that_moment() -> None:
    source, end = os.pipe()
    first: list[bytes] = []
    second: list[bytes] = []
    default: list[bytes] = []
    pump = LogPump(source, default.append)
    os.write(end, b"before")
    pump.listen(first.append)
    os.write(end, b"one")
    pump.listen(second.append)
    os.write(end, b"two")
    pump.listen(None)
    os.write(end, b"after")
    os.close(end)
    helpers.wait_for(lambda: b"".join(default) == b"beforeafter", "the end")
    assert (b"".join(first), b"".join(second)) == (b"one", b"two")


def test_the_head_and_the_tail_of_long_output_are_kept() -> None:
    source, end = os.pipe()
    kept: list[bytes] = []
    pump = LogPump(source, lambda _: None)
    pump.listen(kept.append)
    block = b"x" * (1 << 16)
    os.write(end, b"first words\n")
    for _ in range(64):  # 4 MiB
        os.write(end, block)
    os.write(end, b"\nlast words")
    pump.listen(None)
    os.close(end)
    text = b"".join(kept)
    assert text.startswith(b"first words\n")
    assert text.endswith(b"\nlast words")
    assert b"bytes are left out here]" in text
    most = log.HEAD_BYTES + log.TAIL_BYTES + (1 << 17)
    assert log.HEAD_BYTES < len(text) < most


def test_a_listener_that_cannot_write_does_not_block_the_worker() -> None:
    def full(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    source, end = os.pipe()
    pump = LogPump(source, full)
    for _ in range(64):
        os.write(end, b"x" * (1 << 16))
    kept: list[bytes] = []
    pump.listen(kept.append)
    os.write(end, b"heard")
    pump.listen(None)
    os.close(end)
    assert b"".join(kept) == b"heard"


def test_a_log_is_bounded_however_often_something_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    log.append_bounded(file, b"first words\n")
    block, count = b"x" * log.TAIL_BYTES, 20
    for _ in range(count):
        log.append_bounded(file, block)
    log.append_bounded(file, b"\nlast words")
    text = file.read_bytes()
    assert len(text) < log.HEAD_BYTES + 5 * log.TAIL_BYTES
    assert text.startswith(b"first words\n")
    assert text.endswith(b"\nlast words")
    (dropped,) = re.findall(rb"\[(\d+) bytes are left out here\]", text)
    kept = len(text) - len(log.left_out(int(dropped)))
    assert kept + int(dropped) == len(b"first words\n\nlast words") + count * len(block)
