"""What a worker does: it answers requests about the trials of one framework.

It draws batches, computes the reference, compares and judges. The code of the
implementations runs in a runner, which is a process of its own. Each message of an
answer names the request that it answers. Requests:

- `measure` {trial, start} with arrays: sends events and checkpoints while it measures,
  then one `result`;
- `open` {trial}: makes a speed meter and answers its phases;
- `warm` {trial}: makes the first calls of all phases, and more until their time is
  stationary;
- `turn` {trial, phase, round}: times one turn;
- `close` {trial}: answers the meter's `result`;
- `probe` {trial}: builds a network of the trial's cell and answers;
- `peak` {trial}: measures the highest rates of the framework's library on the trial's
  device and answers them as a `result`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from harness.contract import Inputs, NetworkSpec, Readout, Target, Weights
from harness.errors import MOST_REASON, shortened
from harness.files.text import to_json
from harness.loading import import_built_in
from harness.machine.facts import machine_name, processor
from harness.machine.gpu import VISIBLE, gpu_name
from harness.machine.pinning import pinned_variables
from harness.machine.process_state import ProcessState
from harness.machine.threads import Threads
from harness.measure import MEASURES, MeasureInput, by_reference
from harness.measure.certificate.record import listed
from harness.measure.learning.training import Observer
from harness.measure.problem import Measurement, Problem
from harness.measure.speed.meter import SpeedMeter
from harness.messages.pipe import Message
from harness.registry import Registry
from harness.run.job import CHANGED
from harness.run.worker.outcome import outcome_of, outcome_of_runner
from harness.runner.process import RunnerDiedError
from harness.runner.runner import Runner
from harness.trial import Trial


class _ChangedJudgeError(Exception):
    """A cell or a task has changed the process that judges; the text says how."""


class Answers(Protocol):
    """Where a worker's answers go."""

    def send(self, message: Message) -> None:
        """Send a message."""


