"""From a trial to its network, initial values and batches."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Cell,
    Inputs,
    LayerSizes,
    NetworkSpec,
    Oracle,
    Quantity,
    Readout,
    State,
    Target,
    Task,
    TrainableNetwork,
    Weights,
)
from harness.errors import PluginError, RefusedError
from harness.loading import load_task
from harness.measure.subject import Subject, offered
from harness.reading import Reading
from harness.registry import Registry
from harness.runner.runner import AnyStopwatch, Runner
from harness.trial import PhasesSettings, Trial

HELD_OUT_SEED = 0
"""All seeds share one held-out set, so that all are asked the same questions."""

_SPLITS = {"train": 0, "held_out": 1, "gradients": 2}

_COMPARED = 48
"""Sequences that two seeds draw: so many differ, unless a task ignores its `rng`."""


@dataclass(frozen=True)
class Measurement:
    """What a measure found.

    Attributes:
        outcome: `ok`, or how else the trial ended, with its reason.
        readings: Values of the whole trial.
        facts: What the result holds besides values: kernel, parameters, sizes.
        quantities: Unit and direction of every metric.
        arrays: Tensors to store, such as trained weights.
    """

    readings: list[Reading]
    facts: dict[str, Any]
    quantities: Mapping[str, Quantity]
    outcome: str = "ok"
    reason: str | None = None
    arrays: Weights = field(default_factory=dict)


class Problem:
    """The network and the data of one trial.

    Args:
        registry: Every plugin.
        trial: The trial.
        runner: Where its network lives; None is this process.

    Raises:
        MisuseError: If a name is unknown.
        PluginError: If a plugin cannot be used.
        RefusedError: If the implementation does not offer what the trial asks for.
        ValueError: If a size is out of range.
    """

    def __init__(
        self, registry: Registry, trial: Trial, runner: Runner | None = None
    ) -> None:
        self.trains = offered(registry, trial).trains
        self.trial = trial
        self._subject = Subject.of(registry, trial, runner)
        self.cell = self._subject.cell
        self.task: Task | None = None
        if trial.task is not None:
            self.task = load_task(registry, trial.task, trial.task_options)
        self.spec = self._spec()

    def _spec(self) -> NetworkSpec:
        trial = self.trial
        if self.task is not None:
            info = self.task.info
            inputs, output_size = info.inputs, info.output_size
            readout, target = info.readout, info.target
        else:
            inputs, output_size = Inputs("reals", trial.needed("input_size")), 1
            readout, target = Readout(trial.readout), Target.REAL
        return NetworkSpec(
            cell=trial.cell,
            inputs=inputs,
            hidden_size=trial.needed("hidden_size"),
            output_size=output_size,
            readout=readout,
            target=target,
            num_layers=trial.num_layers,
            optimizer=trial.optimizer,
            dtype=trial.dtype,
            precision=trial.precision,
            biases=trial.biases,
        )

    @property
    def time_steps(self) -> int:
        """Length of the sequences."""
        if self.task is not None:
            return self.task.time_steps(self.trial.needed("length"))
        return self.trial.needed("time_steps")

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases that are measured, of a measure that has phases."""
        return self.trial.settings_as(PhasesSettings).phases

    def task_and_length(self) -> tuple[Task, int]:
        """Return the task and its length.

        Raises:
            ValueError: If the trial has no task.
        """
        if self.task is None:
            raise ValueError(f"{self.trial.label} has no task")
        return self.task, self.trial.needed("length")

    def network(self) -> TrainableNetwork:
        """Build the trial's network; no weights are loaded yet.

        If the implementation only infers, the network computes no gradients.
        """
        return self._subject.network(self.spec)

    def check_given(self) -> None:
        """Check that the network left alone the arrays that it was given.

        Raises:
            PluginError: If it wrote into one.
        """
        written = dict.fromkeys(self.runner.written)
        if written:
            reason = f"{', '.join(written)}; it must copy what it is given first"
            raise PluginError(self.trial.implementation, reason)

    def stopwatch(self, network: TrainableNetwork) -> AnyStopwatch:
        """Return a stopwatch for the trial's network, where it lives."""
        trial = self.trial
        return self.runner.stopwatch(
            trial.implementation, network, self.zero_state(), trial.device
        )

    @property
    def runner(self) -> Runner:
        """Where the trial's network lives."""
        return self._subject.runner

    def trainable_network(self) -> TrainableNetwork:
        """Build the trial's network, which must train.

        Raises:
            RefusedError: If the implementation only infers.
        """
        if not self.trains:
            raise RefusedError(f"{self.trial.implementation} does not train")
        return self.network()

    def oracle(self) -> Oracle:
        """Build the float64 reference of the same network."""
        return self._subject.oracle(self.spec)

    def initial_weights(self, draw: int = 0) -> Weights:
        """Draw the network's initial values in float64; `draw` is added to the seed."""
        seed = self.trial.needed("seed") + draw
        return initial_weights(
            self.spec, self.cell, self.trial.init, seed, self.time_steps
        )

    def zero_state(self) -> State:
        """Return the state before a single sequence."""
        spec = self.spec
        zero = np.zeros((spec.num_layers, 1, spec.hidden_size), spec.dtype)
        return (zero,) * len(self.cell.info.state_parts)

    def batch(self, split: str, index: int, size: int | None = None) -> Batch:
        """Draw a batch, by default of the trial's size.

        It is a function of task, split, data seed, index and size alone.

        Raises:
            PluginError: If the task draws the same for every seed.
        """
        trial = self.trial
        size = trial.needed("batch") if size is None else size
        if self.task is None:
            return _random_batch(self.spec, self.time_steps, size, index)
        if self._ignored_rng is not None:
            raise PluginError(self.task.info.name, self._ignored_rng)
        train = split == "train"
        data_seed = trial.needed("data_seed") if train else HELD_OUT_SEED
        name = zlib.crc32(self.task.info.name.encode())
        sequence = np.random.SeedSequence([name, _SPLITS[split], data_seed, index])
        rng = np.random.default_rng(sequence)
        drawn = self.task.sample(rng, batch=size, length=trial.needed("length"))
        return _fixed(drawn)

    @cached_property
    def _ignored_rng(self) -> str | None:
        return ignored_rng(*self.task_and_length())

    def batches(self, split: str, sequences: int, size: int) -> Iterator[Batch]:
        """Draw `sequences` in batches of at most `size`."""
        for index, start in enumerate(range(0, sequences, size)):
            yield self.batch(split, index, min(size, sequences - start))

    def facts(self, kernel: str) -> dict[str, Any]:
        """Return the facts that every result holds: kernel, parameters, time steps."""
        return {
            "kernel": kernel,
            "parameters": self.parameters(),
            "time_steps": self.time_steps,
        }

    def parameters(self) -> dict[str, int]:
        """Count the network's parameters: canonical, and as each framework counts."""
        shapes = self.spec.weight_shapes(self.cell).items()
        outside = sum(
            math.prod(s) for name, s in shapes if not name.startswith("layer")
        )
        layers: Counter[str] = Counter()
        for width in self.spec.layer_input_sizes:
            layers.update(self.cell.parameter_counts(width, self.spec.hidden_size))
        return {name: outside + count for name, count in layers.items()}


