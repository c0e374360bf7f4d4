"""What a session's numbers need beside them: was the machine fit, what can it reach?"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import psutil

from harness.machine.cache import user_cache
from harness.machine.facts import processor
from harness.machine.fitness import Fitness, judge
from harness.machine.gpu import gpu_names, look_at_gpu
from harness.machine.peak import Peak
from harness.machine.watch import WATCH_S, watch_machine
from harness.registry import Registry
from harness.store import to_json, write_atomically
from harness.trial import Trial


class Rate(NamedTuple):
    """A rate that a library reached.

    Attributes:
        versions: As "torch 2.13.0"; None where the trials beside it tell.
        measured_at: In UTC, where another command measured it.
        machine: How fit the machine was: "fit", "noisy", "unfit".
    """

    per_s: float
    library: str
    versions: str | None = None
    measured_at: str | None = None
    machine: str | None = None


Best = dict[str, Rate]
"""The highest rates, by name."""

_RATES = ("flop_per_s", "copy_bytes_per_s")

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


def fitness_before(trials: Iterable[Trial]) -> Mapping[str, Any]:
    """Return as JSON values how fit the machine is for a session of trials."""
    devices = [trial.device for trial in trials]
    device = next((d for d in devices if d != "cpu"), "cpu")
    return fitness_of_machine(device, SESSION_WATCH_S).to_json()


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
        self._known: dict[tuple[object, ...], tuple[Peak | None, str | None]] = {}

    def facts(
        self, trials: Iterable[Trial], machine: str | None
    ) -> Mapping[tuple[object, ...], Any]:
        """Return by `place_of` the best rates there, and which libraries reach them.

        Args:
            trials: Whose libraries are asked, once each.
            machine: How fit it was before the session.
        """
        found: dict[tuple[object, ...], Best] = {}
        for trial in trials:
            framework, peak, then = self._of(trial, machine)
            if peak is None:
                continue
            best = found.setdefault(place_of(trial), self._remembered(trial))
            raise_to(best, peak, Rate(0.0, framework, machine=then))
        return {
            place: _facts("flop", best["flop_per_s"])
            | _facts("copy_bytes", best["copy_bytes_per_s"])
            for place, best in found.items()
        }

    @staticmethod
    def _remembered(trial: Trial) -> Best:
        """Return what `doctor` found there, with libraries that no trial here uses."""
        known = _read().get(_name(*place_of(trial)), {})
        found: Best = {}
        with contextlib.suppress(TypeError, ValueError, KeyError):  # not doctor's
            for rate in _RATES:
                each = Rate(**known[rate])
                by = f"{each.library}, doctor"
                found[rate] = each._replace(per_s=float(each.per_s), library=by)
        return found

    def _of(
        self, trial: Trial, machine: str | None
    ) -> tuple[str, Peak | None, str | None]:
        framework = self._registry.framework_of(trial.implementation)
        # Frameworks that share a probe share a library.
        key = (framework.probe, *place_of(trial))
        if key not in self._known:
            self._known[key] = self._ask(trial), machine
        return (framework.name, *self._known[key])


def raise_to(best: Best, peak: Peak, by: Rate) -> None:
    """Put a library's rates in where they are the highest; `by` tells the rest."""
    for name in _RATES:
        rate = by._replace(per_s=float(getattr(peak, name)))
        best[name] = max(best.get(name, rate), rate, key=lambda each: each.per_s)


def _facts(name: str, rate: Rate) -> dict[str, Any]:
    """Return a rate as a trial's result holds it; what is not told is left out."""
    kind = name.partition("_")[0]
    told = {
        f"{name}_per_s": rate.per_s,
        f"{kind}_by": rate.library,
        f"{kind}_versions": rate.versions,
        f"{kind}_measured_at": rate.measured_at,
        f"{kind}_machine": rate.machine,
    }
    return {key: value for key, value in told.items() if value is not None}


def place_of(trial: Trial) -> tuple[object, ...]:
    """Return what a peak holds for: device, threads, dtype and precision."""
    return (trial.device, trial.threads, trial.dtype, trial.precision)


# --- what doctor found ---------------------------------------------------------------


def remember(found: Mapping[tuple[object, ...], Best]) -> None:
    """Keep the best rates by `place_of` in the user's cache, for this machine.

    They replace those of the same place; where there is no cache, nothing is kept.
    """
    folder = user_cache()
    if folder is None:
        return
    rates = {
        _name(*place): {name: rate._asdict() for name, rate in best.items()}
        for place, best in found.items()
    }
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _FILE, to_json({**_read(), **rates}))


_FILE = "peaks.json"


def _read() -> dict[str, Any]:
    folder = user_cache()
    try:
        found = json.loads((folder / _FILE).read_text()) if folder else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _name(device: object, threads: object, dtype: object, precision: object) -> str:
    """Return the name of a place on this machine, as its hardware goes."""
    index = int(str(device).partition(":")[2] or 0)
    gpus = gpu_names() if device != "cpu" else []
    gpu = f" {gpus[index]}" if index < len(gpus) else ""
    return f"{processor()}{gpu}: {device}, {threads} threads, {dtype} {precision}"
