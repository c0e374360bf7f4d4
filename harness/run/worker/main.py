"""A process that answers measures, one framework to a process.

It reads requests from standard input and answers on a pipe of its own; whatever a
plugin prints goes to the log. Requests:

- `measure` {trial, start} with arrays: events and checkpoints as they come, then one
  `result`;
- `open` {trial}: makes a speed meter; answers its phases;
- `warm` {trial}: takes their first calls, and goes on until they are stationary;
- `turn` {trial, phase, round}: times one turn;
- `close` {trial}: answers the meter's `result`;
- `probe` {trial}: builds a network of the trial's cell and answers;
- `peak` {trial}: measures what the framework's library reaches on the trial's device,
  and answers a `result` with it.

SIGUSR1 asks a learning trial to checkpoint itself and end as `stopped`.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import faulthandler
import gc
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from harness.contract import Inputs, NetworkSpec, Readout, Target, Weights
from harness.errors import RefusedError
from harness.loading import build_network, load_cell, load_probe
from harness.machine.facts import framework_versions, machine_name, processor
from harness.machine.gpu import VISIBLE, gpu_name
from harness.machine.peak import measure_peak
from harness.machine.pinning import pinned_variables
from harness.measure.certificate.certify import measure_parity
from harness.measure.gradients import measure_gradients
from harness.measure.learning.training import Observer, measure_learning
from harness.measure.memory import (
    DeviceMemory,
    Gauge,
    ResidentMemory,
    measure_memory,
)
from harness.measure.problem import Measurement, Problem, by_reference
from harness.measure.speed.meter import SpeedMeter
from harness.registry import Registry
from harness.run.worker.outcome import outcome_of
from harness.run.worker.pipe import Message, receive, send
from harness.trial import Trial

_PR_SET_CHILD_SUBREAPER = 36


class Worker:
    """Answers requests with the plugins of one registry."""

    def __init__(self, registry: Registry, answers: IO[bytes]) -> None:
        self._registry = registry
        self._answers = answers
        self._meters: dict[str, tuple[Trial, SpeedMeter]] = {}
        self._spent_s: dict[str, float] = {}
        self._stop = False

    def answer(self, request: Message) -> None:
        """Answer one request; an error is an answer too."""
        command = request.values["command"]
        key = str(request.values["id"])
        start_s = time.perf_counter() - self._spent_s.pop(key, 0.0)
        try:
            if command == "measure":
                trial = _trial(request)
                found = self._measure(trial, request)
                self._result(trial, found, time.perf_counter() - start_s)
            elif command == "open":
                trial = _trial(request)
                if self._meters.pop(key, None):  # of a session that is started again
                    gc.collect()
                meter = SpeedMeter(Problem(self._registry, trial))
                self._meters[key] = (trial, meter)
                self._send({"kind": "opened", "phases": list(meter.phases)})
            elif command == "warm":
                _, meter = self._meters[key]
                meter.warm_up()
                self._send({"kind": "warmed"})
            elif command == "turn":
                _, meter = self._meters[key]
                values = request.values
                readings = meter.turn(values["phase"], values["round"])
                self._send({"kind": "turned", "readings_s": readings})
            elif command == "probe":
                self._build(_trial(request))
                self._send({"kind": "probed"})
            elif command == "peak":
                self._peak(_trial(request))
            else:
                trial, meter = self._meters.pop(key)
                found = meter.finish()
                self._result(trial, found, time.perf_counter() - start_s)
            if key in self._meters:
                self._spent_s[key] = time.perf_counter() - start_s
        except (Exception, SystemExit) as error:
            self._meters.pop(key, None)
            outcome, reason = outcome_of(error)
            self._send({"kind": "error", "outcome": outcome, "reason": reason})

    def _build(self, trial: Trial) -> None:
        """Build the smallest network of a trial: its plugin, its framework, load."""
        spec = NetworkSpec(
            cell=trial.cell,
            inputs=Inputs("reals", 1),
            hidden_size=1,
            output_size=1,
            readout=Readout.LAST,
            target=Target.REAL,
            dtype=trial.dtype,
        )
        cell = load_cell(self._registry, trial.cell)
        build_network(self._registry, trial.implementation, spec, cell, trial.device)

    def _peak(self, trial: Trial) -> None:
        """Answer the best rates in a trial's dtype and precision, on its device."""
        framework = self._registry.framework_of(trial.implementation).name
        probe = load_probe(self._registry, framework, trial.device)
        if probe is None:
            raise RefusedError(f"the framework '{framework}' declares no probe")
        peak = measure_peak(probe, trial.dtype, trial.precision)
        facts = {"peak": peak.to_json()}
        self._send({"kind": "result", "outcome": "ok", "reason": None, "facts": facts})

    def stop(self) -> None:
        """Have the learning trial at hand, and those to come, end at a checkpoint."""
        self._stop = True

    def _measure(self, trial: Trial, request: Message) -> Measurement:
        if trial.measure == "parity":
            return measure_parity(self._registry, trial)
        if trial.measure == "memory":
            return measure_memory(self._registry, trial, self._gauges)
        problem = Problem(self._registry, trial)
        if trial.measure == "gradients":
            # No trained weights come with a trial that follows no learning.
            return measure_gradients(problem, dict(request.arrays) or None)
        return measure_learning(problem, self._observer(trial, request))

    def _gauges(self, problem: Problem) -> list[Gauge]:
        """Return what tells memory: this process's, and its device's."""
        found: list[Gauge] = [ResidentMemory()]
        if problem.trial.device != "cpu" and (probe := problem.probe()) is not None:
            found.append(DeviceMemory(probe))
        return found

    def _observer(self, trial: Trial, request: Message) -> Observer:
        """Return what a learning trial tells of itself, and asks, while it runs."""
        here = self._environment(trial)
        start = request.values["start"]
        fits = start is not None and start["environment"] == here
        self._send({"kind": "begins", "resumed": fits})

        def checkpoint(state: Mapping[str, Any], arrays: Weights) -> None:
            values = {"kind": "checkpoint", "state": {**state, "environment": here}}
            self._send(values, arrays)

        return Observer(
            emit=lambda r: self._send({"kind": "event", "reading": r.to_json()}),
            checkpoint=checkpoint,
            checkpoint_s=request.values["checkpoint_s"],
            is_stopped=lambda: self._stop,
            start=(start, request.arrays) if fits else None,
        )

    def _environment(self, trial: Trial) -> dict[str, Any]:
        """Return what a trial's values may depend on beside itself, to the last bit."""
        framework = self._registry.framework_of(trial.implementation)
        if by_reference(self._registry, trial):
            framework = self._registry.frameworks["numpy"]
        return {
            "framework": framework_versions(framework.name, framework.distributions),
            "numpy": np.__version__,
            "processor": processor(),
            **({} if trial.device == "cpu" else {"gpu": gpu_name()}),
            "pinned": {
                n: os.environ.get(n) for n in pinned_variables(1) if n != VISIBLE
            },
        }

    def _result(self, trial: Trial, found: Measurement, compute_time_s: float) -> None:
        facts = {
            **self._environment(trial),
            "machine": machine_name(),
            "visible_devices": os.environ.get(VISIBLE),
            "python": platform.python_version(),
            "compute_time_s": compute_time_s,
            "worker": os.getpid(),
            **found.facts,
            "quantities": {
                name: dataclasses.asdict(q) for name, q in found.quantities.items()
            },
        }
        self._send(
            {
                "kind": "result",
                "outcome": found.outcome,
                "reason": found.reason,
                "facts": facts,
                "readings": [reading.to_json() for reading in found.readings],
            },
            found.arrays,
        )

    def _send(self, values: Mapping[str, Any], arrays: Weights | None = None) -> None:
        with contextlib.suppress(OSError, ValueError):  # what is printed comes first
            sys.stdout.flush()
        send(self._answers, Message(values, arrays or {}))


def _trial(request: Message) -> Trial:
    """Return the trial of a request on the one device that this process sees."""
    trial = Trial.from_json(request.values["trial"])
    return trial if trial.device == "cpu" else replace(trial, device="cuda:0")


def _adopt_orphans() -> None:
    """Have a plugin's orphans become this process's children, to end with it."""
    with contextlib.suppress(OSError, AttributeError):  # Linux alone can do this
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> None:
    """Serve requests until the other side closes; plugin files are the arguments."""
    faulthandler.enable()  # a crash in C tells the log where it was called from
    _adopt_orphans()
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a plugin prints must not end up between two answers
    registry = Registry.discover(Path(file) for file in sys.argv[1:])
    worker = Worker(registry, answers)
    signal.signal(signal.SIGUSR1, lambda *_: worker.stop())
    send(answers, Message({"kind": "ready"}))
    while (request := receive(requests)) is not None:
        worker.answer(request)


if __name__ == "__main__":
    main()
