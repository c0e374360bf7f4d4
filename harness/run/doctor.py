"""Say how fit this machine is for measuring, and how fast its libraries are."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from harness.errors import MisuseError
from harness.machine.devices import resolve_device
from harness.machine.facts import allowed_cores, describe_environment
from harness.machine.fitness import MachineFitness, fitness_of_machine
from harness.machine.gpu import gpu_names
from harness.machine.lock import measuring
from harness.machine.peak import Peak, Rate, RateName, best_of
from harness.registry import Registry
from harness.run.engine.peaks import keep
from harness.run.engine.pool import WorkerPool
from harness.run.job import Limits
from harness.run.worker.log import Write
from harness.trial import Conditions, Trial

LIMIT_S = 300.0
"""Time limit of a worker that imports a framework and measures its peak."""


@dataclass(frozen=True)
class LibraryPeak:
    """The highest rates of one library under the same conditions.

    Attributes:
        versions: The versions, such as "torch 2.13.0".
        peak: The rates, or None if they could not be measured; `reason` says why.
    """

    framework: str
    versions: str
    conditions: Conditions
    peak: Peak | None
    reason: str | None = None

    @property
    def place(self) -> tuple[str, int]:
        """The device and the number of threads."""
        return self.conditions.device, self.conditions.threads

    def rate(self, name: RateName) -> Rate | None:
        """Return one of the rates, or None if there is no peak."""
        return None if self.peak is None else self.peak.rate(name)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        on = {k: v for k, v in vars(self.conditions).items() if k != "machine"}
        what = {"framework": self.framework, "versions": self.versions, **on}
        return {
            **what,
            "peak": self.peak and self.peak.to_json(),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` found.

    Attributes:
        environment: The machine, the libraries and the commit.
        peaks: The peaks in the order in which they were measured.
    """

    environment: Mapping[str, Any]
    fitness: MachineFitness
    peaks: tuple[LibraryPeak, ...] = ()

    def best(self, place: tuple[str, int], name: RateName) -> LibraryPeak | None:
        """Return the library with the highest rate, or None if no library has one."""
        rates = {
            rate.per_s: found
            for found in self.peaks
            if found.place == place
            if (rate := found.rate(name)) is not None
        }
        return rates[max(rates)] if rates else None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "environment": dict(self.environment),
            "fitness": self.fitness.to_json(),
            "peaks": [found.to_json() for found in self.peaks],
        }


def devices_of(asked: str) -> tuple[str, ...]:
    """Return the devices to measure: `auto` is the CPU and, if present, the first GPU.

    Raises:
        MisuseError: If the name is unknown or there is no such device.
    """
    if asked == "auto":
        return ("cpu", "cuda:0") if gpu_names() else ("cpu",)
    return (resolve_device(asked),)


def threads_of(asked: str | None) -> tuple[int, ...]:
    """Return the counts of threads in "1,2"; by default one, and all cores.

    Raises:
        MisuseError: If a count is not a number from 1 to the cores that may be used.
    """
    cores = allowed_cores()
    if asked is None:
        return tuple(dict.fromkeys((1, cores)))
    counts = []
    for word in asked.split(","):
        if not re.fullmatch(r"\s*\d{1,6}\s*", word) or not 1 <= int(word) <= cores:
            raise MisuseError(
                f"--threads {asked}: '{word.strip()}' is not a count of threads; "
                f"give counts from 1 to {cores}, the cores that this process may use, "
                "joined by commas, e.g. 1,2"
            )
        counts.append(int(word))
    return tuple(dict.fromkeys(counts))


def diagnose(
    registry: Registry,
    devices: Sequence[str],
    threads: Sequence[int],
    *,
    report: Callable[[str], None],
    log: Write,
    peaks: bool = True,
) -> Diagnosis:
    """Watch the machine and measure every installed library, with nothing beside it.

    Args:
        registry: Its frameworks are measured.
        devices: `cpu` or `cuda:N`; the verdict is about the last one.
        threads: The counts of threads on the CPU.
        report: Called with a line before each step.
        log: Called with what frameworks print.
        peaks: False to return only the verdict.
    """

    def waits(for_what: str | None) -> None:
        if for_what is not None:
            report(f"waiting for {for_what}")

    with measuring(alone=True, waits=waits, check=lambda: None):
        report("watching the machine")
        fitness = fitness_of_machine(devices[-1])
        measured = []
        for device, count in _places(devices, threads) if peaks else ():
            for framework, name in _libraries(registry, device):
                report(f"measuring {framework} on {place_words(device, count)}")
                cell = registry.implementation(name).cells[0]
                trial = Trial("parity", name, cell, device=device, threads=count)
                measured.append(_peak(registry, trial, log))
    keep(_best(measured, fitness.verdict))
    environment = describe_environment(registry.distributions)
    return Diagnosis(environment, fitness, tuple(measured))


def _best(measured: Sequence[LibraryPeak], machine: str) -> dict[Conditions, Peak]:
    """Return the highest rates of all libraries, each with its library and the date."""
    found: dict[Conditions, list[Peak]] = {}
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    for each in measured:
        if each.peak is not None:
            peak = each.peak.of_library(
                each.framework, versions=each.versions, measured_at=now, machine=machine
            )
            found.setdefault(each.conditions, []).append(peak)
    return {key: best_of(peaks) for key, peaks in found.items()}


def _places(devices: Sequence[str], threads: Sequence[int]) -> list[tuple[str, int]]:
    return [(d, count) for d in devices for count in (threads if d == "cpu" else (1,))]


def place_words(device: str, threads: int) -> str:
    """Return "cpu, 2 threads", or a GPU's name alone."""
    if device != "cpu":
        return device
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}"


def _libraries(registry: Registry, device: str) -> Iterator[tuple[str, str]]:
    """Yield each installed framework with a probe, and an implementation of it.

    Frameworks that share a probe, as JAX and Keras on JAX, have one library.
    """
    seen = set()
    for name, declared in registry.implementations.items():
        framework = registry.framework_of(name)
        if framework.probe is None or framework.probe in seen or not declared.cells:
            continue
        if device.split(":")[0] not in declared.devices or registry.unavailable(name):
            continue
        seen.add(framework.probe)
        yield framework.name, name


def _peak(
    registry: Registry, trial: Trial, log: Callable[[bytes], None]
) -> LibraryPeak:
    """Measure a trial's library in a worker of its own, which ends afterwards."""
    with closing(WorkerPool(registry, Limits(timeout_s=LIMIT_S), log)) as pool:
        try:
            found = pool.peak(trial)
        except KeyboardInterrupt:  # a worker would go on importing its framework
            pool.stop(now=True)
            raise
    framework = registry.framework_of(trial.implementation)
    what = (framework.name, registry.versions_of(framework), Conditions.of(trial))
    if isinstance(found, Peak):
        return LibraryPeak(*what, found)
    return LibraryPeak(*what, None, f"{found.outcome}: {found.reason}")
