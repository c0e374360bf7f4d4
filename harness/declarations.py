"""What is known of a plugin before any of its code runs.

Every command reads declarations, which import nothing. Only a worker follows the
`module:callable` in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeVar

from harness.conformance import (
    FLAG,
    LINE,
    MOST_ITEMS,
    RANGES,
    REFERENCE,
    VARIABLES,
    Allowed,
    check_name,
    is_line,
    is_list,
    is_long,
    is_module,
    is_name,
    is_word,
    list_of,
    or_none,
)
from harness.errors import shown

BUILT_IN = "built in"

INITS = ("canonical", "chrono")
"""The schemes of initial values that every cell has: a certificate uses both."""

_EVERY = ("equations", "reference")


def _is_every(value: object) -> bool:
    return value is None or (isinstance(value, str) and value in _EVERY)


_OPTIONAL = or_none(REFERENCE)
_ARGUMENTS: Mapping[str, Allowed] = {
    "factory": _OPTIONAL,
    "summary": LINE,
    "files": list_of("paths", "['settings.json', 'weights/*.npz']", is_line, 0),
    # of a framework
    "modules": list_of("modules", "['torch']", is_module, 0),
    "distributions": list_of("words", "['torch', 'torch-xla']", is_word, 0),
    "extra": or_none(Allowed("a word, such as 'torch'", is_word)),
    "environment": VARIABLES,
    "probe": _OPTIONAL,
    # of a cell
    "equations": _OPTIONAL,
    "reference": FLAG,
    "inits": Allowed(
        "a list of names, of lower-case letters, digits and single hyphens, with "
        f"{' and '.join(INITS)}",
        lambda value: is_list(value, is_name) and {*INITS} <= {*value},
        kept=tuple,
    ),
    "states": RANGES,
    # of an implementation
    "framework": Allowed("the name of a framework, such as 'torch'", is_line),
    "every": Allowed("'equations' or 'reference', or None", _is_every),
    "cells": list_of("names", "['gru'], or 'equations' or 'reference'", is_line, 0),
    "layer": _OPTIONAL,
    "loop": _OPTIONAL,
    "trains": FLAG,
    "devices": list_of("words", "['cpu', 'cuda']", is_word),
    "dtypes": list_of("words", "['float32', 'float64']", is_word),
    "precisions": list_of("words", "['highest', 'tf32']", is_word),
    "biases": list_of("words", "['canonical', 'native']", is_word),
}
"""What each argument of a declaration may be, besides its name."""


@dataclass(frozen=True)
class Declaration:
    """What is known of a plugin before any of its code runs.

    Attributes:
        callables: The fields that say where the plugin's code is.
        allowed: What the fields may hold that the author of a plugin gives.
        name: Lower-case words joined by hyphens.
        factory: `module:callable`; in a plugin file the file's own name is the module.
        summary: One line for `list`.
        files: Paths and patterns of files that the plugin reads, from its folder.
        origin: The distribution or file that declares it.
        file: The plugin file that declares it, or None.
    """

    kind: ClassVar[str] = "plugin"
    callables: ClassVar[tuple[str, ...]] = ("factory",)
    allowed: ClassVar[Mapping[str, Allowed]] = _ARGUMENTS

    name: str
    factory: str | None
    summary: str = ""
    files: tuple[str, ...] = ()
    origin: str = BUILT_IN
    file: Path | None = None

    def __post_init__(self) -> None:
        check_name(self.kind, self.name)
        for each in fields(self):
            allowed, value = self.allowed.get(each.name), getattr(self, each.name)
            if allowed is None:
                continue
            if is_long(value):
                raise ValueError(
                    f"{self.kind} '{self.name}': {each.name} has {len(value)} items; "
                    f"give at most {MOST_ITEMS}"
                )
            if not allowed.holds(value):
                self._refuse(each.name)
            if allowed.kept is not None:  # the author's own list may change later
                object.__setattr__(self, each.name, allowed.kept(value))

    def _refuse(self, argument: str) -> NoReturn:
        raise ValueError(
            f"{self.kind} '{self.name}': {argument} must be "
            f"{self.allowed[argument].words}, not {shown(getattr(self, argument))}"
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


@dataclass(frozen=True)
class CellDeclaration(Declaration):
    """A recurrence; `factory()` returns a `Cell`.

    Attributes:
        equations: `module:callable`, an `Equations`: one time step in the operations of
            any framework.
        reference: Whether the cell is a `ReferenceCell`.
        inits: The schemes that `Cell.initial_weights` knows and a suite may name.
        states: What a state part can be, from (low) to (high), by part. A part that is
            not named can be any number.
    """

    kind: ClassVar[str] = "cell"
    callables: ClassVar[tuple[str, ...]] = ("factory", "equations")
    allowed: ClassVar[Mapping[str, Allowed]] = {**_ARGUMENTS, "factory": REFERENCE}

    equations: str | None = None
    reference: bool = True
    inits: tuple[str, ...] = INITS
    states: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskDeclaration(Declaration):
    """A sequence problem; `factory(**options)` returns a `Task`."""

    kind: ClassVar[str] = "task"
    allowed: ClassVar[Mapping[str, Allowed]] = {**_ARGUMENTS, "factory": REFERENCE}


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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every is None and not self.cells:
            self._refuse("cells")

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


@contextmanager
def collecting() -> Iterator[list[Declaration]]:
    """Collect what is declared inside the block, such as by running a plugin file."""
    declared: list[Declaration] = []
    token = _declared.set(declared)
    try:
        yield declared
    finally:
        _declared.reset(token)


def _declare(kind: type[D], *arguments: Any, **named: Any) -> D:
    """Declare a plugin; before the check, its arguments may be of any type."""
    declaration = kind(*arguments, **named)
    collecting = _declared.get()
    if collecting is not None:
        if len(collecting) >= MOST_ITEMS:
            raise ValueError(f"more than {MOST_ITEMS} plugins are declared")
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
    files: Sequence[str] = (),
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
        files: Files that it reads, as paths or patterns from the plugin's folder.

    Raises:
        ValueError: If an argument is not what it may be; the message says which.
    """
    return _declare(
        FrameworkDeclaration,
        name,
        factory,
        summary,
        files,
        modules=modules,
        distributions=modules if distributions is None else distributions,
        extra=extra,
        environment={} if environment is None else environment,
        probe=probe,
    )


