"""What is known of a plugin before any of its code runs.

Every command reads declarations, which import nothing. Only a worker follows the
`module:callable` in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

BUILT_IN = "built in"


@dataclass(frozen=True)
class Declaration:
    """What is known of a plugin before any of its code runs.

    Attributes:
        callables: The fields that say where the plugin's code is.
        name: Lower-case words joined by hyphens.
        factory: `module:callable`; in a plugin file the file's own name is the module.
        summary: One line for `list`.
        origin: The distribution or file that declares it.
        file: The plugin file that declares it, or None.
    """

    kind: ClassVar[str] = "plugin"
    callables: ClassVar[tuple[str, ...]] = ("factory",)

    name: str
    factory: str | None
    summary: str = ""
    origin: str = BUILT_IN
    file: Path | None = None

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise ValueError(
                f"{self.kind} name {self.name!r}: use lower-case letters, digits and "
                "single hyphens, such as 'my-gru'"
            )
        for reference in self.references:
            self._check_form(reference)

    def _check_form(self, reference: str) -> None:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", reference):
            raise ValueError(
                f"{self.kind} '{self.name}': {reference!r} is not of the form "
                "'module:callable'"
            )

    @property
    def references(self) -> tuple[str, ...]:
        """Every `module:callable` of the plugin; its source is found from these."""
        given = (getattr(self, name) for name in self.callables)
        return tuple(reference for reference in given if reference is not None)


@dataclass(frozen=True)
class FrameworkDeclaration(Declaration):
    """A library that implementations compute with.

    `factory(spec, cell, device, layer)` builds a network around a layer.

    Attributes:
        modules: The modules that must be importable; the first is the framework itself.
        distributions: The distributions whose versions are the framework's.
        extra: The extra of this project that installs it.
        environment: Variables of a worker, set before the framework is imported.
        probe: `module:callable`; `probe(device)` returns a `DeviceProbe`. No trial's
            numbers come from it, so it is not among `references`.
    """

    kind: ClassVar[str] = "framework"

    modules: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    extra: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    probe: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probe is not None:
            self._check_form(self.probe)


def _is_name(value: object) -> bool:
    known = isinstance(value, str) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value)
    return bool(known)


INITS = ("canonical", "chrono")
"""The schemes of initial values that every cell has: a certificate uses both."""


@dataclass(frozen=True)
class CellDeclaration(Declaration):
    """A recurrence; `factory()` returns a `Cell`.

    Attributes:
        equations: `module:callable`, an `Equations`: one time step in the operations of
            any framework.
        reference: Whether the cell is a `ReferenceCell`.
        inits: The schemes that `Cell.initial_weights` knows and a suite may name.
    """

    kind: ClassVar[str] = "cell"
    callables: ClassVar[tuple[str, ...]] = ("factory", "equations")

    equations: str | None = None
    reference: bool = True
    inits: tuple[str, ...] = INITS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(map(_is_name, self.inits)) or not {*INITS} <= {*self.inits}:
            raise ValueError(
                f"cell '{self.name}': inits must be a list of names, of lower-case "
                f"letters, digits and single hyphens, with {' and '.join(INITS)}"
            )


@dataclass(frozen=True)
class TaskDeclaration(Declaration):
    """A sequence problem; `factory(**options)` returns a `Task`."""

    kind: ClassVar[str] = "task"


@dataclass(frozen=True)
class ImplementationDeclaration(Declaration):
    """One way to compute some cells.

    One of three is given. `factory(spec, cell, device)` returns a network. `layer(cell,
    input_size, hidden_size)` returns a layer that the framework's own factory builds
    upon. `loop(equations, cell, input_size, hidden_size)` returns such a layer for any
    cell that has equations.

    Attributes:
        every: What a cell must have to be computed, if `cells` are not named one by
            one; the registry then fills in `cells`.
    """

    kind: ClassVar[str] = "implementation"
    callables: ClassVar[tuple[str, ...]] = ("factory", "layer", "loop")

    framework: str = ""
    cells: tuple[str, ...] = ()
    every: Literal["equations", "reference"] | None = None
    layer: str | None = None
    loop: str | None = None
    trains: bool = True
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float32",)
    precisions: tuple[str, ...] = ("highest",)
    biases: tuple[str, ...] = ("canonical",)

    def declines(
        self, *, cell: str, device: str, dtype: str, precision: str, biases: str
    ) -> str | None:
        """Return why this implementation does not offer a combination, or None."""
        for what, asked, offered in (
            ("computes", cell, self.cells),
            ("runs on", device.split(":")[0], self.devices),
            ("computes in", dtype, self.dtypes),
            ("offers the precision", precision, self.precisions),
            ("offers biases", biases, self.biases),
        ):
            if asked not in offered:
                return f"{self.name} {what} {', '.join(offered)}, not {asked}"
        return None


# --- declaring -----------------------------------------------------------------------

_declared: ContextVar[list[Declaration] | None] = ContextVar("declared", default=None)
D = TypeVar("D", bound=Declaration)
_EVERY: tuple[Literal["equations", "reference"], ...] = ("equations", "reference")


@contextmanager
def collecting() -> Iterator[list[Declaration]]:
    """Collect what is declared inside the block, such as by running a plugin file."""
    declared: list[Declaration] = []
    token = _declared.set(declared)
    try:
        yield declared
    finally:
        _declared.reset(token)


def _declare(declaration: D) -> D:
    collecting = _declared.get()
    if collecting is not None:
        collecting.append(declaration)
    return declaration


def declare_framework(
    name: str,
    *,
    modules: Sequence[str],
    factory: str | None = None,
    distributions: Sequence[str] | None = None,
    extra: str | None = None,
    environment: Mapping[str, str] | None = None,
    probe: str | None = None,
    summary: str = "",
) -> FrameworkDeclaration:
    """Declare a library, the modules it needs and the factory of its networks.

    Args:
        name: How implementations call it.
        modules: What must be importable; the first is the framework itself.
        factory: `module:callable`, called with (spec, cell, device, layer).
        distributions: Where versions are read, by default named as the modules.
        extra: The extra of this project that installs it.
        environment: Variables of a worker, set before the framework is imported.
        probe: `module:callable`, called with (device) for a `DeviceProbe`: what
            `doctor` measures a device's peak with.
        summary: One line for `list`.

    Raises:
        ValueError: If a name or a `module:callable` is not well formed.
    """
    return _declare(
        FrameworkDeclaration(
            name,
            factory,
            summary,
            modules=tuple(modules),
            distributions=tuple(distributions or modules),
            extra=extra,
            environment=dict(environment or {}),
            probe=probe,
        )
    )


def declare_cell(
    name: str,
    *,
    factory: str,
    equations: str | None = None,
    reference: bool = True,
    inits: Sequence[str] = INITS,
    summary: str = "",
) -> CellDeclaration:
    """Declare a recurrence; `factory()` returns a `harness.contract.Cell`.

    Args:
        name: How commands and reports call it.
        factory: `module:callable`, called without arguments.
        equations: `module:callable`, one time step in the operations of any framework
            (`harness.contract.Equations`); every framework's loop then computes it.
        reference: False for a cell without `step` and `step_backward` in numpy. Its
            implementations are certified against the equations or, without equations,
            only against their own single time steps.
        inits: Every scheme that the cell's `initial_weights` knows; a suite may name
            no other.
        summary: One line for `list`.

    Raises:
        ValueError: If a name or a `module:callable` is not well formed.
    """
    return _declare(
        CellDeclaration(
            name,
            factory,
            summary,
            equations=equations,
            reference=reference,
            inits=tuple(inits),
        )
    )


def declare_task(name: str, *, factory: str, summary: str = "") -> TaskDeclaration:
    """Declare a sequence problem; `factory(**options)` returns a `Task`.

    Raises:
        ValueError: If a name or a `module:callable` is not well formed.
    """
    return _declare(TaskDeclaration(name, factory, summary))


def declare_implementation(
    name: str,
    *,
    framework: str,
    cells: Sequence[str] | Literal["equations", "reference"],
    factory: str | None = None,
    layer: str | None = None,
    loop: str | None = None,
    trains: bool = True,
    devices: Sequence[str] = ("cpu",),
    dtypes: Sequence[str] = ("float32",),
    precisions: Sequence[str] = ("highest",),
    biases: Sequence[str] = ("canonical",),
    summary: str = "",
) -> ImplementationDeclaration:
    """Declare one way to compute some cells.

    Args:
        name: How commands and reports call it.
        framework: The declared library it computes with.
        cells: Names of the cells it computes; "equations" or "reference" for every cell
            that has them.
        factory: `module:callable`, called with (spec, cell, device) for a network.
        layer: `module:callable`, called with (cell, input_size, hidden_size) for a
            layer in the framework's own form; instead of `factory`.
        loop: `module:callable`, called with (equations, cell, input_size, hidden_size)
            for such a layer; instead of `factory`, for cells that have equations.
        trains: False for an implementation that only infers.
        devices: Kinds of device it runs on.
        dtypes: What it computes in.
        precisions: Precision modes it offers.
        biases: Bias modes it offers.
        summary: One line for `list`.

    Raises:
        ValueError: If a name is not well formed, no cell is named, or not exactly one
            of `factory`, `layer` and `loop` is given.
    """
    head = f"implementation '{name}'"
    if sum(given is not None for given in (factory, layer, loop)) != 1:
        raise ValueError(f"{head}: give one of factory, layer and loop")
    every = next((e for e in _EVERY if cells == e), None)
    if every is None and (isinstance(cells, str) or not cells):
        raise ValueError(f"{head}: cells must be a list of names")
    return _declare(
        ImplementationDeclaration(
            name,
            factory,
            summary,
            framework=framework,
            cells=() if every else tuple(cells),
            every=every,
            layer=layer,
            loop=loop,
            trains=trains,
            devices=tuple(devices),
            dtypes=tuple(dtypes),
            precisions=tuple(precisions),
            biases=tuple(biases),
        )
    )
