"""An implementation's network, and the reference that it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, cast

from harness.contract import (
    Cell,
    NetworkSpec,
    Oracle,
    ReferenceCell,
    Steps,
    TrainableNetwork,
)
from harness.declarations import ImplementationDeclaration
from harness.errors import PluginError, RefusedError
from harness.loading import build_around, load_cell, load_equations
from harness.measure.cell_contract import check_cell
from harness.measure.equations import EquationSteps
from harness.measure.own_step import OwnStep, own_step_spec
from harness.registry import Registry
from harness.runner.runner import InProcess, Runner
from harness.trial import Trial

ORACLE = "numpy-reference"
"""The implementation that all others are compared with."""


DRAWN = (-0.5, 0.5)
"""Where a part of a state is drawn from if its cell declares nothing."""


class Basis(Enum):
    """What an implementation of a cell is compared with."""

    REFERENCE = "the float64 reference"
    EQUATIONS = "the cell's equations in float64"
    OWN_STEPS = "its own single time steps"


def offered(registry: Registry, trial: Trial) -> ImplementationDeclaration:
    """Return the declaration of a trial's implementation, which must offer the trial.

    Raises:
        MisuseError: If the implementation's name is unknown.
        RefusedError: If it does not offer the cell, device, dtype, precision or biases.
    """
    declared = registry.implementation(trial.implementation)
    declined = declines(declared, trial)
    if declined is not None:
        raise RefusedError(declined)
    return declared


def declines(declared: ImplementationDeclaration, trial: Trial) -> str | None:
    """Return why an implementation does not offer what a trial asks for, or None."""
    return declared.declines(
        cell=trial.cell,
        device=trial.device,
        dtype=trial.dtype,
        precision=trial.precision,
        biases=trial.biases,
    )


@dataclass(frozen=True)
class Subject:
    """An implementation of a cell, and what it is compared with.

    Attributes:
        runner: Where networks of the implementation live.
    """

    registry: Registry
    trial: Trial
    cell: Cell
    runner: Runner

    @classmethod
    def of(
        cls, registry: Registry, trial: Trial, runner: Runner | None = None
    ) -> Subject:
        """Load the trial's cell; without a runner the implementation runs here.

        Raises:
            PluginError: If the cell cannot be used or breaks its contract.
        """
        cell = load_cell(registry, trial.cell)
        check_cell(trial.cell, cell, registry.cell(trial.cell).inits)
        return cls(registry, trial, cell, runner or InProcess(registry))

    @property
    def basis(self) -> Basis:
        """What the implementation is compared with: the best that the cell has."""
        declared = self.registry.cell(self.trial.cell)
        if declared.reference:
            return Basis.REFERENCE
        return Basis.OWN_STEPS if declared.equations is None else Basis.EQUATIONS

    def state_ranges(self) -> tuple[tuple[float, float], ...]:
        """Return from where to where each part of a state is drawn.

        Raises:
            PluginError: If the cell declares a part that it does not have.
        """
        parts = self.cell.info.state_parts
        declared = self.registry.cell(self.trial.cell).states
        for part in declared:
            if part not in parts:
                raise PluginError(
                    self.trial.cell,
                    f"states names '{part}'; its state has {', '.join(parts)}",
                )
        return tuple(declared.get(part, DRAWN) for part in parts)

    @property
    def takes_zeros(self) -> bool:
        """Whether zeros may be given as a state, and not only no state."""
        return all(low <= 0 <= high for low, high in self.state_ranges())

    def network(self, spec: NetworkSpec) -> TrainableNetwork:
        """Build the implementation's network.

        If the implementation only infers, the network computes no gradients.
        """
        return self.runner.network(self.trial.implementation, spec, self.trial.device)

    def oracle(self, spec: NetworkSpec) -> Oracle:
        """Build the float64 reference of a network.

        A cell without a reference is computed by its equations. A cell without either
        is computed by the implementation's own single time steps, in float64 where the
        implementation offers it.

        Raises:
            RefusedError: If the cell has neither and the implementation does not train.
        """
        if self.basis is Basis.OWN_STEPS:
            return self._around(spec, self._own_steps(spec))
        return self.oracle_around(spec, self.steps())

    def steps(self) -> Steps:
        """Return one layer's time step, from the cell's reference or its equations."""
        if self.basis is Basis.REFERENCE:
            return cast(ReferenceCell, self.cell)
        equations = load_equations(self.registry, self.trial.cell)
        return EquationSteps(equations, self.cell.info)

    def oracle_around(self, spec: NetworkSpec, steps: Steps) -> Oracle:
        """Build the reference around other time steps, the same in every layer."""
        return self._around(spec, lambda *_: steps)

    def _own_steps(self, spec: NetworkSpec) -> Callable[[str, int, int], Steps]:
        """Return a factory of layers from the implementation's single time steps."""
        name = self.trial.implementation
        declared = self.registry.implementation(name)
        if not declared.trains:
            raise RefusedError(
                f"{name} does not train and cell {self.trial.cell} has neither a "
                "reference nor equations, so there is nothing to compare it with"
            )

        def layer(_: str, input_size: int, __: int) -> OwnStep:
            small = own_step_spec(spec, input_size, "float64" in declared.dtypes)
            return OwnStep(self.network(small), small, self.cell, self.takes_zeros)

        return layer

    def _around(
        self, spec: NetworkSpec, layer: Callable[[str, int, int], Any]
    ) -> Oracle:
        spec = replace(spec, dtype="float64", precision="highest", biases="canonical")
        found = build_around(self.registry, "numpy", layer, spec, self.cell, "cpu")
        return cast(Oracle, found)
