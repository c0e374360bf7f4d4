"""Run folders with invented results, written through the store as a run writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis.run import JudgedRun
from harness.analysis.summary import Summary, summarize
from harness.contract import Optimizer
from harness.run.plan.derived import memory_trial
from harness.store import Reading, RunFolder
from harness.trial import GradientsSettings, LearningSettings, Trial

NASTY = "<script>alert(1)</script> | x\nno *such* [file](http://x) & $100$ \x1b[31mred"
MACHINE = "2 cores AMD EPYC"
LOAD = {"kind": "load", "words": "1.3 other cores busy", "advice": "end them"}
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


def summary(run: RunFolder) -> Summary:
    """Return the tables of a run folder."""
    return summarize(JudgedRun.read(run))


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
    """Return a learning trial of adding, by default of length 100."""
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
        settings=LearningSettings(BUDGET, EVERY),
    )
    return replace(trial, **changes)


def readback(ok: bool) -> Reading:
    """Return the read-back of a trial at its own shape."""
    return Reading("readback", {"ok": int(ok), "error": 2e-7 if ok else 0.3})


def learning(
    writer: Writer, trial: Trial, solved_at: int | None, *, read_back: bool = True
) -> None:
    """Commit a curve that falls from the floor until solved, or stays near it."""
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
    """Commit a curve that ends at `update` because the loss became NaN."""
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
    trial = replace(trial, measure="gradients", settings=GradientsSettings(follows))
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
    facts: Mapping[str, Any] | None = None,
    **changes: Any,
) -> None:
    """Commit a certificate of three checks; `broken` may name a broken one."""
    names = ("outputs", "grad w_hh", "updates adam")
    readings = [
        Reading(name, {"error": 0.71 if name == broken else 3.1e-7, "tolerance": 1e-5})
        for name in names
    ]
    readings.append(Reading("grad initial state", {"error": None, "tolerance": 1e-5}))
    bad = int(broken is not None)
    verdict = {"certified": 1 - bad, "checks": 4, "broken": bad, "warned": 0}
    readings.append(Reading("certificate", verdict))
    trial = Trial("parity", implementation, cell, **changes)
    writer.commit(trial, readings=readings, **(facts or {}))


def speed_trial(implementation: str, cell: str, **changes: Any) -> Trial:
    """Return a speed trial, by default at the shape of `learning_trial`."""
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


PEAK: dict[str, Any] = {
    "flop_per_s": 8e10,
    "flop_by": "torch",
    "copy_bytes_per_s": 1.2e10,
    "copy_by": "numpy",
}
ROUNDS = 8
GATES = {"gru": 3, "lstm": 4, "rnn": 1}
PHASE_SHARES = {"forward": 0.3, "loss_and_gradients": 0.9, "train_step": 1.0}


def drift(rounds: int) -> list[float]:
    """Return the factor of each round for a machine that gets slower by a quarter."""
    return [1.0 + 0.25 * n / max(rounds - 1, 1) for n in range(rounds)]


def speed(
    writer: Writer,
    trial: Trial,
    update_s: float,
    *,
    shaky: bool = False,
    read_back: bool = True,
    first_call_s: float | None = None,
    jitter: float = 0.0,
    factors: Sequence[float] | None = None,
    step_s: float | None = None,
    phases: Mapping[str, float] = PHASE_SHARES,
    **facts: Any,
) -> None:
    """Commit the phases; an update takes `update_s` ± 10 %.

    Args:
        first_call_s: First call of a whole update; five calls by default.
        jitter: Standard deviation of the turns, as a share.
        factors: Factor of each turn instead of the jitter, beside the drift.
        step_s: The latency of a single time step; without it there is no `stream`.
        phases: Time of each phase as a share of that of an update.
    """
    steps = trial.time_steps or trial.length or 1
    first = 5 * update_s if first_call_s is None else first_call_s
    readings = []
    for phase, share in phases.items():
        call = (share * update_s, share * first)
        tokens = (trial.batch or 1) * steps
        readings += _timing(trial, phase, *call, tokens, shaky, jitter, factors)
    if step_s is not None:
        readings += _timing(trial, "stream", step_s, first / 10, 1, shaky, jitter)
        readings.append(_latencies(trial, step_s))
        place = {"time_s": 2e-4, "time_low_s": 1.9e-4, "time_high_s": 2.3e-4}
        readings.append(Reading("place", {**place, "bytes": 4e5}))
    readings.append(readback(read_back))
    shown = {"time_steps": steps if trial.length is None else 100, **facts}
    if shaky:
        why = {
            "kind": "bimodal",
            "words": "two groups of readings, 1.4 × apart",
            "advice": "pin the process to one core",
        }
        shown["unstable"] = {name: [why] for name in ("train_step", "stream")}
    writer.commit(trial, readings=readings, **shown)


def _timing(
    trial: Trial,
    phase: str,
    time_s: float,
    first_call_s: float,
    tokens: int,
    shaky: bool,
    jitter: float,
    factors: Sequence[float] | None = None,
) -> list[Reading]:
    flops = _flops(trial, phase, tokens)
    weights = 4 * _weights(trial)
    seed = sum(map(ord, f"{trial.implementation} {phase} {trial.batch}"))
    noise = np.exp(jitter * np.random.default_rng(seed).standard_normal(ROUNDS))
    own = noise if factors is None else factors
    turns = [d * float(n) for d, n in zip(drift(ROUNDS), own, strict=True)]
    samples = [time_s * turn * part for turn in turns for part in (1, 1.05, 0.95)]
    places = list(range(len(samples)))
    values = {
        "time_s": time_s,
        "time_low_s": 0.9 * time_s,
        "time_high_s": 1.1 * time_s,
        "tokens_per_s": tokens / time_s,
        "tokens_low_per_s": tokens / (1.1 * time_s),
        "tokens_high_per_s": tokens / (0.9 * time_s),
        "flop_per_s": flops / time_s,
        "flops": flops,
        "least_bytes": weights + 4.0 * tokens * (trial.hidden_size or 1),
        "loops": 1,
        "first_call_s": first_call_s,
        "shaky": int(shaky),
    }
    if phase == "stream":
        found = _latencies(trial, time_s).values["latency_s"]
        values |= {
            f"latency_p{n}_s": float(np.percentile(found, n)) for n in (50, 95, 99)
        }
    raw = {
        "sample_s": samples,
        "round": [n // 3 for n in places],
        "at_s": [0.5 * n for n in places],
    }
    load = {"other_load": [0.1] * ROUNDS}
    return [
        Reading(phase, values),
        Reading(phase, raw, places, "readings"),
        Reading(phase, load, list(range(ROUNDS)), "rounds"),
    ]


def _weights(trial: Trial) -> int:
    width, inputs = trial.hidden_size or 1, trial.input_size or 2
    return GATES.get(trial.cell, 3) * width * (width + inputs + 1)


def _flops(trial: Trial, phase: str, tokens: int) -> float:
    passes = 1 if phase in ("forward", "stream") else 3
    return 2.0 * passes * _weights(trial) * tokens


def _latencies(trial: Trial, step_s: float) -> Reading:
    """Return latencies around `step_s` with a tail of interruptions."""
    rng = np.random.default_rng(sum(map(ord, trial.implementation)))
    found = step_s * np.exp(0.08 * rng.standard_normal(1500))
    found *= 1 + (rng.random(1500) < 0.03) * rng.pareto(1.5, 1500)
    values = {"latency_s": [float(each) for each in found]}
    return Reading("stream", values, list(range(1500)), "time steps")


def memory(writer: Writer, trial: Trial, peak_bytes: float) -> None:
    """Commit the memory of the phases of a speed trial, as its own trial."""
    trial = memory_trial(trial)
    values = {"peak_bytes": peak_bytes, "baseline_bytes": 2e8}
    readings = [Reading(phase, values) for phase in PHASE_SHARES]
    writer.commit(trial, readings=readings)


def shape_trial(implementation: str, cell: str, **changes: Any) -> Trial:
    """Return a speed trial of random numbers, 32 × 100 × 64, with hidden size 128."""
    sizes = {"batch": 32, "time_steps": 100, "input_size": 64, "hidden_size": 128}
    bare = {"task": None, "length": None, **sizes}
    return speed_trial(implementation, cell, **(bare | changes))


@dataclass(frozen=True)
class Kind:
    """How an invented implementation takes its time.

    Attributes:
        overhead_s: Overhead of every time step.
        flop_per_s: Rate that it reaches at large sizes.
        first_s: Time of the first call beyond a usual one.
    """

    overhead_s: float
    flop_per_s: float
    first_s: float
    framework: str

    def update_s(self, trial: Trial) -> float:
        steps, batch = trial.time_steps or 1, trial.batch or 1
        flops = _flops(trial, "train_step", steps * batch)
        rate: float = self.flop_per_s * trial.threads**0.7
        return self.overhead_s * steps + flops / rate


KINDS = {
    "torch-native": Kind(1.2e-5, 3.0e10, 2e-3, "torch 2.13.0"),
    "jax-scan": Kind(6e-6, 1.6e10, 0.8, "jax 0.9.1"),
    "numpy-reference": Kind(1.5e-4, 6e9, 1e-4, "numpy 2.4.6"),
    "torch-compile": Kind(5e-6, 2.9e10, 14.0, "torch 2.13.0"),
    "torch-loop": Kind(1.1e-4, 2.5e10, 3e-3, "torch 2.13.0"),
    "tensorflow-keras": Kind(4e-5, 2.2e10, 1.1, "tensorflow 2.21.0"),
    "tensorflow-loop": Kind(6e-5, 2.0e10, 0.9, "tensorflow 2.21.0"),
    "keras-jax": Kind(9e-6, 1.5e10, 1.3, "jax 0.9.1"),
    "my-fused-gru": Kind(4e-6, 3.4e10, 0.2, "torch 2.13.0"),
    "onnxruntime": Kind(2e-5, 2.8e10, 0.05, "onnxruntime 1.24"),
}


def sweep(
    path: Path,
    *,
    cells: Sequence[str] = ("gru",),
    names: Sequence[str] = ("torch-native", "jax-scan", "my-fused-gru"),
    batches: Sequence[int] = (1, 64),
    widths: Sequence[int] = (64, 1024),
    steps: Sequence[int] = (100,),
    threads: Sequence[int] = (1,),
    step_s: bool = True,
    peak: Mapping[str, Any] | None = PEAK,
) -> RunFolder:
    """Create a run of many sizes; my-fused-gru is uncertified, jax-scan has limits.

    jax-scan is out of memory at the largest size, torch-native is shaky at the
    smallest, and only the first of two cells has a stream.
    """
    writer = Writer.create(path, {"suite": {"name": "sweep"}})
    for cell in cells:
        for name in names:
            broken = "grad w_hh" if name == "my-fused-gru" else None
            for count in threads:
                facts = {"framework": KINDS[name].framework}
                parity(writer, name, cell, broken, facts, threads=count)
    sizes = [(b, w, t) for b in batches for w in widths for t in steps]
    for count in threads:
        for index, (batch, width, length) in enumerate(sizes):
            shape = {"batch": batch, "hidden_size": width, "time_steps": length}
            session = f"sweep {count}-{index}, 2026-11-26 12:00:00"
            for cell in cells:
                for name in names:
                    trial = shape_trial(
                        name, cell, threads=count, session=session, **shape
                    )
                    small = (index, name) == (0, "torch-native")
                    large = (index, name) == (len(sizes) - 1, "jax-scan")
                    _of_sweep(writer, trial, small, large, step_s, peak)
    return writer.run


def _of_sweep(
    writer: Writer,
    trial: Trial,
    shaky: bool,
    fails: bool,
    stream: bool,
    peak: Mapping[str, Any] | None,
) -> None:
    if fails:
        reason = "7.9 GiB asked for, 6.1 GiB free"
        writer.commit(trial, outcome="out_of_memory", reason=reason)
        return
    kind = KINDS[trial.implementation]
    update_s = kind.update_s(trial)
    least_s = 4 * _weights(trial) / PEAK["copy_bytes_per_s"]
    step_s = 1.5 * least_s + kind.overhead_s if stream else None
    facts = {
        "framework": kind.framework,
        "session": trial.session,
        "fitness": {"verdict": "noisy", "reasons": [LOAD]},
    }
    speed(
        writer,
        trial,
        update_s,
        shaky=shaky,
        first_call_s=kind.first_s + update_s,
        jitter=0.02,
        step_s=step_s,
        **(facts | ({} if peak is None else {"peak": dict(peak)})),
    )
    memory(writer, trial, 40.0 * (trial.batch or 1) * (trial.hidden_size or 1) * 100)


def quick(path: Path) -> RunFolder:
    """Create a run with every kind of result and of failure, on two tasks."""
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
    """Create a run that only timed, and certified nothing."""
    writer = Writer.create(path, {"suite": {"name": "fast"}})
    speed(writer, speed_trial("torch-native", "gru"), 0.014)
    return writer.run


def only_crashed(path: Path) -> RunFolder:
    """Create a run of one trial that crashed before its first value."""
    writer = Writer.create(path, {})
    writer.commit(learning_trial("gru", 0), outcome="crashed", reason=NASTY)
    return writer.run


def empty(path: Path) -> RunFolder:
    """Create a run without a finished trial."""
    return Writer.create(path).run
