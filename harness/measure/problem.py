"""From a trial to what it runs on: network, initial values and batches."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, cast

import numpy as np

from harness.contract import (
    Batch,
    Cell,
    DeviceProbe,
    Inputs,
    LayerSizes,
    Network,
    NetworkSpec,
    Oracle,
    Quantity,
    Readout,
    Target,
    Task,
    TrainableNetwork,
    Weights,
)
from harness.declarations import ImplementationDeclaration
from harness.errors import RefusedError
from harness.loading import (
    build_around,
    build_network,
    load_cell,
    load_equations,
    load_probe,
    load_task,
)
from harness.measure.equations import EquationSteps
from harness.measure.own_step import OwnStep, own_step_spec
from harness.registry import Registry
from harness.store import Reading
from harness.trial import Trial

ORACLE = "numpy-reference"
"""The implementation every other is compared with."""

HELD_OUT_SEED = 0
"""One held-out set for every seed, so that all are asked the same questions."""

_SPLITS = {"train": 0, "held_out": 1, "gradients": 2}


@dataclass(frozen=True)
class Measurement:
    """What a measure found.

    Attributes:
        outcome: `ok`, or how the trial ended otherwise, with its reason.
        readings: Values of the whole trial.
        facts: What the result says beside its values: kernel, parameters, sizes.
        quantities: Unit and direction of every metric.
        arrays: Tensors worth keeping, such as trained weights.
    """

    readings: list[Reading]
    facts: dict[str, Any]
    quantities: Mapping[str, Quantity]
    outcome: str = "ok"
    reason: str | None = None
    arrays: Weights = field(default_factory=dict)


class Problem:
    """The network and the data of one trial.

    Raises:
        MisuseError: If a name is unknown.
        PluginError: If a plugin cannot be used.
        RefusedError: If the implementation does not offer what the trial asks.
        ValueError: If a size is out of range.
    """

    def __init__(self, registry: Registry, trial: Trial) -> None:
        self.trains = offered(registry, trial).trains
        self._registry = registry
        self.trial = trial
        self.cell: Cell = load_cell(registry, trial.cell)
        self.task: Task | None = None
        if trial.task is not None:
            self.task = load_task(registry, trial.task, trial.task_options)
        self.spec = self._spec()

    def _spec(self) -> NetworkSpec:
        trial = self.trial
        assert trial.hidden_size is not None
        if self.task is not None:
            info = self.task.info
            inputs, output_size = info.inputs, info.output_size
            readout, target = info.readout, info.target
        else:
            assert trial.input_size is not None
            inputs, output_size = Inputs("reals", trial.input_size), 1
            readout, target = Readout.LAST, Target.REAL
        return NetworkSpec(
            cell=trial.cell,
            inputs=inputs,
            hidden_size=trial.hidden_size,
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
            assert self.trial.length is not None
            return self.task.time_steps(self.trial.length)
        assert self.trial.time_steps is not None
        return self.trial.time_steps

    def network(self) -> Network:
        """Build the trial's network; its weights are still unset."""
        trial = self.trial
        return build_network(
            self._registry, trial.implementation, self.spec, self.cell, trial.device
        )

    def probe(self) -> DeviceProbe | None:
        """Return the probe of the trial's framework on its device, or None."""
        framework = self._registry.framework_of(self.trial.implementation).name
        return load_probe(self._registry, framework, self.trial.device)

    def trainable_network(self) -> TrainableNetwork:
        """Build the trial's network, which must train.

        Raises:
            RefusedError: If the implementation only infers.
        """
        if not self.trains:
            raise RefusedError(f"{self.trial.implementation} does not train")
        return cast(TrainableNetwork, self.network())

    def oracle(self) -> Oracle:
        """Build the float64 reference of the same network."""
        return build_oracle(self._registry, self.trial, self.spec, self.cell)

    def initial_weights(self, draw: int = 0) -> Weights:
        """Draw the network's initial values, in float64; `draw` counts on the seed."""
        assert self.trial.seed is not None
        seed = self.trial.seed + draw
        return initial_weights(
            self.spec, self.cell, self.trial.init, seed, self.time_steps
        )

    def batch(self, split: str, index: int, size: int) -> Batch:
        """Draw a batch: a function of task, split, data seed and index alone."""
        trial = self.trial
        if self.task is None:
            return _random_batch(self.spec, self.time_steps, size, index)
        assert trial.length is not None
        assert trial.data_seed is not None
        data_seed = trial.data_seed if split == "train" else HELD_OUT_SEED
        name = zlib.crc32(self.task.info.name.encode())
        sequence = np.random.SeedSequence([name, _SPLITS[split], data_seed, index])
        rng = np.random.default_rng(sequence)
        return self.task.sample(rng, batch=size, length=trial.length)

    def batches(self, split: str, sequences: int, size: int) -> Iterator[Batch]:
        """Draw `sequences` in batches of at most `size`."""
        for index, start in enumerate(range(0, sequences, size)):
            yield self.batch(split, index, min(size, sequences - start))

    def parameters(self) -> dict[str, int]:
        """Count the network's parameters: canonical, and as each framework counts."""
        shapes = self.spec.weight_shapes(self.cell)
        outside = sum(
            int(np.prod(shape))
            for name, shape in shapes.items()
            if not name.startswith("layer")
        )
        counts: dict[str, int] = {}
        for width in self.spec.layer_input_sizes:
            layer = self.cell.parameter_counts(width, self.spec.hidden_size)
            for name, count in layer.items():
                counts[name] = counts.get(name, outside) + count
        return counts

    def forward_flops(self, batch: int) -> int:
        """Count the forward operations of a batch: layers and readout."""
        layers, readout = self._flops
        readouts = self.spec.readouts(self.time_steps)
        return batch * (self.time_steps * layers + readouts * readout)

    def step_flops(self) -> int:
        """Count the forward operations of one time step of one sequence, answered."""
        return sum(self._flops)

    @property
    def _flops(self) -> tuple[int, int]:
        """Operations of all layers in one time step, and of one readout."""
        layers = sum(
            self.cell.flops(width, self.spec.hidden_size)
            for width in self.spec.layer_input_sizes
        )
        return layers, 2 * self.spec.hidden_size * self.spec.output_size


