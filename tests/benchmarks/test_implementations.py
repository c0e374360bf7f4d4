"""Run every implementation in pytest-benchmark, for tools that read its JSON.

`pytest tests/benchmarks --benchmark-only -o addopts= --benchmark-json FILE`, or
`make benchmark`; `pytest-benchmark compare FILE …` reads what was written.

It takes under a minute: one shape, few rounds, all frameworks in one process, and Keras
on JAX only with KERAS_BACKEND=jax. For reliable numbers use `rnn-harness run`, which
takes turns between separate processes. The results of a round are compared with the
float64 reference, and a wrong result fails the benchmark. No certificate is made; a
cached one is named in `extra_info`, with the load of the machine and shaky timings.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from harness.contract import Batch, Optimizer, Weights
from harness.errors import UnavailableError
from harness.intervals import median_interval
from harness.loading import load_probe
from harness.machine.facts import framework_versions
from harness.machine.fitness import fitness_of_machine
from harness.machine.load import OtherLoad
from harness.machine.peak import measure_peak
from harness.measure.arithmetic import flops_of_call
from harness.measure.certificate.record import TOLERANCES
from harness.measure.problem import Problem
from harness.measure.readback import ReadBack, Reference
from harness.measure.speed.stability import unstable
from harness.measure.speed.turns import Turns
from harness.reason import Fitness
from harness.run.engine.session import SESSION_WATCH_S
from harness.run.plan.certificate_cache import CertificateCache
from harness.run.plan.derived import certificate_trial
from harness.run.plan.fingerprint import source_hashes
from harness.run.plan.todo import Planned
from harness.runner.given import own
from harness.runner.phase import BatchPhase
from harness.trial import SpeedSettings, Trial
from tests.benchmarks.conftest import THREADS
from tests.helpers import REGISTRY

BATCH, TIME_STEPS, INPUT, HIDDEN = 16, 50, 8, 64
ROUNDS, WARM_UP = 12, 4
CASES = [
    (cell, name, phase)
    for name, declared in REGISTRY.implementations.items()
    for cell in ("gru", "lstm")
    for phase in ("forward", "train_step")
    if "cpu" in declared.devices
    if cell in declared.cells and (declared.trains or phase == "forward")
    # Its compiler takes longer than all the others together, so one cell is enough.
    if name != "torch-compile" or cell == "gru"
]


# A framework may emit warnings while it compiles.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def peak_flop_per_s() -> float:
    """Return the best rate of a matrix product of all installed libraries."""
    rates = {}
    for name, declared in REGISTRY.implementations.items():
        framework = REGISTRY.framework_of(name)
        if framework.probe in (None, *rates) or REGISTRY.unavailable(name):
            continue
        if "cpu" in declared.devices:
            probe = load_probe(REGISTRY, framework.name, "cpu")
            assert probe is not None
            rates[framework.probe] = measure_peak(probe, "float32", "highest")
    return max(peak.flop.per_s for peak in rates.values())


@pytest.fixture(scope="module")
def fitness() -> Fitness:
    return fitness_of_machine(watch_s=SESSION_WATCH_S)


@pytest.mark.parametrize(("cell", "implementation", "phase"), CASES)
def test_speed(
    cell: str,
    implementation: str,
    phase: str,
    peak_flop_per_s: float,
    fitness: Fitness,
    users_cache: None,
    benchmark: Any,
) -> None:
    if (reason := REGISTRY.unavailable(implementation)) is not None:
        pytest.skip(reason)
    problem = Problem(
        REGISTRY,
        Trial(
            "speed",
            implementation,
            cell,
            batch=BATCH,
            time_steps=TIME_STEPS,
            input_size=INPUT,
            hidden_size=HIDDEN,
            threads=THREADS,
            seed=0,
            data_seed=0,
            optimizer=Optimizer(learning_rate=1e-3, epsilon=1e-3, clip_norm=0.01),
            settings=SpeedSettings((phase,)),
        ),
    )
    # The compiler of torch logs thousands of records.
    logging.getLogger("torch.__trace").propagate = False
    try:
        network, reference = own(problem.network()), Reference(problem)
    except UnavailableError as error:  # Keras takes one backend a process
        pytest.skip(str(error))
    timed = BatchPhase(phase, network)
    batches = [problem.batch("train", index) for index in range(ROUNDS + WARM_UP)]
    placed = [network.place(batch) for batch in batches]
    weights = problem.initial_weights()
    network.load_weights(weights)
    calls = iter(placed)
    benchmark.group = f"{cell} {phase}"
    others = OtherLoad()
    others.begin()
    benchmark.pedantic(
        timed.call,
        setup=lambda: ((next(calls),), {}),
        rounds=ROUNDS,
        warmup_rounds=WARM_UP,
    )
    other_load = others.end()
    _hold_against_the_reference(timed.found(), reference, weights, batches, phase)
    if not benchmark.stats:  # --benchmark-disable
        return
    times_s = benchmark.stats.stats.data
    time_s = benchmark.stats.stats.median
    flop_per_s = flops_of_call(problem, phase, BATCH) / time_s
    framework = REGISTRY.framework_of(implementation)
    benchmark.extra_info.update(
        shape=f"batch {BATCH}, time steps {TIME_STEPS}, input {INPUT}, hidden {HIDDEN}",
        threads=THREADS,
        dtype="float32",
        framework=framework_versions(framework.name, framework.distributions),
        kernel=network.kernel(),
        tokens_per_s=BATCH * TIME_STEPS / time_s,
        flop_per_s=flop_per_s,
        fraction_of_peak=flop_per_s / peak_flop_per_s,
        certificate=_certificate(problem.trial),
        machine=[fitness.verdict, *(reason.words for reason in fitness.reasons)],
        other_load_cores=other_load,
        shaky=shaky(times_s, other_load),
    )


def shaky(times_s: Sequence[float], other_load: float) -> list[str]:
    """Return why the median of rounds of one call each is shaky."""
    readings = [[time_s] for time_s in times_s]
    found = unstable(Turns(readings, [other_load]), median_interval(readings))
    return [reason.words for reason in found]


def _certificate(trial: Trial) -> str:
    """Say when the implementation was certified with these sources and libraries."""
    trial = certificate_trial(trial)
    sources = source_hashes(REGISTRY, trial)
    todo = Planned(trial, trial.identity(sources), sources, runs=True, why="new")
    found = CertificateCache(REGISTRY).find(todo)
    if found is None:
        return f"no cached certificate; run `rnn-harness check {trial.implementation}`"
    return f"certified {found.made}"


def _hold_against_the_reference(
    computed: Weights,
    reference: Reference,
    weights: Weights,
    batches: Sequence[Batch],
    phase: str,
) -> None:
    """Check the last call, and for training the weights after all calls."""
    tolerance = TOLERANCES["float32", "highest"].certified

    def expected(nudge: int | None) -> Weights:
        reference.load(weights, nudge)
        if phase == "forward":
            return {"outputs": reference.outputs(batches[-1])}
        return reference.train(batches)

    found = ReadBack(tolerance)
    found.compare(computed, expected, phase, tolerance)
    assert found.ok, f"{found.where} is off by {found.error:.2g}"
