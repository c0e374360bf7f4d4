"""What a session's numbers need beside them: was the machine fit, what can it reach?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import psutil

from harness.measure.fitness import Fitness, judge
from harness.measure.gpu import look_at_gpu
from harness.measure.machine import WATCH_S, watch_machine
from harness.measure.peak import Peak
from harness.registry import Registry
from harness.trial import Trial

SESSION_WATCH_S = 0.5
"""How long the machine is watched before each session."""


def fitness_of_machine(device: str = "cpu", watch_s: float = WATCH_S) -> Fitness:
    """Watch this machine while a small piece of work is repeated.

    Nothing is locked, so whoever calls has seen to it that the machine is quiet.

    Args:
        device: What is to be measured on, `cpu` or `cuda:N`.
        watch_s: For how long.
    """
    gpu = None
    if device != "cpu":
        gpu = look_at_gpu(int(device.partition(":")[2] or 0), _own_processes())
    return judge(watch_machine(duration_s=watch_s), gpu)


def _own_processes() -> list[int]:
    own = psutil.Process()
    return [own.pid, *(child.pid for child in own.children(recursive=True))]


class Peaks:
    """The best rates of the libraries that trials are computed with, each asked once.

    Args:
        registry: Knows the framework of each trial.
        ask: Measures the peak of a trial's framework, or says None.
    """

    def __init__(self, registry: Registry, ask: Callable[[Trial], Peak | None]) -> None:
        self._registry, self._ask = registry, ask
        self._known: dict[tuple[object, ...], Peak | None] = {}

    def facts(self, trials: Iterable[Trial]) -> Mapping[tuple[object, ...], Any]:
        """Return by `place_of` the best rates there, and which libraries reach them."""
        found: dict[tuple[object, ...], dict[str, tuple[float, str]]] = {}
        for trial in trials:
            framework, peak = self._of(trial)
            if peak is None:
                continue
            best = found.setdefault(place_of(trial), {})
            for name in ("flop_per_s", "copy_bytes_per_s"):
                rate = (float(getattr(peak, name)), framework)
                best[name] = max(best.get(name, rate), rate)
        return {
            place: {
                "flop_per_s": best["flop_per_s"][0],
                "flop_by": best["flop_per_s"][1],
                "copy_bytes_per_s": best["copy_bytes_per_s"][0],
                "copy_by": best["copy_bytes_per_s"][1],
            }
            for place, best in found.items()
        }

    def _of(self, trial: Trial) -> tuple[str, Peak | None]:
        framework = self._registry.framework_of(trial.implementation)
        # Frameworks that share a probe share a library.
        key = (framework.probe, *place_of(trial))
        if key not in self._known:
            self._known[key] = self._ask(trial)
        return framework.name, self._known[key]


def place_of(trial: Trial) -> tuple[object, ...]:
    """Return what a peak holds for: device, threads, dtype and precision."""
    return (trial.device, trial.threads, trial.dtype, trial.precision)