def by_reference(registry: Registry, trial: Trial) -> bool:
    """Say whether numpy's reference computes a trial in its implementation's place."""
    return trial.measure == "gradients" and registry.cell(trial.cell).reference


def offered(registry: Registry, trial: Trial) -> ImplementationDeclaration:
    """Return the declaration of a trial's implementation, which must offer the trial.

    Raises:
        MisuseError: If the name is unknown.
        RefusedError: If it does not offer the cell, device, dtype, precision or biases.
    """
    declared = registry.implementation(trial.implementation)
    declined = declared.declines(
        cell=trial.cell,
        device=trial.device,
        dtype=trial.dtype,
        precision=trial.precision,
        biases=trial.biases,
    )
    if declined is not None:
        raise RefusedError(declined)
    return declared


class Basis(Enum):
    """What an implementation of a cell is held against."""

    REFERENCE = "the float64 reference"
    EQUATIONS = "the cell's equations in float64"
    OWN_STEPS = "its own single time steps"


def basis_of(registry: Registry, cell: str) -> Basis:
    """Return what a cell has to be held against, the best of it.

    Raises:
        MisuseError: If the name is unknown.
    """
    declared = registry.cell(cell)
    if declared.reference:
        return Basis.REFERENCE
    return Basis.OWN_STEPS if declared.equations is None else Basis.EQUATIONS


def build_oracle(
    registry: Registry, trial: Trial, spec: NetworkSpec, cell: Cell
) -> Oracle:
    """Build the float64 reference of a trial's network.

    A cell without a reference is computed by its equations. One without those either
    is computed by the implementation's own single time steps, in float64 where it
    offers that.

    Raises:
        RefusedError: If there is neither and the implementation does not train.
    """
    reference = replace(spec, dtype="float64", precision="highest", biases="canonical")
    basis = basis_of(registry, trial.cell)
    if basis is Basis.REFERENCE:
        return cast(Oracle, build_network(registry, ORACLE, reference, cell, "cpu"))
    if basis is Basis.EQUATIONS:
        steps = EquationSteps(load_equations(registry, trial.cell), cell.info)
        return _oracle_around(registry, lambda *_: steps, reference, cell)
    name = trial.implementation
    declared = registry.implementation(name)
    if not declared.trains:
        raise RefusedError(
            f"{name} does not train and cell {trial.cell} has neither a reference nor "
            "equations, so there is nothing to hold it against"
        )
    dtype = "float64" if "float64" in declared.dtypes else "float32"

    def own_step(cell_name: str, input_size: int, hidden_size: int) -> OwnStep:
        small = own_step_spec(reference, input_size, dtype)
        network = build_network(registry, name, small, cell, trial.device)
        return OwnStep(cast(TrainableNetwork, network), small, cell)

    return _oracle_around(registry, own_step, reference, cell)


def _oracle_around(
    registry: Registry,
    layer: Callable[[str, int, int], Any],
    reference: NetworkSpec,
    cell: Cell,
) -> Oracle:
    return cast(Oracle, build_around(registry, "numpy", layer, reference, cell, "cpu"))


def initial_weights(
    spec: NetworkSpec, cell: Cell, scheme: str, seed: int, time_steps: int
) -> Weights:
    """Draw a network's initial values in float64: one seed, one network, everywhere.

    Each layer has a stream of its own, so that a layer's values do not depend on what
    stands beside it. The readout is Glorot-uniform with a zero bias (Glorot & Bengio
    2010), an embedding standard normal.

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
    targets = rng.standard_normal((size, 1, spec.output_size))
    return Batch(
        inputs.astype(np.float32),
        np.full(size, time_steps),
        targets.astype(np.float32),
        np.ones((size, 1), bool),
    )
