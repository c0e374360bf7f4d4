"""Measure what the harness adds to a bare training loop with the same batches.

`python -m tests.benchmarks.loop_overhead` prints, for torch, TensorFlow and JAX, the
time of an update in the harness over that of a loop written by hand. Both take turns.
In `learning` both draw, place and train; the harness draws in one process, sends the
batches to another one where the network is, and sends its readings. In `speed` both
train on placed batches. It prints the median of the ratio
over turns for each of several processes, as processes may differ by more than turns
do. Neither loop includes evaluations.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from harness.contract import Optimizer
from harness.intervals import MedianInterval, ratio_interval
from harness.machine.clock import reading_s
from harness.machine.pinning import worker_environment
from harness.measure.learning.training import CHUNK, Observer, measure_learning
from harness.measure.problem import Problem
from harness.messages.pipe import Message, send
from harness.registry import Registry
from harness.runner.given import own
from harness.runner.phase import BatchPhase
from harness.runner.process import RunnerProcess
from harness.runner.remote import RemoteRunner
from harness.store import Reading
from harness.trial import LearningSettings, SpeedSettings, Trial
from tests.benchmarks.bare_loops import LOOPS, Loop

TURNS, STARTS = 40, 3
BATCH, LENGTH, HIDDEN = 32, 100, 64


def main() -> None:
    """Measure each framework in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("implementation", nargs="*", default=[*LOOPS])
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--starts", type=int, default=STARTS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        _measure(asked.implementation[0], asked.turns)
        return
    registry = Registry.discover()
    print(f"gru, batch {BATCH}, adding {LENGTH}, hidden size {HIDDEN}, 1 thread")
    for name in asked.implementation:
        framework = registry.framework_of(name)
        command = [sys.executable, "-m", __spec__.name, name, "--here"]
        found: dict[str, list[float]] = {}
        for _ in range(asked.starts):
            done = subprocess.run(
                [*command, "--turns", str(asked.turns)],
                env={**worker_environment(1), **framework.environment},
                cwd=Path(__file__).parents[2],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            for line in done.stdout.splitlines():
                measure, ratio = line.split()
                found.setdefault(measure, []).append(float(ratio))
        for measure, ratios in found.items():
            each = ", ".join(f"{ratio:.3f}" for ratio in ratios)
            print(
                f"{name:18} {measure:10} harness / bare loop "
                f"{median(ratios):.3f}  ({each})",
                flush=True,
            )


def _measure(name: str, turns: int) -> None:
    if name == "torch-native":
        import torch

        torch.set_num_threads(1)
    trial = Trial(
        "learning",
        name,
        "gru",
        task="adding",
        length=LENGTH,
        hidden_size=HIDDEN,
        batch=BATCH,
        seed=0,
        data_seed=0,
        optimizer=Optimizer(learning_rate=1e-3),
        settings=LearningSettings(
            updates=(turns + 2) * CHUNK,
            evaluate_every=(turns + 2) * CHUNK,
            evaluate_sequences=2,
        ),
    )
    process = RunnerProcess("[]")
    problem = Problem(Registry.discover(), trial, RemoteRunner(process))
    loop = LOOPS[name](HIDDEN)
    for measure, found in (
        ("learning", _learning(problem, loop)),
        ("speed", _speed(problem, loop, turns)),
    ):
        print(measure, found.median, flush=True)
    process.close()


def _learning(problem: Problem, loop: Loop) -> MedianInterval:
    """Let the bare loop train as many updates each time as the harness did."""
    place, update, wait = loop
    ours: list[float] = []
    theirs: list[float] = []
    begun_s = 0.0
    asked = Path(os.devnull).open("wb")  # noqa: SIM115  # ends with the process

    def emit(reading: Reading) -> None:
        nonlocal begun_s
        send(asked, Message({"kind": "event", "reading": reading.to_json()}))
        ended_s = time.perf_counter()
        if reading.split == "train" and isinstance(reading.x, list):
            ours.append(ended_s - begun_s)
            theirs.append(_bare(reading.x))
        begun_s = time.perf_counter()

    def _bare(updates: list[Any]) -> float:
        start_s = time.perf_counter()
        for number in updates:
            batch = problem.batch("train", number - 1, BATCH)
            loss = update(place(batch))
        wait(loss)
        return time.perf_counter() - start_s

    measure_learning(problem, Observer(emit))
    return ratio_interval(ours[2:], theirs[2:])  # the first ones compile


def _speed(problem: Problem, loop: Loop, turns: int) -> MedianInterval:
    place, update, wait = loop
    problem = Problem(
        Registry.discover(),
        replace(
            problem.trial, measure="speed", settings=SpeedSettings(("train_step",))
        ),
    )
    network = own(problem.trainable_network())
    network.load_weights(problem.initial_weights())
    phase = BatchPhase("train_step", network)
    batches = [problem.batch("train", index, BATCH) for index in range(8)]
    ours_placed = [network.place(batch) for batch in batches]
    theirs_placed = [place(batch) for batch in batches]
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(turns + 2):
        mine, other = ours_placed[turn % 8], theirs_placed[turn % 8]
        # In changing order, so that neither always comes second.
        pair = [
            (ours, lambda b=mine: phase.call(b)),
            (theirs, lambda b=other: wait(update(b))),
        ]
        for times, call in pair if turn % 2 else pair[::-1]:
            reading_s(call, 1)
            times.append(reading_s(call, 5))
    return ratio_interval(ours[2:], theirs[2:])


if __name__ == "__main__":
    main()
