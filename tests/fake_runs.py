"""Run folders with invented results, written through the store as a run writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.contract import Optimizer
from harness.store import Reading, RunFolder
from harness.trial import Trial

NASTY = "<script>alert(1)</script> | x\nno *such* [file](http://x) & $100$ \x1b[31mred"
MACHINE = "2 cores AMD EPYC"
PARAMETERS = {"gru": 12_929, "lstm": 17_217, "rnn": 4_353}
HORIZONS = {"gru": (61, 100), "lstm": (48, 100), "rnn": (9, 11)}
SOLVED_AT: dict[str, tuple[int | None, ...]] = {
    "gru": (800, 1000, 1200),
    "lstm": (1600, 1700, None),
    "rnn": (None, None, None),
}
BUDGET = 3000
EVERY = 100
INFO = {
    "suite": {"name": "quick", "why": "What a laptop can show in six minutes."},
    "choices": {"adding 100 gru": "torch-native"},
    "environment": {
        "machine": MACHINE,
        "cpu": "AMD EPYC",
        "cores": 2,
        "memory_bytes": 8 * 2**30,
        "python": "3.11.9",
        "platform": "Linux",
        "libraries": {"torch": "2.13.0", "numpy": "2.4.6"},
        "commit": "abc1234",
        "dirty": True,
    },
    "started_at": 1_700_000_000.0,
    "wall_time_s": 312.0,
}
ADDING = {
    "loss": {"unit": "mean squared error", "better": "lower"},
    "hit_rate": {"unit": "fraction", "better": "higher"},
}
COPY = {
    "loss": {"unit": "nats", "better": "lower"},
    "accuracy": {"unit": "fraction", "better": "higher"},
}


@dataclass
class Writer:
    """Commits invented trials to one run folder, a second apart."""

    run: RunFolder
    clock: float = 1_700_000_000.0

    @classmethod
    def create(cls, path: Path, info: Mapping[str, Any] = INFO) -> Writer:
        run = RunFolder.create(path)
        run.write_info(info)
        return cls(run)

    def commit(
        self,
        trial: Trial,
        *,
        readings: Sequence[Reading] = (),
        events: Sequence[Reading] = (),
        outcome: str = "ok",
        reason: str | None = None,
        **facts: Any,
    ) -> None:
        self.clock += 1
        attempt = self.run.begin(trial, trial.identity({"fake": "0"}), {"fake": "0"})
        for event in events:
            attempt.write(event)
        result = {
            "outcome": outcome,
            "reason": reason,
            "committed_at": self.clock,
            "wall_time_s": 2.5,
            "machine": MACHINE,
            "framework": "torch 2.13.0",
            "kernel": f"aten::{trial.cell}",
            **facts,
        }
        attempt.commit(result, readings)


def learning_trial(cell: str, seed: int, **changes: Any) -> Trial:
    """A learning trial of adding, length 100, unless told otherwise."""
    trial = Trial(
        measure="learning",
        implementation="torch-native",
        cell=cell,
        task="adding",
        length=100,
        hidden_size=64,
        batch=32,
        seed=seed,
        data_seed=0,
        optimizer=Optimizer(learning_rate=3e-3),
        settings={"updates": BUDGET, "evaluate_every": EVERY},
    )
    return replace(trial, **changes)


def readback(ok: bool) -> Reading:
    """The reading of what a trial computed at its own shape."""
    return Reading("readback", {"ok": int(ok), "error": 2e-7 if ok else 0.3})


def learning(
    writer: Writer, trial: Trial, solved_at: int | None, *, read_back: bool = True
) -> None:
    """Commit a curve that falls from the floor to the rule, or stays near the floor."""
    end = BUDGET if solved_at is None else solved_at + 2 * EVERY
    rng = np.random.default_rng([trial.seed or 0, solved_at or 0, len(trial.cell)])
    events = []
    for update in range(0, end + 1, EVERY):
        far = -1.0 if solved_at is None else update - solved_at
        share = 1.0 if solved_at is None else 1 / (1 + math.exp(0.02 * far))
        noise = math.exp(0.06 * float(rng.standard_normal()))
        events.append(_held_out(trial, update, share, noise))
    norms = {"loss": [0.2, 0.1], "gradient_norm": [0.7, 3.1]}
    events.append(Reading("train", norms, [1, 2], "updates"))
    outcome = {"solved": int(solved_at is not None), "updates": end, "budget": BUDGET}
    if solved_at is not None:
        outcome["updates_to_solve"] = solved_at
    writer.commit(
        trial,
        events=events,
        readings=[Reading("outcome", outcome), _floor(trial), readback(read_back)],
        **_facts(trial),
    )


def _held_out(trial: Trial, update: int, share: float, noise: float) -> Reading:
    if trial.task == "copy-memory":
        accuracy = min(1.0, 0.1 + 0.9 * (1 - share) + 0.01 * (noise - 1))
        values = {"loss": 2.08 * share * noise, "accuracy": accuracy}
    else:
        loss = 0.0011 + 0.166 * share * noise
        values = {"loss": loss, "hit_rate": 1 - 0.9 * share}
    return Reading("held_out", values, update, "updates")


def _floor(trial: Trial) -> Reading:
    if trial.task == "copy-memory":
        return Reading("floor", {"loss": 2.0794, "accuracy": 0.125})
    return Reading("floor", {"loss": 1 / 6, "hit_rate": 0.09})


def _facts(trial: Trial) -> dict[str, Any]:
    copying = trial.task == "copy-memory"
    return {
        "headline": "accuracy" if copying else "loss",
        "quantities": COPY if copying else ADDING,
        "parameters": {"canonical": PARAMETERS.get(trial.cell, 9_999)},
        "time_steps": 120 if copying else trial.length,
    }


def diverged(writer: Writer, trial: Trial, update: int) -> None:
    """Commit a curve that ends at `update` because the loss was no number."""
    events = [_held_out(trial, u, 1.0, 1.1) for u in range(0, update + 1, EVERY)]
    outcome = {"solved": 0, "updates": update + 7, "budget": BUDGET}
    writer.commit(
        trial,
        events=events,
        readings=[Reading("outcome", outcome), _floor(trial), readback(True)],
        outcome="diverged",
        reason=f"loss became NaN at update {update + 7}",
        **_facts(trial),
    )


def gradients(
    writer: Writer,
    trial: Trial,
    horizons: tuple[int, int],
    follows: str = "learning",
) -> None:
    """Commit ratios that fall to 1e-3 at the horizons, then underflow or level off."""
    trial = replace(trial, measure="gradients", settings={"follows": follows})
    lags = list(range(101))
    readings = []
    for state, horizon in zip(("initial", "trained"), horizons, strict=True):
        rate = 3.0 if horizon < 100 else 1.5
        median = [10 ** (-rate * lag / horizon) for lag in lags]
        kept = [value if value > 1e-30 else None for value in median]
        curves = {}
        for name in ("loss", "random"):
            curves[f"ratio_{name}_median"] = kept
            curves[f"ratio_{name}_q10"] = [v and v**1.15 for v in kept]
            curves[f"ratio_{name}_q90"] = [v and v**0.85 for v in kept]
        whole = {"horizon_loss": horizon, "horizon_random": horizon, "max_lag": 100}
        readings.append(Reading(state, whole))
        readings.append(Reading(state, curves, lags, "time steps"))
    writer.commit(trial, readings=readings, **_facts(trial))


def parity(
    writer: Writer,
    implementation: str,
    cell: str,
    broken: str | None = None,
    **changes: Any,
) -> None:
    """Commit a certificate of three checks, one of them broken where it is named."""
    names = ("outputs", "grad w_hh", "updates adam")
    readings = [
        Reading(name, {"error": 0.71 if name == broken else 3.1e-7, "tolerance": 1e-5})
        for name in names
    ]
    readings.append(Reading("grad initial state", {"error": None, "tolerance": 1e-5}))
    bad = int(broken is not None)
    verdict = {"certified": 1 - bad, "checks": 4, "broken": bad, "warned": 0}
    readings.append(Reading("certificate", verdict))
    writer.commit(Trial("parity", implementation, cell, **changes), readings=readings)


def speed_trial(implementation: str, cell: str, **changes: Any) -> Trial:
    """A speed trial at the shape of `learning_trial`, unless told otherwise."""
    trial = Trial(
        measure="speed",
        implementation=implementation,
        cell=cell,
        session="session-1",
        task="adding",
        length=100,
        hidden_size=64,
        batch=32,
        optimizer=Optimizer(learning_rate=3e-3),
    )
    return replace(trial, **changes)


def speed(
    writer: Writer,
    trial: Trial,
    update_s: float,
    *,
    shaky: bool = False,
    read_back: bool = True,
) -> None:
    """Commit three phases; an update takes `update_s` ± 10 %."""
    tokens = (trial.batch or 1) * (trial.time_steps or trial.length or 1)
    readings = []
    phases = {"forward": 0.3, "loss_and_gradients": 0.9, "train_step": 1.0}
    for phase, share in phases.items():
        time = share * update_s
        values = {
            "time_s": time,
            "time_low_s": 0.9 * time,
            "time_high_s": 1.1 * time,
            "tokens_per_s": tokens / time,
            "tokens_low_per_s": tokens / (1.1 * time),
            "tokens_high_per_s": tokens / (0.9 * time),
            "flop_per_s": 3e4 * tokens / time,
            "first_call_s": 5 * time,
            "shaky": int(shaky),
        }
        readings.append(Reading(phase, values))
        samples = {"sample_s": [time, 1.05 * time, 0.95 * time]}
        readings.append(Reading(phase, samples, [0, 1, 2], "readings"))
    readings.append(readback(read_back))
    writer.commit(trial, readings=readings, time_steps=100)


def quick(path: Path) -> RunFolder:
    """A run with every kind of result and of failure, on two tasks."""
    writer = Writer.create(path)
    for cell in ("gru", "lstm", "rnn"):
        parity(writer, "torch-native", cell)
        parity(writer, "numpy-reference", cell)
        for seed, solved_at in enumerate(SOLVED_AT[cell]):
            learning(writer, learning_trial(cell, seed), solved_at)
            gradients(writer, learning_trial(cell, seed), HORIZONS[cell])
        speed(writer, speed_trial("torch-native", cell), 0.014)
        speed(writer, speed_trial("numpy-reference", cell), 0.14, shaky=cell == "lstm")
    _with_failures(writer)
    return writer.run


def _with_failures(writer: Writer) -> None:
    copying = {"task": "copy-memory", "length": 100}
    learning(writer, learning_trial("gru", 0, **copying), 2000)
    diverged(writer, learning_trial("rnn", 0, **copying), 600)
    gradients(writer, learning_trial("gru", 0, **copying), (61, 100))
    writer.commit(learning_trial("lstm", 0, **copying), outcome="crashed", reason=NASTY)
    writer.commit(
        speed_trial("jax-scan", "gru"),
        outcome="unavailable",
        reason="no module 'jax'; pip install 'rnn-harness[jax]'",
    )
    parity(writer, "my-gru", "gru", broken="grad w_hh")
    speed(writer, speed_trial("my-gru", "gru"), 0.007)
    speed(writer, speed_trial("torch-loop", "gru"), 0.05, read_back=False)
    parity(writer, "torch-loop", "gru")
    bare = {"task": None, "length": None, "time_steps": 100, "input_size": 2}
    speed(writer, speed_trial("torch-native", "gru", **bare), 0.014)


def only_speed(path: Path) -> RunFolder:
    """A run that only asked how fast, and certified nothing."""
    writer = Writer.create(path, {"suite": {"name": "fast"}})
    speed(writer, speed_trial("torch-native", "gru"), 0.014)
    return writer.run


def only_crashed(path: Path) -> RunFolder:
    """A run of one trial that crashed before its first value."""
    writer = Writer.create(path, {})
    writer.commit(learning_trial("gru", 0), outcome="crashed", reason=NASTY)
    return writer.run


def empty(path: Path) -> RunFolder:
    """A run of which no trial ended."""
    return Writer.create(path).run
