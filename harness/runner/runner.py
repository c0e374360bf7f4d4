"""What a judging process may ask of implementations, wherever they run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, cast

from harness.contract import (
    DeviceProbe,
    NetworkSpec,
    State,
    TrainableNetwork,
)
from harness.errors import PluginError, RefusedError, UnavailableError
from harness.loading import build_network, import_built_in, load_cell, load_probe
from harness.machine.functions import Holder, imported
from harness.machine.peak import Peak, measure_peak
from harness.machine.process_state import ProcessState
from harness.machine.threads import Threads
from harness.registry import Registry
from harness.runner.gauges import DeviceMemory, Gauge, Gauges, ResidentMemory
from harness.runner.given import GuardedNetwork, own
from harness.runner.remote import RemoteGauges, RemoteStopwatch
from harness.runner.returned import Form
from harness.runner.stopwatch import Stopwatch

Settings = Callable[[], Mapping[str, Any]]
"""Returns values by name that a framework shares."""

AnyStopwatch = Stopwatch | RemoteStopwatch
AnyGauges = Gauges | RemoteGauges
"""A stopwatch or gauges, in this process or in a runner."""


class Runner(Protocol):
    """Where networks of implementations live.

    Attributes:
        written: A sentence for each array that a network was given and wrote into.
    """

    written: list[str]

    def network(
        self, implementation: str, spec: NetworkSpec, device: str
    ) -> TrainableNetwork:
        """Build a network, which gets copies of all that it is given.

        If the implementation only infers, the network computes no gradients.

        Raises:
            UnavailableError: If its framework or the device is not there.
            PluginError: If it cannot be loaded or a method is wrong.
        """

    def stopwatch(
        self, implementation: str, network: TrainableNetwork, start: State, device: str
    ) -> AnyStopwatch:
        """Return a stopwatch for a network."""

    def gauges(self, implementation: str, device: str) -> AnyGauges:
        """Return gauges of the runner's memory; what it holds now counts as zero."""

    def peak(
        self, implementation: str, device: str, dtype: str, precision: str
    ) -> Peak:
        """Measure the highest rates of an implementation's framework on a device."""

    def begin(self) -> None:
        """Forget what is left of earlier trials."""

    def changes(self, asked: str) -> dict[str, list[str]]:
        """Return what code of implementations has changed of the runner's process.

        Args:
            asked: Who was asked since this was last called.

        Returns:
            The changes by who made them, `asked` or somebody before.
        """


class InProcess:
    """A runner in this process, for a process that judges nothing, and for tests.

    Args:
        registry: Every plugin.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.written: list[str] = []
        self._compared: tuple[list[Holder], Settings] = [], dict
        self._before: ProcessState | None = None
        self._threads = Threads(children=True)

    def network(
        self, implementation: str, spec: NetworkSpec, device: str
    ) -> TrainableNetwork:
        """Build a network here, behind a guard."""
        self._look(implementation, device)
        cell = load_cell(self._registry, spec.cell)
        built = build_network(self._registry, implementation, spec, cell, device)
        form = Form(spec, cell)
        trainable = cast(TrainableNetwork, built)
        return GuardedNetwork(trainable, self.written.append, form)

    def stopwatch(
        self, implementation: str, network: TrainableNetwork, start: State, device: str
    ) -> Stopwatch:
        """Return a stopwatch for a network."""
        form = network.form if isinstance(network, GuardedNetwork) else None
        probe = self._usable_probe(implementation, device)
        return Stopwatch(own(network), start, probe, form)

    def gauges(self, implementation: str, device: str) -> Gauges:
        """Return gauges of this process and, on a GPU, of its memory."""
        self._look(implementation, device)
        every: list[Gauge] = [ResidentMemory()]
        if device != "cpu" and (probe := self.probe(implementation, device)):
            every.append(DeviceMemory(probe))
        return Gauges(every)

    def peak(
        self, implementation: str, device: str, dtype: str, precision: str
    ) -> Peak:
        """Measure the highest rates of a framework that declares a probe."""
        probe = self.probe(implementation, device)
        assert probe is not None  # nobody asks a framework without one
        return measure_peak(probe, dtype, precision)

    def probe(self, implementation: str, device: str) -> DeviceProbe | None:
        """Return the probe of an implementation's framework, or None without one."""
        framework = self._registry.framework_of(implementation).name
        return load_probe(self._registry, framework, device)

    def begin(self) -> None:
        """Forget what earlier networks wrote into."""
        self.written.clear()

    def changes(self, asked: str) -> dict[str, list[str]]:
        """Return what code of implementations has changed since this was last asked.

        It is said once, so that nobody is blamed for what another has changed before.
        """
        if self._before is None:
            return {}
        found: dict[str, list[str]] = {}
        if changes := self._before.changes():
            found[asked] = changes
            self._before = ProcessState(*self._compared)
        for left in self._threads.left_computing(asked):
            found.setdefault(left.asked, []).append(left.what)
        self._threads.accept()
        return found

    def _look(self, implementation: str, device: str) -> None:
        """Remember the state of this process before a plugin's code runs in it.

        The framework and the code of this project are imported before.
        """
        if self._before is not None:
            return
        framework = self._registry.framework_of(implementation)
        for module in framework.modules:
            with suppress(Exception, SystemExit):  # building a network reports it
                importlib.import_module(module)
        import_built_in(self._registry, framework)
        probe = self._usable_probe(implementation, device)
        shared = [] if probe is None else probe.state().shared
        holders = [*imported(framework.modules), *shared]

        def settings() -> Mapping[str, Any]:
            return {} if probe is None else probe.state().settings

        self._compared = holders, settings
        self._before = ProcessState(*self._compared)
        self._threads = Threads(children=True)

    def _usable_probe(self, implementation: str, device: str) -> DeviceProbe | None:
        """Return the probe; on the CPU it is needed only for doubts, so it may fail."""
        unusable = (RefusedError, UnavailableError, PluginError)
        with suppress(*(unusable if device == "cpu" else ())):
            return self.probe(implementation, device)
        return None
