"""Workers end when this process ends, however it ends and whatever they are doing.

A thread in the worker would not suffice: code that holds the interpreter's lock stops
it. The kernel's death signal comes when the thread ends that started the worker, and
does not reach the worker's children.
"""

from __future__ import annotations

import atexit
import contextlib
import subprocess
import threading
import uuid

MARK = "RNN_HARNESS_WORKER"
"""An environment variable that marks a worker and its children. A child may leave its
parent, session and group, but it keeps its environment."""

_SCRIPT = """
alive=" "
while read -r what pid; do
  case $what in
    +) alive="$alive$pid " ;;
    -) alive="${alive%% "$pid" *} ${alive#* "$pid" }" ;;
  esac
done
end() {
  for child in $(cat "/proc/$1/task/"*/children); do end "$child"; done
  kill -s KILL "$1"
}
for pid in $alive; do
  killed=none round=0
  while
    children=$(cat "/proc/$pid/task/"*/children)
    [ "$children" != "$killed" ] && [ "$round" -lt 1000 ]
  do
    for child in $children; do end "$child"; done
    killed=$children round=$((round + 1))
  done
  kill -s KILL -- "-$pid"
done
for process in /proc/[0-9]*; do
  if grep -qas "$1" "$process/environ"; then kill -s KILL "${process#/proc/}"; fi
done
"""
"""Reads until this process ends, which alone holds the other end of its input.

A worker is the parent of all orphans among its descendants. A descendant that is killed
may have started another one just before, which is then a child of the worker. So the
worker lives until no child of it is new, or until it was looked at 1000 times.
"""


class Reaper:
    """A process that outlives this one just long enough to kill its workers.

    Attributes:
        mark: The beginning of the marks of its workers.
    """

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "reaper", f"{MARK}={self.mark}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )
        self._lock = threading.Lock()
        atexit.register(self._process.communicate)

    def watch(self, leader: int) -> None:
        """Kill the group of a process when this process ends."""
        self._tell(f"+ {leader}\n")

    def forget(self, leader: int) -> None:
        """Forget a group that has ended: another one may soon have its number."""
        self._tell(f"- {leader}\n")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        # At exit the pipe is closed (ValueError) while threads still end workers.
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(line.encode())


_one: list[Reaper] = []
_starting = threading.Lock()


def reaper() -> Reaper:
    """Return the one reaper of this process."""
    with _starting:
        if not _one:
            _one.append(Reaper())
        return _one[0]
