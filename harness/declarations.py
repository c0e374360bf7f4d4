"""What is known of a plugin before any of its code runs.

A declaration imports nothing and is read by every command; the `module:callable` in it
is followed by a worker alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

BUILT_IN = "built in"


@dataclass(frozen=True)
class Declaration:
    """What is known of a plugin before any of its code runs.

    Attributes:
        name: Lower-case words joined by hyphens.
        factory: `module:callable`; in a plugin file the file's own name is the module.
        summary: One line for `list`.
        origin: Distribution or file it came from.
        file: The plugin file, where it came from one.
    """

    kind: ClassVar[str] = "plugin"

    name: str
    factory: str | None
    summary: str = ""
    origin: str = BUILT_IN
    file: Path | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ValueError(
                f"{self.kind} name {self.name!r}: use lower-case letters, digits and "
                "single hyphens, such as 'my-gru'"
            )
        if self.factory is not None and not re.fullmatch(
            r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.factory
        ):
            raise ValueError(
                f"{self.kind} '{self.name}': {self.factory!r} is not of the form "
                "'module:callable'"
            )


@dataclass(frozen=True)
class FrameworkDeclaration(Declaration):
    """A library that implementations compute with.

    `factory(spec, cell, device, layer)` builds a network around a layer. `module` is
    what must be importable, `extra` what installs it.
    """

    kind: ClassVar[str] = "framework"

    module: str = ""
    distribution: str = ""
    extra: str | None = None


@dataclass(frozen=True)
class CellDeclaration(Declaration):
    """A recurrence; `factory()` returns a `Cell`."""

    kind: ClassVar[str] = "cell"


@dataclass(frozen=True)
class TaskDeclaration(Declaration):
    """A sequence problem; `factory(**options)` returns a `Task`."""

    kind: ClassVar[str] = "task"


@dataclass(frozen=True)
class ImplementationDeclaration(Declaration):
    """One way to compute some cells.

    Either `factory(spec, cell, device)` returns a network, or `layer(cell, input_size,
    hidden_size)` returns a layer that the framework's own factory builds upon.
    """

    kind: ClassVar[str] = "implementation"

    framework: str = ""
    cells: tuple[str, ...] = ()
    layer: str | None = None
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
                return f"{self.name} {what} {', '.join(offered)}; asked was {asked}"
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


def _declare(declaration: D) -> D:
    collecting = _declared.get()
    if collecting is not None:
        collecting.append(declaration)
    return declaration


def declare_framework(
    name: str,
    *,
    module: str,
    factory: str | None = None,
    distribution: str | None = None,
    extra: str | None = None,
    summary: str = "",
) -> FrameworkDeclaration:
    """Declare a library, the module it needs and what builds its networks.

    Raises:
        ValueError: If a name or a `module:callable` is not well formed.
    """
    return _declare(
        FrameworkDeclaration(
            name,
            factory,
            summary,
            module=module,
            distribution=distribution or module,
            extra=extra,
        )
    )


def declare_cell(name: str, *, factory: str, summary: str = "") -> CellDeclaration:
    """Declare a recurrence; `factory()` returns a `harness.contract.Cell`.

    Raises:
        ValueError: If a name or a `module:callable` is not well formed.
    """
    return _declare(CellDeclaration(name, factory, summary))


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
    cells: Sequence[str],
    factory: str | None = None,
    layer: str | None = None,
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
        cells: Names of the cells it computes.
        factory: `module:callable`, called with (spec, cell, device) for a network.
        layer: `module:callable`, called with (cell, input_size, hidden_size) for a
            layer in the framework's own form; instead of `factory`.
        trains: False for an implementation that only infers.
        devices: Kinds of device it runs on.
        dtypes: What it computes in.
        precisions: Precision modes it offers.
        biases: Bias modes it offers.
        summary: One line for `list`.

    Raises:
        ValueError: If a name is not well formed, no cell is named, or not exactly one
            of `factory` and `layer` is given.
    """
    if (factory is None) == (layer is None):
        raise ValueError(f"implementation '{name}': give one of factory and layer")
    if isinstance(cells, str) or not cells:
        raise ValueError(f"implementation '{name}': cells must be a list of names")
    return _declare(
        ImplementationDeclaration(
            name,
            factory,
            summary,
            framework=framework,
            cells=tuple(cells),
            layer=layer,
            trains=trains,
            devices=tuple(devices),
            dtypes=tuple(dtypes),
            precisions=tuple(precisions),
            biases=tuple(biases),
        )
    )
