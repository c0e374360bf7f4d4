"""Compare our timer with torch.utils.benchmark.Timer on three shapes.

`python -m tests.benchmarks.torch_timer` prints the ratio of the two medians, which
are taken in turns in one process. They agree if it is 1 ± 0.05.
"""

from __future__ import annotations

import os

from harness.machine.pinning import pinned_variables

SHAPES = ((1, 20, 32), (32, 100, 64), (64, 50, 256))
TURNS = 15


def main() -> None:
    """Time nn.GRU forward and a whole update both ways."""
    os.environ.update(pinned_variables(1))
    import torch
    from torch.utils.benchmark import Timer

    from harness.contract import Optimizer
    from harness.intervals import ratio_interval
    from harness.machine.clock import loops_for, reading_s, warm_up
    from harness.measure.problem import Problem
    from harness.registry import Registry
    from harness.runner.given import own
    from harness.runner.phase import BatchPhase
    from harness.trial import SpeedSettings, Trial

    torch.set_num_threads(1)
    registry = Registry.discover()
    for batch, time_steps, hidden_size in SHAPES:
        trial = Trial(
            "speed",
            "torch-native",
            "gru",
            batch=batch,
            time_steps=time_steps,
            input_size=8,
            hidden_size=hidden_size,
            seed=0,
            optimizer=Optimizer(),
            settings=SpeedSettings(("forward", "train_step")),
        )
        problem = Problem(registry, trial)
        network = own(problem.network())
        network.load_weights(problem.initial_weights())
        placed = network.place(problem.batch("train", 0))
        for name in problem.phases:
            phase = BatchPhase(name, network)

            def call(phase=phase, placed=placed) -> None:  # type: ignore[no-untyped-def]
                phase.call(placed)

            loops = loops_for(warm_up(call).call_s)
            timer = Timer("call()", globals={"call": call}, num_threads=1)
            ours, theirs = [], []
            for _ in range(TURNS):
                ours.append(min(reading_s(call, loops) for _ in range(3)))
                theirs.append(min(timer.timeit(loops).mean for _ in range(3)))
            found = ratio_interval(ours, theirs)
            print(
                f"batch {batch:3} time steps {time_steps:3} hidden {hidden_size:3} "
                f"{name:10} harness / torch {found.median:.3f} "
                f"[{found.low:.3f}, {found.high:.3f}]"
            )


if __name__ == "__main__":
    main()
