"""The limits of a trial, enforced from outside on its worker and the worker's children.

Processes are killed, so that an endless loop in C, a child or a hung call to a device
ends too. Memory is polled, because an address-space limit would break CUDA and XLA.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time

import psutil

from harness.machine.orphans import end_descendants
from harness.run.worker.reaper import MARK, reaper

POLL_S = 0.1

_MOST_S = 5.0
"""How long living members are looked for: some may start others until they die."""

MOST_OF_A_CORE = 0.01
"""The share of a core that polling may use, since timed trials run at that time."""


class Family:
    """A process, its descendants and its session, which all end together.

    Args:
        leader: The id of the process.
        mark: The value of its environment variable `MARK`, or None without one.
    """

    def __init__(self, leader: int, mark: str | None = None) -> None:
        self._leader, self._mark = leader, mark
        self._seen: dict[int, psutil.Process] = {}
        self._lock = threading.Lock()

    def members(self) -> list[psutil.Process]:
        """Return every living member, the leader last; zombies do not count."""
        with self._lock:
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(self._leader).children(recursive=True):
                    self._seen.setdefault(child.pid, child)
            with contextlib.suppress(psutil.Error):
                self._seen.setdefault(self._leader, psutil.Process(self._leader))
            self._seen = {pid: p for pid, p in self._seen.items() if _is_alive(p)}
            return sorted(self._seen.values(), key=lambda p: p.pid == self._leader)

    def memory_bytes(self, limit: int | None) -> int:
        """Return the resident memory; above a limit, count shared memory only once.

        To count shared memory once takes longer, so it is done only above the limit.
        """
        members = self.members()
        resident = sum(_memory_bytes(p) for p in members)
        if limit is None or resident <= limit:
            return resident
        return sum(_memory_bytes(p, shared_once=True) for p in members)

    def kill(self) -> None:
        """Kill every member, also those that start meanwhile.

        The leader dies last: as long as it lives, it is the parent of all orphans among
        its descendants, so that none of them can leave the family.
        """
        deadline_s = time.monotonic() + _MOST_S
        while True:
            end_descendants(self._leader)
            self._add_orphans()
            members = self.members()
            others = [p for p in members if p.pid != self._leader]
            last = not others or time.monotonic() > deadline_s
            for process in members if last else others:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if last:
                return
            psutil.wait_procs(others, timeout=0.2)

    def _add_orphans(self) -> None:
        """Find members that have another parent now, by their session or their mark."""
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(process.pid) == self._leader or (
                    self._mark and process.environ().get(MARK) == self._mark
                ):
                    with self._lock:
                        self._seen.setdefault(process.pid, process)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _memory_bytes(process: psutil.Process, *, shared_once: bool = False) -> int:
    """Return resident memory, or a process's part of it; 0 if it cannot be read."""
    with contextlib.suppress(psutil.Error):
        if shared_once:
            full = process.memory_full_info()
            return int(getattr(full, "pss", full.rss))
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


class Watch:
    """Watches one worker until it ends, and kills the processes it leaves behind.

    Attributes:
        verdict: Outcome and reason of the limit that was broken, or None.
        peak_memory_bytes: The highest memory since `begin`.
        ended: Set when the worker and its family have ended.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        memory_bytes: int | None,
        mark: str | None = None,
    ) -> None:
        self._process = process
        self._limit = memory_bytes
        self._family = Family(process.pid, mark)
        self._deadline: tuple[float, float] | None = None
        self.verdict: tuple[str, str] | None = None
        self.peak_memory_bytes = 0
        self.ended = threading.Event()
        reaper().watch(process.pid)
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, left_s: float | None, timeout_s: float | None) -> None:
        """Start the clock of a request; forget the memory of the last request.

        Args:
            left_s: The time that its trial has left, or None without a limit.
            timeout_s: The trial's limit, for the message.
        """
        self.peak_memory_bytes = 0
        if left_s is not None and timeout_s is not None:
            self._deadline = (time.monotonic() + left_s, timeout_s)

    def end(self) -> None:
        """Stop the clock."""
        self._deadline = None

    def check_memory(self) -> None:
        """Measure the memory, and stop what holds more than the limit.

        A trial may be shorter than the pause between two looks. So its memory is looked
        at when it has answered, too.
        """
        memory = self._family.memory_bytes(self._limit)
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)
        if self._limit is not None and self.peak_memory_bytes > self._limit:
            limit = f"{self._limit / 2**30:.1f} GiB"
            if self._limit < 2**30:
                limit = f"{self._limit / 2**20:.0f} MiB"
            self._stop("out_of_memory", f"stopped at the memory limit of {limit}")

    def kill(self) -> None:
        """Kill the worker and everything that it started."""
        self._family.kill()
        if not self.ended.wait(timeout=10):  # a device driver may hold it in the kernel
            raise TimeoutError(f"process {self._process.pid} cannot be killed")

    def _watch(self) -> None:
        pause_s = POLL_S
        while True:
            try:
                self._process.wait(timeout=pause_s)
                break
            except subprocess.TimeoutExpired:
                start = time.thread_time()
                self._check()
                took_s = time.thread_time() - start
                pause_s = max(POLL_S, took_s / MOST_OF_A_CORE)
        self._family.kill()
        reaper().forget(self._process.pid)
        self.ended.set()

    def _check(self) -> None:
        deadline = self._deadline
        if deadline is not None and time.monotonic() > deadline[0]:
            self._stop("timeout", f"stopped at the time limit of {deadline[1]:g} s")
        self.check_memory()

    def _stop(self, outcome: str, reason: str) -> None:
        self.verdict = self.verdict or (outcome, reason)
        self._family.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
