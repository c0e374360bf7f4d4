"""The highest rates of libraries here: measured after a session, or by `doctor`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from harness.files.opening import read_file
from harness.files.text import MOST_JSON_BYTES, has_seal, parse_object, sealed
from harness.machine.cache import user_cache
from harness.machine.facts import processor
from harness.machine.gpu import gpu_names, index_of
from harness.machine.peak import Peak, Rate, best_of
from harness.registry import Registry
from harness.store import to_json, write_atomically
from harness.trial import Conditions, Trial


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

    def best(self, trials: Iterable[Trial], machine: str) -> dict[Conditions, Peak]:
        """Return the highest rates of the trials' libraries, or of `doctor` if higher.

        Args:
            trials: The trials whose libraries are measured.
            machine: How fit the machine is: "fit", "noisy" or "unfit".
        """
        found: dict[Conditions, Peak] = {}
        for trial in trials:
            key, peak = Conditions.of(trial), self._of(trial, machine)
            if peak is not None:
                known = found.get(key) or _kept(key)
                found[key] = best_of([peak] if known is None else [known, peak])
        return found

    def _of(self, trial: Trial, machine: str) -> Peak | None:
        framework = self._registry.framework_of(trial.implementation)
        # Frameworks that share a probe share a library.
        key = (framework.probe, Conditions.of(trial))
        if key not in self._known:
            peak = self._measure(trial)
            self._known[key] = peak and peak.of_library(framework.name, machine=machine)
        return self._known[key]


# --- what doctor found ---------------------------------------------------------------

_FILE = "peaks.json"
_TEXT = {str, type(None)}
_RATES = {"flop": "flop_per_s", "copy": "copy_bytes_per_s"}


def keep(peaks: Mapping[Conditions, Peak]) -> None:
    """Write peaks to the user's cache, where they replace earlier ones.

    Does nothing without a cache.
    """
    folder = user_cache()
    if folder is None:
        return
    kept = {name_in_cache(key): _to_cache(peak) for key, peak in peaks.items()}
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _FILE, sealed(to_json({**_read(), **kept})))


def name_in_cache(of: Conditions) -> str:
    """Return the name of a peak in the cache, with the name of the hardware."""
    index, gpus = index_of(of.device), gpu_names() if of.device != "cpu" else []
    gpu = f" {gpus[index]}" if index < len(gpus) else ""
    return (
        f"{processor()}{gpu}: {of.device}, {of.threads} threads, "
        f"{of.dtype} {of.precision}"
    )


def _to_cache(peak: Peak) -> dict[str, Any]:
    rates = {name: asdict(getattr(peak, field)) for field, name in _RATES.items()}
    for rate in rates.values():
        del rate["size"]
    return rates


def _kept(key: Conditions) -> Peak | None:
    """Return the peak that `doctor` kept, or None."""
    try:
        known = _read()[name_in_cache(key)]
        return Peak(**{f: _from_cache(known[name]) for f, name in _RATES.items()})
    except (TypeError, ValueError, KeyError):  # there is none, or it is damaged
        return None


def _from_cache(values: Mapping[str, Any]) -> Rate:
    per_s, library = float(values["per_s"]), f"{values['library']}, doctor"
    if {type(values.get(n)) for n in ("versions", "measured_at", "machine")} - _TEXT:
        raise TypeError("a name is not text")
    return replace(Rate(**values), per_s=per_s, library=library)


def _read() -> dict[str, Any]:
    folder = user_cache()
    try:
        content = read_file(folder / _FILE, MOST_JSON_BYTES) if folder else b"{}"
        has_seal(content)  # what an earlier version wrote has none
        return parse_object(content)
    except (OSError, ValueError):
        return {}
