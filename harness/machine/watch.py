"""What the system tells of a machine while a fixed piece of work is repeated on it.

Every text is read below one folder, so that a planted tree is a machine too. What
cannot be read is None, and is never taken for good.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from harness.intervals import median_interval
from harness.machine.clock import ClockCheck, no_garbage_collection
from harness.machine.load import OtherLoad

WATCH_S = 1.5
"""Long enough for 150 of the system's ticks of 10 ms, and 1500 readings."""

_TURNS = 15
"""Parts of that time; between two of them clocks are looked at."""

_CPU = "sys/devices/system/cpu"


@dataclass(frozen=True)
class Machine:
    """What was seen of a machine; None is what could not be read.

    Attributes:
        cores: Cores of the machine; `allowed_cores` are those this process may use.
        quota_cores: Cores' worth of time that its control group is given: all cores
            where there is no limit.
        quota_stops: Periods in which the group was stopped meanwhile.
        load_average: Runnable processes, over the last minute.
        other_load: Cores that other processes kept busy meanwhile.
        steal: Share of all cores' time that a hypervisor gave to others meanwhile.
        swap_used_bytes: What of memory is on a disk.
        swap_ins: Pages fetched from there meanwhile; `swap_outs` went there.
        governor: What sets the cores' clock; several joined by commas.
        boost: Whether a core may exceed its nominal clock.
        clock_hz: Highest clock of a core, the median over looks; `clock_spread` is its
            range as a share of the highest.
        throttled: Times that heat slowed a core or package meanwhile.
        clock_wrong: Whether the clock stepped or ran at another rate than the raw one.
        work_s: Median time of the fixed piece of work.
        work_spread: 95th percentile / median - 1.
        work_interval: Width of the median's 95 % interval, as a share of it.
    """

    clock_wrong: bool
    work_s: float
    work_spread: float
    work_interval: float
    cores: int | None = None
    allowed_cores: int | None = None
    quota_cores: float | None = None
    quota_stops: int | None = None
    load_average: float | None = None
    other_load: float | None = None
    steal: float | None = None
    swap_used_bytes: int | None = None
    swap_ins: int | None = None
    swap_outs: int | None = None
    governor: str | None = None
    boost: bool | None = None
    clock_hz: float | None = None
    clock_spread: float | None = None
    throttled: int | None = None

    @property
    def not_readable(self) -> tuple[str, ...]:
        """Names of what could not be read."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) is None)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Machine:
        """Rebuild it from `to_json`."""
        return cls(**values)


def fixed_work() -> None:
    """Compute the same in about a millisecond, in one core's first cache."""
    total = 0
    for number in range(30_000):
        total += number * number


def watch_machine(
    root: Path = Path("/"),
    *,
    duration_s: float = WATCH_S,
    work: Callable[[], None] = fixed_work,
) -> Machine:
    """Repeat a piece of work and return what was seen of the machine meanwhile.

    Args:
        root: The folder that holds `proc` and `sys`.
        duration_s: For how long.
        work: What is repeated.
    """
    system = System(root)
    load, clock = OtherLoad(root), ClockCheck()
    clocks_hz = [system.clock_hz()]
    turns: list[list[float]] = []
    work()
    with no_garbage_collection():
        before = system.counters()
        load.begin()
        for _ in range(_TURNS):
            turns.append(_turn(work, duration_s / _TURNS))
            clock.look()
            clocks_hz.append(system.clock_hz())
        other_load = load.end() if load.readable else None
        after = system.counters()
    return Machine(
        clock_wrong=clock.wrong,
        other_load=other_load,
        **_of_work(turns),
        **_of_clocks([hz for hz in clocks_hz[1:] if hz is not None]),
        **_between(before, after),
        **system.settings(),
    )


