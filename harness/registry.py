"""Find plugins by name: from entry points and files, and why one is unavailable."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from harness.declarations import (
    BUILT_IN,
    CellDeclaration,
    Declaration,
    FrameworkDeclaration,
    ImplementationDeclaration,
    TaskDeclaration,
    collecting,
)
from harness.declared import (
    OF_DISTRIBUTION,
    Found,
    found_by,
    from_text,
    read_apart,
    to_text,
)
from harness.declared_files import declared_files
from harness.entry_points import KINDS, OWN, declaring, entry_points_of
from harness.errors import (
    MisuseError,
    PluginError,
    UnavailableError,
    describe_error,
    error_text,
    shortened,
    suggestion,
)
from harness.files.paths import real_path
from harness.machine.facts import framework_versions
from harness.neighbours import Neighbours

D = TypeVar("D", bound=Declaration)


@dataclass(frozen=True)
class Interpreter:
    """A framework's own interpreter, and what is installed there.

    Attributes:
        python: The interpreter.
        version: The version of the interpreter.
        prefix: The folder that holds its packages.
        versions: The versions of the framework, such as "torch 2.13.0".
        missing: The first module that the framework needs and that is not installed
            there, or None.
    """

    python: Path
    version: str
    prefix: str
    versions: str
    missing: str | None

    def to_json(self) -> dict[str, str | None]:
        """Return what a run records about the interpreter, as JSON values."""
        return {**asdict(self), "python": str(self.python)}


@dataclass
class Registry:
    """Every declared plugin by kind and name, and the plugins that cannot be used.

    Attributes:
        files: Plugin files that were read.
        foreign: What plugins of others declare, or why they cannot be read.
        interpreters: The interpreters of frameworks that have one of their own.
    """

    frameworks: dict[str, FrameworkDeclaration] = field(default_factory=dict)
    cells: dict[str, CellDeclaration] = field(default_factory=dict)
    tasks: dict[str, TaskDeclaration] = field(default_factory=dict)
    implementations: dict[str, ImplementationDeclaration] = field(default_factory=dict)
    problems: list[PluginError] = field(default_factory=list)
    files: tuple[Path, ...] = ()
    foreign: tuple[Found, ...] = ()
    interpreters: dict[str, Interpreter] = field(default_factory=dict)
    _modules: dict[Path, ModuleType] = field(default_factory=dict)
    _folders: dict[Path, Neighbours] = field(default_factory=dict)

    @classmethod
    def discover(cls, files: Iterable[Path] = ()) -> Registry:
        """Read the declarations of installed distributions and of plugin files.

        Code of others runs in processes of its own, since it could change this one. A
        plugin that cannot be read is recorded in `problems` and stops nothing else.
        """
        # A file given twice, as `check FILE.py --plugin FILE.py`, declares once.
        every = dict.fromkeys(map(real_path, files))
        foreign = [*_distributions(), *map(str, every)]
        return cls._with(read_apart(foreign), tuple(every))

    @classmethod
    def given(cls, declared: str) -> Registry:
        """Return the registry whose `declared` this is, in another process."""
        return cls._with(from_text(declared))

    @classmethod
    def _with(cls, foreign: Sequence[Found], files: tuple[Path, ...] = ()) -> Registry:
        """Return the plugins of this project and those of others."""
        registry = cls(files=files, foreign=tuple(foreign))
        for found in [*read_entry_points(OWN), *foreign]:
            try:
                if isinstance(found, PluginError):
                    raise found
                registry._add_all(found)
            except PluginError as error:
                registry.problems.append(error)
        registry._name_every_cell()
        return registry

    @property
    def declared(self) -> str:
        """What plugins of others declare, as text that `given` takes."""
        return to_text(self.foreign)

    def owners(self, *plugins: Declaration) -> tuple[str, ...]:
        """Return the files and distributions of others that declare these plugins."""
        own = [p for p in plugins if p.origin != BUILT_IN]
        return tuple(sorted({str(p.file or p.origin) for p in own}))

    def _name_every_cell(self) -> None:
        """Fill in the cells of implementations that compute every cell of a kind."""
        offered = {
            "equations": [n for n, c in self.cells.items() if c.equations is not None],
            "reference": [n for n, c in self.cells.items() if c.reference],
        }
        for name, declared in self.implementations.items():
            if declared.every is not None:
                cells = tuple(offered[declared.every])
                self.implementations[name] = replace(declared, cells=cells)

    def read_file(self, file: Path) -> list[Declaration]:
        """Return what a plugin file declares, by running it.

        Raises:
            PluginError: If it cannot be read or declares nothing.
        """
        if not file.is_file():
            raise PluginError(str(file), "no such plugin file")
        if file.suffix != ".py":
            raise PluginError(str(file), "a plugin file must end in .py")
        with file.open("rb") as stream:
            if b"\0" in stream.read(1000):  # as in UTF-16
                raise PluginError(file.name, "is not text in UTF-8; save it as UTF-8")
        with collecting() as declared:
            self.module_of(file)
        if not declared:
            calls = "declare_implementation, declare_cell or declare_task"
            raise PluginError(file.name, f"declares nothing; call {calls}")
        for each in declared:
            declared_files(file.parent, each.files, each.name)
        return [replace(d, origin=file.name, file=file) for d in declared]

    def module_of(self, file: Path) -> ModuleType:
        """Return the module of a plugin file, which runs once.

        Raises:
            PluginError: If it raises.
        """
        if file not in self._modules:
            try:
                # Standard output is for a command's answer, not for what a file prints.
                with contextlib.redirect_stdout(sys.stderr):
                    self._modules[file] = self._beside(file).run(file)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # such as SystemExit
                raise self.broken(file.name, error) from error
        return self._modules[file]

    def module_named(self, name: str, declaration: Declaration) -> ModuleType:
        """Return the module of a declaration's `module:callable`.

        In a plugin file it is the file itself, one beside it or an installed one.

        Raises:
            PluginError: If it raises.
        """
        file = declaration.file
        if file is not None:
            module = self.module_of(file)  # first, as Python would run it
            if name == file.stem:
                return module
        try:
            find = self._beside(file).import_module if file else importlib.import_module
            return find(name)
        except (Exception, SystemExit) as error:
            raise self.broken(declaration.name, error) from error

    def _beside(self, file: Path) -> Neighbours:
        if file.parent not in self._folders:
            self._folders[file.parent] = Neighbours(file.parent)
        return self._folders[file.parent]

    def broken(self, plugin: str, error: BaseException) -> PluginError:
        """Return why a plugin fails: its framework is absent, or its own error."""
        if isinstance(error, PluginError):
            return error
        for framework in self.frameworks.values():
            reason = _import_failure(framework, error)
            if reason is not None:
                return UnavailableError(plugin, reason)
        return PluginError(plugin, describe_error(error))

    def _add_all(self, declarations: Sequence[Declaration]) -> None:
        """Check every declaration, then store all of them or none."""
        tables = {kind: dict(table) for kind, table in self.tables.items()}
        for new in declarations:
            taken = tables[new.kind].setdefault(new.name, new)
            if taken is not new:
                reason = f"the {new.kind} name is taken ({taken.origin})"
                raise PluginError(new.name, reason)
        for new in declarations:
            if isinstance(new, ImplementationDeclaration):
                for reason in _mistakes(new, tables["framework"], tables["cell"]):
                    raise PluginError(new.name, reason)
        for kind, table in self.tables.items():
            table.update(tables[kind])

    # --- asking ----------------------------------------------------------------------

    def cell(self, name: str) -> CellDeclaration:
        """Return a declared cell, or raise `MisuseError` with a suggestion."""
        return self._find(self.cells, "cell", name)

    def task(self, name: str) -> TaskDeclaration:
        """Return a declared task, or raise `MisuseError` with a suggestion."""
        return self._find(self.tasks, "task", name)

    def implementation(self, name: str) -> ImplementationDeclaration:
        """Return a declared implementation, or raise `MisuseError`."""
        return self._find(self.implementations, "implementation", name)

    def framework_of(self, implementation: str) -> FrameworkDeclaration:
        """Return the framework an implementation computes with."""
        return self.frameworks[self.implementation(implementation).framework]

    def _find(self, table: Mapping[str, D], kind: str, name: str) -> D:
        if name in table:
            return table[name]
        message = f"unknown {kind} '{shortened(name)}'{suggestion(name, table)}"
        if self.problems:
            # The name may belong to a plugin that could not be read.
            broken = "; ".join(str(problem) for problem in self.problems)
            message = f"{message} (not usable: {broken})"
        raise MisuseError(message)

    def unavailable(self, implementation: str) -> str | None:
        """Return why an implementation cannot run here, or None; imports nothing."""
        framework = self.framework_of(implementation)
        own = self.interpreters.get(framework.name)
        missing = first_missing(framework.modules) if own is None else own.missing
        if missing is None:
            return None
        python = None if own is None else own.python
        return f"unavailable: {_not_installed(framework, missing, python)}"

    def python_of(self, framework: str) -> Path:
        """Return the Python that a framework's workers run in."""
        own = self.interpreters.get(framework)
        return Path(sys.executable) if own is None else own.python

    def versions_of(self, framework: FrameworkDeclaration) -> str:
        """Return the versions of a framework, such as "torch 2.13.0"."""
        own = self.interpreters.get(framework.name)
        if own is not None:
            return own.versions
        return framework_versions(framework.name, framework.distributions)

    @property
    def tables(self) -> dict[str, dict[str, Any]]:
        """The declared plugins by kind, then by name."""
        return {
            "framework": self.frameworks,
            "cell": self.cells,
            "task": self.tasks,
            "implementation": self.implementations,
        }

    @property
    def declarations(self) -> list[Declaration]:
        """Every declared plugin."""
        return [each for table in self.tables.values() for each in table.values()]

    @property
    def distributions(self) -> list[str]:
        """The distributions that hold the declared frameworks."""
        return [d for f in self.frameworks.values() for d in f.distributions]