def _fixed(batch: Batch) -> Batch:
    """Return a copy that cannot be written into: a task may change its own arrays."""
    arrays = [np.array(array) for array in vars(batch).values()]
    for array in arrays:
        array.flags.writeable = False
    return Batch(*arrays)


def ignored_rng(task: Task, length: int) -> str | None:
    """Return what is wrong if a task draws the same for two seeds, or None."""
    one, other = (
        _fixed(task.sample(np.random.default_rng(s), batch=_COMPARED, length=length))
        for s in (0, 1)
    )
    if same(one.inputs, other.inputs) and same(one.targets, other.targets):
        return (
            f"inputs and targets of {_COMPARED} sequences of length {length} are the "
            "same for two seeds, so training and held-out data would be the same; "
            "sample must draw all that is random from the rng that it is given"
        )
    return None


def same(one: Array, other: Array) -> bool:
    """Say whether two arrays hold the same; NaN is NaN."""
    if one.shape != other.shape:
        return False
    return bool(np.all((one == other) | ((one != one) & (other != other))))


def rows(batch: Batch, which: Array | slice) -> Batch:
    """Return some sequences of a batch."""
    return Batch(*(array[which] for array in vars(batch).values()))


def initial_weights(
    spec: NetworkSpec, cell: Cell, scheme: str, seed: int, time_steps: int
) -> Weights:
    """Draw a network's initial values in float64: one seed, one network, everywhere.

    Each layer has its own stream of random numbers, so that its values do not depend on
    the other layers. The readout is Glorot-uniform with a zero bias (Glorot & Bengio
    2010), an embedding is standard normal.

    Raises:
        ValueError: If the cell knows no such scheme.
    """
    weights: Weights = {}
    for layer, width in enumerate(spec.layer_input_sizes):
        sizes = LayerSizes(width, spec.hidden_size, time_steps)
        rng = _stream(seed, f"layer{layer}")
        for name, tensor in cell.initial_weights(scheme, rng, sizes).items():
            weights[f"layer{layer}.{name}"] = tensor
    bound = np.sqrt(6 / (spec.hidden_size + spec.output_size))
    shapes = spec.weight_shapes(cell)
    rng = _stream(seed, "readout")
    weights["readout.w"] = rng.uniform(-bound, bound, shapes["readout.w"])
    weights["readout.b"] = np.zeros(shapes["readout.b"])
    if spec.inputs.embedded:
        rng = _stream(seed, "embedding")
        weights["embedding"] = rng.standard_normal(shapes["embedding"])
    return {name: weights[name] for name in shapes}


def _stream(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng(
        np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    )


def _random_batch(spec: NetworkSpec, time_steps: int, size: int, index: int) -> Batch:
    rng = _stream(index, "random batch")
    inputs = rng.standard_normal((size, time_steps, spec.inputs.size))
    readouts = spec.readouts(time_steps)
    targets = rng.standard_normal((size, readouts, spec.output_size))
    return Batch(
        inputs.astype(np.float32),
        np.full(size, time_steps),
        targets.astype(np.float32),
        np.ones((size, readouts), bool),
    )
