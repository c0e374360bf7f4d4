"""What the files in which Linux describes itself say about a machine.

All files are read below one folder, so that tests can make a machine of files. A value
that cannot be read is None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CPU = "sys/devices/system/cpu"


class System:
    """The files in which Linux describes itself.

    Args:
        root: The folder that holds `proc` and `sys`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def counters(self) -> dict[str, int]:
        """Return the counters: steal and all ticks, swaps, stops, throttling."""
        found: dict[str, int] = {}
        ticks = self._numbers("proc/stat", r"^cpu +([\d ]+)$")
        if len(ticks) >= 8:
            # guest time is part of user time
            found |= {"steal": ticks[7], "total": sum(ticks[:8])}
        counts = {
            "swap_ins": self._numbers("proc/vmstat", r"^pswpin (\d+)$"),
            "swap_outs": self._numbers("proc/vmstat", r"^pswpout (\d+)$"),
            "quota_stops": [
                count
                for group in self._groups("cpu")
                for count in self._numbers(f"{group}/cpu.stat", r"^nr_throttled (\d+)$")
            ],
            "throttled": self._numbers_of_cores("thermal_throttle/*_throttle_count"),
        }
        return found | {name: sum(each) for name, each in counts.items() if each}

    def clock_hz(self) -> float | None:
        """Return the highest clock of a core now; None on most virtual machines."""
        clocks = [1e3 * k for k in self._numbers_of_cores("cpufreq/scaling_cur_freq")]
        if not clocks and "hypervisor" not in self.cpuinfo("flags").split():
            text = self._text("proc/cpuinfo") or ""
            found = re.findall(r"^cpu MHz\s*: ([\d.]+)$", text, re.MULTILINE)
            clocks = [1e6 * float(number) for number in found]
        return max(clocks, default=None)

    def settings(self) -> dict[str, Any]:
        """Return the values that are not counters: cores, quota, load, swap, clock."""
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
        total, free = (self._kib("proc/meminfo", f"Swap{n}") for n in ("Total", "Free"))
        return None if total is None or free is None else total - free

    def available_bytes(self) -> int | None:
        """Return the free memory within the limits of this process's control groups."""
        free = [self.memory_left_bytes(), self._kib("proc/meminfo", "MemAvailable")]
        return min((count for count in free if count is not None), default=None)

    def own_bytes(self, name: str) -> int | None:
        """Return an entry of this process's status, such as `VmRSS`."""
        return self._kib("proc/self/status", name)

    def _kib(self, file: str, name: str) -> int | None:
        found = self._numbers(file, rf"^{name}:\s*(\d+) kB$")
        return 1024 * found[0] if found else None

    def last_level_cache_bytes(self) -> int:
        """Return the size of the largest cache of the first core; 0 if not known."""
        units = {"": 1, "K": 2**10, "M": 2**20}
        texts = self._of_cores("cache/index*/size", "cpu0")
        found = (re.fullmatch(r"(\d+)([KM]?)", text) for text in texts)
        return max((int(f[1]) * units[f[2]] for f in found if f), default=0)

    def cpuinfo(self, name: str) -> str:
        """Return the first entry of that name on a processor, or ""."""
        text = self._text("proc/cpuinfo") or ""
        found = re.search(rf"^(?:{name})\s*:\s*(.+)$", text, re.MULTILINE)
        return found[1].strip() if found else ""

    def _boost(self) -> bool | None:
        for file, on in (("intel_pstate/no_turbo", "0"), ("cpufreq/boost", "1")):
            text = self._text(f"{_CPU}/{file}")
            if text is not None:
                return text == on
        return None

    # --- control groups --------------------------------------------------------------

    def _quota_cores(self, cores: int | None) -> float | None:
        """Return the smallest quota of this process's control groups."""
        if self._text("proc/self/cgroup") is None:
            return None
        quotas = [] if cores is None else [float(cores)]
        for folder in self._groups("cpu"):
            # cgroup 2: "150000 100000" or "max 100000"; cgroup 1: two files, or -1
            words = (self._text(f"{folder}/cpu.max") or "").split()
            if not words:
                files = (f"{folder}/cpu.cfs_{n}_us" for n in ("quota", "period"))
                words = [self._text(file) or "" for file in files]
            if all(word.isdecimal() and int(word) > 0 for word in words):
                quotas.append(int(words[0]) / int(words[1]))
        return min(quotas, default=None)

    def memory_left_bytes(self) -> int | None:
        """Return the memory that this process's control groups may still take.

        It is None without a limit. Cached files count as free, because the system drops
        them first.
        """
        groups = self._groups("memory")
        left = [count for folder in groups for count in self._left_bytes(folder)]
        return min(left, default=None)

    def _left_bytes(self, folder: str) -> Iterator[int]:
        # cgroup 2 says "max" for no limit; cgroup 1 has totals with the groups below
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
        """Yield the folder of this process's group of a controller, and its parents."""
        for line in (self._text("proc/self/cgroup") or "").splitlines():
            controllers, _, path = line.partition(":")[2].partition(":")
            if not controllers:  # cgroup 2, alone or together with cgroup 1
                mounts = ["unified", "."]
            elif controller in controllers.split(","):
                mounts = [controller, controllers]
            else:
                continue
            tops = [Path("sys/fs/cgroup") / mount for mount in mounts]
            # Inside a container its own group may be mounted as the root.
            inside = Path(path.lstrip("/"))
            for top in [t for t in tops if (self._root / t).is_dir()][:1]:
                for folder in (inside, *inside.parents):
                    if (self._root / top / folder).is_dir():
                        yield str(top / folder)

    # --- texts -----------------------------------------------------------------------

    def _of_cores(self, pattern: str, cores: str = "cpu[0-9]*") -> Iterator[str]:
        for file in sorted((self._root / _CPU).glob(f"{cores}/{pattern}")):
            text = self._text(str(file.relative_to(self._root)))
            if text:
                yield text

    def _numbers_of_cores(self, pattern: str) -> list[int]:
        texts = self._of_cores(pattern)  # a text may be "<unknown>"
        return [int(text) for text in texts if text.isdecimal()]

    def _numbers(self, file: str, line: str) -> list[int]:
        """Return the numbers of a line; empty without such a line."""
        found = re.search(line, self._text(file) or "", re.MULTILINE)
        return [int(word) for word in found[1].split()] if found else []

    def _text(self, file: str) -> str | None:
        try:
            return (self._root / file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