def _turn(work: Callable[[], None], duration_s: float) -> list[float]:
    """Return the seconds of every repetition."""
    readings = []
    begun_s = last_s = time.perf_counter()
    while last_s - begun_s < duration_s:
        work()
        now_s = time.perf_counter()
        readings.append(now_s - last_s)
        last_s = now_s
    return readings


def _of_work(turns: list[list[float]]) -> dict[str, Any]:
    every = np.concatenate(turns)
    median = float(np.median(every))
    return {
        "work_s": median,
        "work_spread": float(np.quantile(every, 0.95)) / median - 1,
        "work_interval": median_interval(turns).width,
    }


def _of_clocks(seen_hz: list[float]) -> dict[str, Any]:
    if not seen_hz:
        return {}
    highest = max(seen_hz)
    spread = (highest - min(seen_hz)) / highest
    return {"clock_hz": float(np.median(seen_hz)), "clock_spread": spread}


def _between(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, Any]:
    """Return how far counters went on; one that was reset is not readable."""
    passed = {n: after[n] - before[n] for n in before.keys() & after.keys()}
    passed = {name: count for name, count in passed.items() if count >= 0}
    steal, total = passed.pop("steal", None), passed.pop("total", 0)
    share = {"steal": steal / total} if steal is not None and total else {}
    return {**passed, **share}