def declare_cell(
    name: str,
    *,
    factory: str,
    equations: str | None = None,
    reference: bool = True,
    inits: Sequence[str] = INITS,
    states: Mapping[str, Sequence[float]] | None = None,
    summary: str = "",
    files: Sequence[str] = (),
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
        states: What a state part can be, by part: {"h": (0.1, 1.0)} for a cell that
            takes the logarithm of h. A certificate draws states from there, by default
            from -0.5 to 0.5. Where no state is given, every part is zero nevertheless.
        summary: One line for `list`.
        files: Files that it reads, as paths or patterns from the plugin's folder.

    Raises:
        ValueError: If an argument is not what it may be; the message says which.
    """
    return _declare(
        CellDeclaration,
        name,
        factory,
        summary,
        files,
        equations=equations,
        reference=reference,
        inits=inits,
        states={} if states is None else states,
    )


def declare_task(
    name: str, *, factory: str, summary: str = "", files: Sequence[str] = ()
) -> TaskDeclaration:
    """Declare a sequence problem; `factory(**options)` returns a `Task`.

    Args:
        name: How commands and reports call it.
        factory: `module:callable`, called with the options that a suite gives.
        summary: One line for `list`.
        files: Files that it reads, as paths or patterns from the plugin's folder.

    Raises:
        ValueError: If an argument is not what it may be; the message says which.
    """
    return _declare(TaskDeclaration, name, factory, summary, files)


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
    files: Sequence[str] = (),
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
        files: Files that it reads, as paths or patterns from the plugin's folder.

    Raises:
        ValueError: If an argument is not what it may be, or not exactly one of
            `factory`, `layer` and `loop` is given; the message says which.
    """
    if sum(given is not None for given in (factory, layer, loop)) != 1:
        raise ValueError(
            f"implementation {shown(name)}: give one of factory, layer and loop"
        )
    every = cells if isinstance(cells, str) and cells in _EVERY else None
    return _declare(
        ImplementationDeclaration,
        name,
        factory,
        summary,
        files,
        framework=framework,
        cells=cells if every is None else (),
        every=every,
        layer=layer,
        loop=loop,
        trains=trains,
        devices=devices,
        dtypes=dtypes,
        precisions=precisions,
        biases=biases,
    )