class Worker:
    """Answers requests with the plugins of one registry.

    Args:
        registry: Every plugin.
        channel: Where answers go.
        runner: Where the code of implementations runs.
    """

    def __init__(self, registry: Registry, channel: Answers, runner: Runner) -> None:
        self._registry = registry
        self._channel, self._runner = channel, runner
        self._meters: dict[str, SpeedMeter] = {}
        self._spent_s: dict[str, float] = {}
        self._changes: dict[str, list[str]] = {}
        self._implementations: dict[str, str] = {}
        self._stop = False
        self._request: str | None = None
        import_built_in(registry)
        self._before, self._threads = ProcessState(), Threads()

    def answer(self, request: Message) -> None:
        """Answer one request; an error is an answer too."""
        key = str(request.values["id"])
        self._request = request.values.get("request")
        self._implementations[key] = _trial(request).implementation
        self._runner.begin()
        begin_s = time.perf_counter() - self._spent_s.pop(key, 0.0)
        try:
            self._answer(request, key, begin_s)
        except _ChangedJudgeError as error:
            # Others must not be judged here, where they could be judged wrongly.
            self._send_error("refused", str(error), died=True)
        except RunnerDiedError as error:
            self._meters.clear()
            self._changes.clear()
            died = outcome_of_runner(error, _trial(request).implementation)
            self._send_error(*died, died=True)
        except BaseException as error:  # of a task or a cell: no user interrupts this
            self._meters.pop(key, None)
            self._changes.pop(key, None)
            self._send_error(*outcome_of(error), changed=self._changed(key))

    def _answer(self, request: Message, key: str, begin_s: float) -> None:
        found = self._obey(request, key)
        by_id = self._runner.changes(key)
        for id in by_id.keys() & {key, *self._meters}:
            self._changes.setdefault(id, []).extend(by_id[id])
        mine = self._before.changes()
        mine += [left.what for left in self._threads.left_computing()]
        if mine:
            raise _ChangedJudgeError(
                f"a cell or a task has changed {listed(mine, 3)} of the process that "
                "compares with the reference; it must leave the process as it was"
            )
        if isinstance(found, Measurement):
            took_s = time.perf_counter() - begin_s
            found_by = self._found_by(_trial(request)) | {"compute_time_s": took_s}
            found = _with_changes(found, self._changes.pop(key, []))
            answer, arrays = _result(found, found_by), found.arrays
        else:
            answer, arrays = found, {}
        self._send(answer | {"changed": self._by_implementation(by_id)}, arrays)
        if key in self._meters:
            self._spent_s[key] = time.perf_counter() - begin_s
        else:
            self._changes.pop(key, None)

    def _by_implementation(self, by_id: Mapping[str, list[str]]) -> dict[str, Any]:
        """Return changes by the implementation of the trial that made them."""
        found: dict[str, list[str]] = {}
        for id, changes in by_id.items():
            found.setdefault(self._implementations[id], []).extend(changes)
        return found

    def _changed(self, key: str) -> dict[str, Any]:
        """Return what has changed of the runner, also when a request has failed."""
        self._runner.begin()  # mistakes that nobody has waited for are none of it
        try:
            return self._by_implementation(self._runner.changes(key))
        except RunnerDiedError:
            return {self._implementations[key]: ["the runner"]}

    def _send_error(
        self,
        outcome: str,
        reason: str,
        *,
        died: bool = False,
        changed: Mapping[str, Any] | None = None,
    ) -> None:
        """Send why there is no answer.

        What has changed its process and failed leaves the process to nobody.
        """
        values = {
            "kind": "error",
            "outcome": outcome,
            "reason": shortened(reason, MOST_REASON),
            "died": died or bool(changed),
            "changed": changed or {},
        }
        self._send(values)

    def _obey(self, request: Message, key: str) -> Measurement | dict[str, Any]:
        """Do what a request asks; return a measurement, or the values of an answer."""
        command, trial = request.values["command"], _trial(request)
        if command == "measure":
            return self._measure(trial, request)
        if command == "probe":
            return self._probe(trial)
        if command == "peak":
            return self._peak(trial)
        if command == "open":
            return self._open(trial, key)
        meter = self._meters[key]
        if command == "warm":
            meter.warm_up()
            return {"kind": "warmed"}
        if command == "turn":
            readings = meter.turn(request.values["phase"], request.values["round"])
            return {"kind": "turned", "readings_s": readings}
        return self._meters.pop(key).finish()

    def _open(self, trial: Trial, key: str) -> dict[str, Any]:
        if self._meters.pop(key, None):  # of the same session, which starts again
            gc.collect()
        make = MEASURES[trial.measure].meter
        assert make is not None
        self._meters[key] = make(Problem(self._registry, trial, self._runner))
        return {"kind": "opened", "phases": list(self._meters[key].phases)}

    def _measure(self, trial: Trial, request: Message) -> Measurement:
        run = MEASURES[trial.measure].run
        assert run is not None
        observer = partial(self._observer, trial, request)
        return run(
            MeasureInput(self._registry, trial, request.arrays, observer, self._runner)
        )

    def _probe(self, trial: Trial) -> dict[str, Any]:
        """Build the smallest network of a trial, to see whether it can be built."""
        spec = NetworkSpec(
            cell=trial.cell,
            inputs=Inputs("reals", 1),
            hidden_size=1,
            output_size=1,
            readout=Readout.LAST,
            target=Target.REAL,
            dtype=trial.dtype,
        )
        self._runner.network(trial.implementation, spec, trial.device)
        return {"kind": "probed"}

    def _peak(self, trial: Trial) -> dict[str, Any]:
        """Measure the highest rates in a trial's dtype and precision, on its device."""
        name, device = trial.implementation, trial.device
        peak = self._runner.peak(name, device, trial.dtype, trial.precision)
        facts = {"peak": peak.to_json()}
        return {"kind": "result", "outcome": "ok", "reason": None, "facts": facts}

    def stop(self) -> None:
        """Make this learning trial, and later ones, write a checkpoint and end."""
        self._stop = True

    def _observer(self, trial: Trial, request: Message) -> Observer:
        """Return the observer to which a learning trial reports while it runs."""
        here = self._environment(trial)
        # A checkpoint holds the state of learning, and the environment beside it.
        start = dict(request.values["start"] or {})
        fits = start.pop("environment", None) == here
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
        """Return what the last bit of a trial's values depends on, beside the trial."""
        framework = self._registry.framework_of(trial.implementation)
        if by_reference(self._registry, trial):
            framework = self._registry.frameworks["numpy"]
        return {
            "framework": self._registry.versions_of(framework),
            "numpy": np.__version__,
            "processor": processor(),
            **({} if trial.device == "cpu" else {"gpu": gpu_name()}),
            "pinned": {
                n: os.environ.get(n) for n in pinned_variables(1) if n != VISIBLE
            },
        }

    def _found_by(self, trial: Trial) -> dict[str, Any]:
        """Return the facts about this worker that a result holds."""
        return {
            **self._environment(trial),
            "machine": machine_name(),
            "visible_devices": os.environ.get(VISIBLE),
            "python": platform.python_version(),
            "worker": os.getpid(),
        }

    def _send(self, values: Mapping[str, Any], arrays: Weights | None = None) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()  # the log then has what was printed before
        plain = json.loads(to_json({**values, "request": self._request}))
        self._channel.send(Message(plain, arrays or {}))


def _with_changes(found: Measurement, changed: Sequence[str]) -> Measurement:
    """Add to a measurement what its implementation has changed of its process.

    Its numbers hold with this change, which is named beside its kernel.
    """
    if not changed:
        return found
    facts = {**found.facts, CHANGED: list(changed)}
    if "kernel" in facts:
        facts["kernel"] = f"{facts['kernel']}; changes {listed(changed, 3)}"
    return replace(found, facts=facts)


def _result(found: Measurement, found_by: Mapping[str, Any]) -> dict[str, Any]:
    quantities = {n: dataclasses.asdict(q) for n, q in found.quantities.items()}
    return {
        "kind": "result",
        "outcome": found.outcome,
        "reason": found.reason,
        "facts": {**found_by, **found.facts, "quantities": quantities},
        "readings": [reading.to_json() for reading in found.readings],
    }


def _trial(request: Message) -> Trial:
    """Return the trial of a request on the one device that this process sees."""
    trial = Trial.from_json(request.values["trial"])
    return trial if trial.device == "cpu" else replace(trial, device="cuda:0")