def _distributions() -> list[str]:
    """Return the distributions of others that declare plugins, each once."""
    return [f"{OF_DISTRIBUTION}{name}" for name in declaring() if name != OWN]


def read_entry_points(distribution: str) -> list[Found]:
    """Return what each entry point of a distribution declares."""
    return [
        found_by(partial(_read_entry_point, entry, distribution))
        for entry in entry_points_of(distribution)
    ]


def _read_entry_point(entry: EntryPoint, origin: str) -> list[Declaration]:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # such as SystemExit
        raise PluginError(entry.name, describe_error(error)) from error
    if not isinstance(found, Declaration) or found.kind not in KINDS:
        reason = (
            f"{entry.value} of {origin} is not a declaration; point the entry point at "
            "what a declare_…() call returned"
        )
        raise PluginError(entry.name, reason)
    return [found if origin == OWN else replace(found, origin=origin)]


def _mistakes(
    new: ImplementationDeclaration,
    frameworks: Mapping[str, FrameworkDeclaration],
    cells: Mapping[str, CellDeclaration],
) -> Iterator[str]:
    """Yield what is wrong with an implementation's framework and its cells."""
    if new.framework not in frameworks:
        hint = suggestion(new.framework, frameworks)
        yield f"unknown framework '{shortened(new.framework)}'{hint}"
    elif new.factory is None and frameworks[new.framework].factory is None:
        yield f"framework '{new.framework}' builds no layers; give a factory"
    for cell in new.cells:
        if cell not in cells:
            yield f"unknown cell '{shortened(cell)}'{suggestion(cell, cells)}"
        elif new.loop is not None and cells[cell].equations is None:
            yield f"cell '{cell}' has no equations to loop over; give a layer"