class System:
    """The texts by which Linux tells of itself.

    Args:
        root: The folder that holds `proc` and `sys`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def counters(self) -> dict[str, int]:
        """Return what counts up: steal and all ticks, swaps, stops, throttling."""
        found: dict[str, int] = {}
        ticks = self._numbers("proc/stat", r"^cpu +([\d ]+)$")
        if len(ticks) >= 8:
            # guest time is within user time
            found |= {"steal": ticks[7], "total": sum(ticks[:8])}
        for name, word in (("swap_ins", "pswpin"), ("swap_outs", "pswpout")):
            for count in self._numbers("proc/vmstat", rf"^{word} (\d+)$"):
                found[name] = count
        stops = [
            count
            for folder in self._groups("cpu")
            for count in self._numbers(f"{folder}/cpu.stat", r"^nr_throttled (\d+)$")
        ]
        if stops:
            found["quota_stops"] = sum(stops)
        throttled = self._numbers_of_cores("thermal_throttle/*_throttle_count")
        if throttled:
            found["throttled"] = sum(throttled)
        return found

    def clock_hz(self) -> float | None:
        """Return the highest clock of a core now; a virtual machine is not told it."""
        clocks = [1e3 * k for k in self._numbers_of_cores("cpufreq/scaling_cur_freq")]
        text = self._text("proc/cpuinfo") or ""
        if not clocks and not re.search(r"^flags\s*:.*\bhypervisor\b", text, re.M):
            found = re.findall(r"^cpu MHz\s*: ([\d.]+)$", text, re.MULTILINE)
            clocks = [1e6 * float(number) for number in found]
        return max(clocks, default=None)

    def settings(self) -> dict[str, Any]:
        """Return what does not change by itself: cores, quota, load, swap, clock."""
        stat = self._text("proc/stat") or ""
        cores = len(re.findall(r"^cpu\d+ ", stat, re.MULTILINE)) or None
        average = re.match(r"\d+\.\d+", self._text("proc/loadavg") or "")
        governors = set(self._of_cores("cpufreq/scaling_governor"))
        return {
            "cores": cores,
            "allowed_cores": self._allowed_cores(),
            "quota_cores": self._quota_cores(cores),
            "load_average": float(average[0]) if average else None,
            "swap_used_bytes": self._swap_used_bytes(),
            "governor": ", ".join(sorted(governors)) or None,
            "boost": self._boost(),
        }

    def _allowed_cores(self) -> int | None:
        text = self._text("proc/self/status") or ""
        found = re.search(r"^Cpus_allowed_list:\s*([\d,-]+)$", text, re.MULTILINE)
        if found is None:
            return None
        ranges = [part.split("-") for part in found[1].split(",")]
        return sum(int(r[-1]) - int(r[0]) + 1 for r in ranges)

    def _swap_used_bytes(self) -> int | None:
        total = self._numbers("proc/meminfo", r"^SwapTotal:\s*(\d+) kB$")
        free = self._numbers("proc/meminfo", r"^SwapFree:\s*(\d+) kB$")
        return 1024 * (total[0] - free[0]) if total and free else None

    def _boost(self) -> bool | None:
        for file, on in (("intel_pstate/no_turbo", "0"), ("cpufreq/boost", "1")):
            text = self._text(f"{_CPU}/{file}")
            if text is not None:
                return text == on
        return None

    # --- control groups --------------------------------------------------------------

    def _quota_cores(self, cores: int | None) -> float | None:
        """Return the smallest quota of a control group and of those around it."""
        if self._text("proc/self/cgroup") is None:
            return None
        quotas = [] if cores is None else [float(cores)]
        for folder in self._groups("cpu"):
            # cgroup 2: "150000 100000" or "max 100000"; cgroup 1: two files, -1 is none
            words = (self._text(f"{folder}/cpu.max") or "").split()
            if not words:
                files = (f"{folder}/cpu.cfs_{n}_us" for n in ("quota", "period"))
                words = [self._text(file) or "" for file in files]
            if all(word.isdecimal() and int(word) > 0 for word in words):
                quotas.append(int(words[0]) / int(words[1]))
        return min(quotas, default=None)

    def memory_left_bytes(self) -> int | None:
        """Return what this process's control groups may still take; None without limit.

        What they hold of files counts as free: the system drops that first.
        """
        groups = self._groups("memory")
        left = [count for folder in groups for count in self._left_bytes(folder)]
        return min(left, default=None)

    def _left_bytes(self, folder: str) -> Iterator[int]:
        # cgroup 2, where "max" is none; cgroup 1, which counts groups below apart
        for limit, used, total in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            sizes = [self._text(f"{folder}/{name}") or "" for name in (limit, used)]
            if all(size.isdecimal() for size in sizes):
                text = self._text(f"{folder}/memory.stat") or ""
                files = re.findall(rf"^{total}(?:in)?active_file (\d+)$", text, re.M)
                held = max(0, int(sizes[1]) - sum(map(int, files)))
                yield max(0, int(sizes[0]) - held)

    def _groups(self, controller: str) -> Iterator[str]:
        """Yield the folders of this process's group of a controller, and above."""
        for line in (self._text("proc/self/cgroup") or "").splitlines():
            controllers, _, path = line.partition(":")[2].partition(":")
            if not controllers:  # cgroup 2, alone or beside cgroup 1
                mounts = ["unified", "."]
            elif controller in controllers.split(","):
                mounts = [controller, controllers]
            else:
                continue
            tops = [Path("sys/fs/cgroup") / mount for mount in mounts]
            # Inside a container its own group may be mounted as the top.
            inside = Path(path.lstrip("/"))
            for top in [t for t in tops if (self._root / t).is_dir()][:1]:
                for folder in (inside, *inside.parents):
                    if (self._root / top / folder).is_dir():
                        yield str(top / folder)

    # --- texts -----------------------------------------------------------------------

    def _of_cores(self, pattern: str) -> Iterator[str]:
        for file in sorted((self._root / _CPU).glob(f"cpu[0-9]*/{pattern}")):
            text = self._text(str(file.relative_to(self._root)))
            if text:
                yield text

    def _numbers_of_cores(self, pattern: str) -> list[int]:
        texts = self._of_cores(pattern)  # may be "<unknown>"
        return [int(text) for text in texts if text.isdecimal()]

    def _numbers(self, file: str, line: str) -> list[int]:
        """Return the numbers of a line, none where it is absent."""
        found = re.search(line, self._text(file) or "", re.MULTILINE)
        return [int(word) for word in found[1].split()] if found else []

    def _text(self, file: str) -> str | None:
        try:
            return (self._root / file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
