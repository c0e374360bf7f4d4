"""A process that answers measures, one framework to a process.

It reads requests from standard input and answers on a pipe of its own; whatever a
plugin prints goes to the log. Requests:

- `measure` {trial} with arrays: events as they come, then one `result`;
- `open` {trial}: makes a speed meter and warms it up; answers its phases;
- `turn` {trial, phase}: times one turn;
- `close` {trial}: answers the meter's `result`.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from harness.contract import Weights
from harness.environment import framework_versions, machine_name
from harness.measure.gradients import measure_gradients
from harness.measure.learning import measure_learning
from harness.measure.parity import measure_parity
from harness.measure.problem import Measurement, Problem
from harness.measure.speed import SpeedMeter
from harness.registry import Registry
from harness.run.outcome import outcome_of
from harness.run.pipe import Message, receive, send
from harness.store import Reading
from harness.trial import Trial


class Worker:
    """Answers requests with the plugins of one registry."""

    def __init__(self, registry: Registry, answers: IO[bytes]) -> None:
        self._registry = registry
        self._answers = answers
        self._meters: dict[str, tuple[Trial, SpeedMeter]] = {}

    def answer(self, request: Message) -> None:
        """Answer one request; an error is an answer too."""
        command = request.values["command"]
        key = str(request.values["id"])
        _log_to(request.values["log"])
        try:
            if command == "measure":
                trial = Trial.from_json(request.values["trial"])
                self._result(trial, self._measure(trial, request.arrays))
            elif command == "open":
                trial = Trial.from_json(request.values["trial"])
                meter = SpeedMeter(Problem(self._registry, trial))
                meter.warm_up()
                self._meters[key] = (trial, meter)
                self._send({"kind": "opened", "phases": list(meter.phases)})
            elif command == "turn":
                _, meter = self._meters[key]
                readings = meter.turn(request.values["phase"])
                self._send({"kind": "turned", "readings_s": readings})
            else:
                trial, meter = self._meters.pop(key)
                self._result(trial, meter.finish())
        except (Exception, SystemExit) as error:
            self._meters.pop(key, None)
            outcome, reason = outcome_of(error)
            self._send({"kind": "error", "outcome": outcome, "reason": reason})

    def _measure(self, trial: Trial, arrays: Weights) -> Measurement:
        if trial.measure == "parity":
            return measure_parity(self._registry, trial)
        problem = Problem(self._registry, trial)
        if trial.measure == "gradients":
            # No trained weights come with a trial that follows no learning.
            return measure_gradients(problem, arrays or None)
        return measure_learning(problem, self._emit)

    def _emit(self, reading: Reading) -> None:
        self._send({"kind": "event", "reading": reading.to_json()})

    def _result(self, trial: Trial, found: Measurement) -> None:
        framework = self._registry.framework_of(trial.implementation)
        facts = {
            "framework": framework_versions(framework.name, framework.distributions),
            "machine": machine_name(),
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
        send(self._answers, Message(values, arrays or {}))


def _log_to(path: str) -> None:
    """Send what is printed from here on to the log of one attempt."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _die_with_parent() -> None:
    """End this process and its children when the parent is gone, however it went.

    The kernel's own death signal would not do: it follows the thread that started the
    worker, not the process.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Serve requests until the other side closes; plugin files are the arguments."""
    _die_with_parent()
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a plugin prints must not end up between two answers
    registry = Registry.discover(Path(file) for file in sys.argv[1:])
    worker = Worker(registry, answers)
    send(answers, Message({"kind": "ready"}))
    while (request := receive(requests)) is not None:
        worker.answer(request)


if __name__ == "__main__":
    main()
