"""The highest rates of libraries here: measured after a session, or by `doctor`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from harness.machine.cache import user_cache
from harness.machine.facts import processor
from harness.machine.gpu import gpu_names
from harness.machine.peak import Peak, Rate, best_of
from harness.registry import Registry
from harness.store import to_json, write_atomically
from harness.trial import Trial


class PeakKey(NamedTuple):
    """What a peak on this machine was measured with."""

    device: str
    threads: int
    dtype: str
    precision: str

    @classmethod
    def of(cls, trial: Trial) -> PeakKey:
        """Return the key of the peak that a trial is compared with."""
        return cls(trial.device, trial.threads, trial.dtype, trial.precision)

    @property
    def name(self) -> str:
        """The key's name in the user's cache, with the name of the hardware."""
        index = int(self.device.partition(":")[2] or 0)
        gpus = gpu_names() if self.device != "cpu" else []
        gpu = f" {gpus[index]}" if index < len(gpus) else ""
        return (
            f"{processor()}{gpu}: {self.device}, {self.threads} threads, "
            f"{self.dtype} {self.precision}"
        )


class Peaks:
    """The peaks of the libraries that trials are computed with, each measured once.

    Args:
        registry: Knows the framework of each trial.
        measure: Measures the peak of a trial's framework; returns None if it has none.
    """

    def __init__(
        self, registry: Registry, measure: Callable[[Trial], Peak | None]
    ) -> None:
        self._registry, self._measure = registry, measure
        self._known: dict[tuple[object, ...], Peak | None] = {}

    def best(self, trials: Iterable[Trial], machine: str) -> dict[PeakKey, Peak]:
        """Return the highest rates of the trials' libraries, or of `doctor` if higher.

        Args:
            trials: The trials whose libraries are measured.
            machine: How fit the machine is: "fit", "noisy" or "unfit".
        """
        found: dict[PeakKey, Peak] = {}
        for trial in trials:
            key, peak = PeakKey.of(trial), self._of(trial, machine)
            if peak is not None:
                known = found.get(key) or _kept(key)
                found[key] = best_of([peak] if known is None else [known, peak])
        return found

    def _of(self, trial: Trial, machine: str) -> Peak | None:
        framework = self._registry.framework_of(trial.implementation)
        # Frameworks that share a probe share a library.
        key = (framework.probe, *PeakKey.of(trial))
        if key not in self._known:
            peak = self._measure(trial)
            self._known[key] = peak and peak.of_library(framework.name, machine=machine)
        return self._known[key]


# --- what doctor found ---------------------------------------------------------------

_FILE = "peaks.json"
_RATES = {"flop": "flop_per_s", "copy": "copy_bytes_per_s"}


def keep(peaks: Mapping[PeakKey, Peak]) -> None:
    """Write peaks to the user's cache, where they replace earlier ones.

    Does nothing without a cache.
    """
    folder = user_cache()
    if folder is None:
        return
    kept = {key.name: _to_cache(peak) for key, peak in peaks.items()}
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _FILE, to_json({**_read(), **kept}))


def _to_cache(peak: Peak) -> dict[str, Any]:
    rates = {name: asdict(getattr(peak, field)) for field, name in _RATES.items()}
    for rate in rates.values():
        del rate["size"]
    return rates


def _kept(key: PeakKey) -> Peak | None:
    """Return the peak that `doctor` kept, or None."""
    try:
        known = _read()[key.name]
        return Peak(**{f: _from_cache(known[name]) for f, name in _RATES.items()})
    except (TypeError, ValueError, KeyError):  # there is none, or it is damaged
        return None


def _from_cache(values: Mapping[str, Any]) -> Rate:
    per_s, library = float(values["per_s"]), f"{values['library']}, doctor"
    return replace(Rate(**values), per_s=per_s, library=library)


def _read() -> dict[str, Any]:
    folder = user_cache()
    try:
        found = json.loads((folder / _FILE).read_text()) if folder else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
