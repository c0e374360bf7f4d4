"""Write plugin files to start from; each of them passes `check` unchanged."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import sys
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from harness.conformance import check_name, is_name
from harness.errors import MisuseError, shortened, suggestion_and_names
from harness.interpreters.probe import PACKAGES
from harness.registry import Registry

_KINDS = ("implementation", "cell", "task")
_TEMPLATES = {
    "torch": "torch",
    "tensorflow": "keras",
    "jax": "jax",
    "keras-jax": "keras",
    "numpy": "numpy",
}
"""The template of a layer in each framework."""

_NUMPY_CELLS = ("gru",)
"""The numpy template writes out the gradients of one cell, so it has only that one."""

_WIDTH = 88

_GRU_ALONE = "  # gru alone"
"""The end of a template's line that only the GRU has."""


@dataclass(frozen=True)
class NewPlugin:
    """A plugin to write a file for.

    Attributes:
        kind: implementation, cell or task.
        framework: The framework of an implementation.
        cell: The cell that an implementation computes.
        file: The file to write; by default the name, with underscores, in this folder.
    """

    kind: str
    name: str
    framework: str | None = None
    cell: str | None = None
    file: Path | None = None


def write_plugin(new: NewPlugin, registry: Registry) -> Path:
    """Write a plugin file and return its path; an existing file is never replaced.

    Raises:
        MisuseError: If the name or the file is taken, the file would hide a module,
            there is no such template, or the file cannot be written.
    """
    if new.kind not in _KINDS:
        raise MisuseError(
            f"unknown kind '{shortened(new.kind)}'{_hint(new.kind, _KINDS)}"
        )
    _check_name(new, registry)
    file = new.file or Path(new.name.replace("-", "_") + ".py")
    _check_file(file)
    text = _text(new, file, registry)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise _exists(file) from error
    except OSError as error:
        reason = error.strerror or error
        raise MisuseError(f"{file} cannot be written: {reason}") from error
    return file


# --- names ---------------------------------------------------------------------------


def _check_name(new: NewPlugin, registry: Registry) -> None:
    try:
        check_name(new.kind, new.name)
    except ValueError as error:
        near = _hyphenated(new.name)
        hint = f"; did you mean '{near}'?" if is_name(near) else ""
        raise MisuseError(f"{error}{hint}") from error
    taken = registry.tables[new.kind].get(new.name)
    if taken is not None:
        raise MisuseError(
            f"the {new.kind} name '{new.name}' is taken ({taken.origin}); choose "
            f"another, such as 'my-{new.name}'"
        )