def first_missing(modules: Iterable[str]) -> str | None:
    """Return the first module that is not installed, or None."""
    for module in modules:
        try:
            if importlib.util.find_spec(module) is None:
                return module
        except ImportError:  # the package of a submodule is not installed
            return module
    return None


def _import_failure(
    framework: FrameworkDeclaration, error: BaseException
) -> str | None:
    """Return why a framework cannot be imported, if that is what caused `error`."""
    for module in framework.modules:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            return _not_installed(framework, module)
        if not _passes_through(module, error):
            continue
        try:  # a broken install fails again, and in the same place
            importlib.import_module(module)
        except (Exception, SystemExit) as again:
            text = error_text(again)
            return f"'{module}' is installed but cannot be imported: {text}"
    return None


def _passes_through(module: str, error: BaseException) -> bool:
    """Say whether an error was raised inside a module's own files."""
    spec = None if first_missing([module]) else importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return False
    own = Path(spec.origin)
    files = [Path(f.filename) for f in traceback.extract_tb(error.__traceback__)]
    if own.name == "__init__.py":
        return any(own.parent in file.parents for file in files)
    return own in files


def _not_installed(
    framework: FrameworkDeclaration, module: str, python: Path | None = None
) -> str:
    target = f"rnn-harness[{framework.extra}]" if framework.extra else module
    if python is None:
        return f"no module '{module}'; pip install '{target}'"
    pip = f"{shlex.quote(str(python))} -m pip"
    return f"no module '{module}' in {python}; {pip} install '{target}'"