def _hyphenated(name: str) -> str:
    """Return MyGRU_2 as my-gru-2."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")


def _check_file(file: Path) -> None:
    if file.suffix != ".py":
        raise MisuseError(f"{file}: a plugin file must end in .py")
    if os.path.lexists(file):  # a link to nowhere too
        raise _exists(file)
    if not file.parent.is_dir():
        raise MisuseError(f"{file}: there is no folder {file.parent}")
    module = file.stem
    if not _is_name(module):
        wrong = f": '{module}' is not a name for a Python module"
    elif _is_module(module):
        wrong = f" would hide the module '{module}' from whatever imports it"
    else:
        return
    other = _other(file)
    raise MisuseError(f"{file}{wrong}; choose another file, such as -o {other}")


def _other(file: Path) -> Path:
    """Return a file in the same folder whose name can be used."""
    word = re.sub(r"\W+", "_", file.stem)
    if not _is_name(word) or _is_module(word):
        word = f"my_{word}"
    return file.with_name(f"{word}.py")


def _is_name(word: str) -> bool:
    return word.isidentifier() and not keyword.iskeyword(word)


def _is_module(name: str) -> bool:
    if name in (*sys.stdlib_module_names, *PACKAGES):
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a loaded module without a usable spec
        return True


def _exists(file: Path) -> MisuseError:
    return MisuseError(
        f"{file} exists and is left as it is; give another name, or another file with "
        "-o FILE.py"
    )


# --- texts ---------------------------------------------------------------------------


def _text(new: NewPlugin, file: Path, registry: Registry) -> str:
    names = {"name": new.name, "module": file.stem}
    if new.kind == "implementation":
        framework = _framework(new.framework, registry)
        cell = _cell(new.cell or "gru", framework, registry)
        computed = {"framework": f'"{framework}"', "cells": f'["{cell}"]'}
        of_layer = {**computed, "layer": f'"{file.stem}:layer"'}
        names |= {"cell": cell, "declaration": _declaration(new, of_layer)}
        return _layer(cell, _TEMPLATES[framework], names)
    for option, value in (("--framework", new.framework), ("--cell", new.cell)):
        if value is not None:
            raise MisuseError(
                f"{option} is for an implementation, not for a {new.kind}"
            )
    if new.kind == "task":
        names["declaration"] = _declaration(new, {"factory": f'"{file.stem}:Task"'})
    return Template(_read(f"{new.kind}.py.txt")).substitute(names)


def _declaration(new: NewPlugin, arguments: Mapping[str, str]) -> str:
    """Return the call that declares a plugin, on as few lines as possible."""
    function = f"declare_{new.kind}"
    given = [f'"{new.name}"', *(f"{name}={a}" for name, a in arguments.items())]
    line = ", ".join(given)
    if len(function) + len(line) + 2 <= _WIDTH:
        return f"{function}({line})"
    if 4 + len(line) <= _WIDTH:
        return f"{function}(\n    {line}\n)"
    lines = "".join(f"    {argument},\n" for argument in given)
    return f"{function}(\n{lines})"


def _read(name: str) -> str:
    return (resources.files("harness") / "templates" / name).read_text(encoding="utf-8")


def _framework(name: str | None, registry: Registry) -> str:
    allowed = ", ".join(_TEMPLATES)
    if name is None:
        raise MisuseError(f"an implementation needs --framework: {allowed}")
    if name in _TEMPLATES:
        return name
    if name in registry.frameworks:
        raise MisuseError(
            f"there is no template of a layer in '{name}'; there is one in {allowed}"
        )
    raise MisuseError(f"unknown framework '{name}'{_hint(name, _TEMPLATES)}")


def _cell(name: str, framework: str, registry: Registry) -> str:
    offered = _NUMPY_CELLS if framework == "numpy" else tuple(_cells())
    if name in offered:
        return name
    if name in registry.cells:
        raise MisuseError(
            f"there is no template of the cell '{name}' in {framework}; begin with "
            f"{', '.join(offered)} and write its equations there"
        )
    raise MisuseError(f"unknown cell '{name}'{_hint(name, offered)}")


def _hint(name: str, allowed: Collection[str]) -> str:
    return suggestion_and_names(name, allowed, "allowed")


def _cells() -> dict[str, Any]:
    return tomllib.loads(_read("equations.toml"))


def _layer(cell: str, form: str, words: Mapping[str, str]) -> str:
    """Return the file of a layer, with the equations of a cell in the template."""
    facts = _cells()[cell]
    lines: list[str] = []
    for line in _read(f"implementation-{form}.py.txt").splitlines():
        if line.endswith("$equations"):
            margin = line.removesuffix("$equations")
            lines += [margin + e for e in facts["equations"].strip().splitlines()]
        elif cell == "gru" or not line.endswith(_GRU_ALONE):
            lines.append(line.removesuffix(_GRU_ALONE))
    bias = 'w["b_hn"]' if form == "jax" else "self.b_hn"
    return Template("\n".join([*lines, ""])).substitute(
        words, b_hn=bias, **_words(facts["gates"], facts["state"], facts["equations"])
    )


def _words(gates: list[str], state: list[str], equations: str) -> dict[str, str]:
    """Return the words of a template that differ between cells."""
    functions = [f for f in ("relu", "sigmoid", "tanh") if f"{f}(" in equations]
    return {
        "order": ", ".join(gates),
        "count": str(len(gates)),
        "activations": ", ".join(functions),
        "matrices": _unpacked([f"u_{gate}" for gate in gates]),
        "inputs": _unpacked([f"a_{gate}" for gate in gates]),
        "inputs_tuple": _tuple([f"a_{gate}" for gate in gates]),
        "state": _unpacked(state),
        "state_tuple": _tuple(state),
        "state_list": f"[{', '.join(state)}]",
        "state_sizes": f"[{', '.join(['hidden_size'] * len(state))}]",
        # torch: one tensor [1, batch, hidden], or a tuple of two.
        "stacked_state": ", ".join(f"({part},)" for part in state),
        "stacked_zeros": _alone_or_tuple(["zero"] * len(state)),
        "stacked_final": _alone_or_tuple([f"{part}[None]" for part in state]),
    }


def _unpacked(names: list[str]) -> str:
    return ", ".join(names) if len(names) > 1 else _tuple(names)


def _tuple(names: list[str]) -> str:
    return f"({', '.join(names)})" if len(names) > 1 else f"({names[0]},)"


def _alone_or_tuple(names: list[str]) -> str:
    return _tuple(names) if len(names) > 1 else names[0]
