"""Hashes of the files that a trial's numbers come from.

A plugin's files are the module of its factory, all that this module imports from its
own top-level package or from files beside it, and the files that any of these names.
Nothing is imported to find out. docs/plugins.md says what is followed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

from harness.declarations import Declaration
from harness.declared_files import declared_files
from harness.machine.facts import processor
from harness.measure import MEASURES
from harness.neighbours import beside, elsewhere, is_installed
from harness.registry import Registry
from harness.run.plan.named_files import IMPORTS, NamedFiles, called_name, texts_in
from harness.trial import Trial

CERTIFIED_WITH = ("library versions", "processor")
"""What a certificate depends on beside its trial and the sources."""


def source_hashes(registry: Registry, trial: Trial) -> Mapping[str, str]:
    """Return a hash for each plugin that takes part in a trial.

    A result that later runs may use, such as a certificate, holds for the library
    versions and the processor that it was made with; both are added to the hashes.
    """
    hashes = {f"{p.kind} {p.name}": source_hash(p) for p in _plugins(registry, trial)}
    if MEASURES[trial.measure].cached:
        framework = registry.framework_of(trial.implementation)
        made_with = (registry.versions_of(framework), processor())
        hashes |= dict(zip(CERTIFIED_WITH, made_with, strict=True))
    return hashes


def source_hash(plugin: Declaration) -> str:
    """Return a hash of a plugin's files and of the libraries that they import.

    The files are its modules, those that they import and that are not installed, and
    the files that they or the declaration name. Libraries enter with their version.

    Raises:
        PluginError: If the declaration names a file that does not exist.
    """
    return _sources_of(plugin).hash


def left_out(plugin: Declaration) -> tuple[str, ...]:
    """Return what of a plugin's files is not hashed whole, and why."""
    return _sources_of(plugin).left_out


def compared_whole(registry: Registry, trial: Trial) -> bool:
    """Say whether the hashes of a trial cover all files that its plugins name."""
    return not any(map(left_out, _plugins(registry, trial)))


def not_compared(registry: Registry, trials: Iterable[Trial]) -> list[str]:
    """Return a sentence for each plugin of which a file is not hashed whole."""
    plugins = {p.name: p for trial in trials for p in _plugins(registry, trial)}
    notes = []
    for name, plugin in plugins.items():
        left = left_out(plugin)
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            notes.append(
                f"{name}: files are not compared with those of other runs, so that "
                f"its certificates are not kept: {', '.join(left[:3])}{more}"
            )
    return notes


def _plugins(registry: Registry, trial: Trial) -> list[Declaration]:
    """Return the plugins that take part in a trial."""
    implementation = registry.implementation(trial.implementation)
    plugins: list[Declaration] = [registry.cell(trial.cell), implementation]
    if implementation.factory is None:
        plugins.append(registry.framework_of(trial.implementation))
    if trial.task is not None:
        plugins.append(registry.task(trial.task))
    return plugins


def files_of(plugin: Declaration) -> Mapping[str, Path]:
    """Return what must lie beside a plugin file, by path from its folder."""
    return {} if plugin.file is None else _sources_of(plugin).beside


def forget_files() -> None:
    """Find every file again when asked next: another may have its name now."""
    for cached in (_sources, _file_of, _versions_of):
        cached.cache_clear()
    importlib.invalidate_caches()


@dataclass(frozen=True)
class _Sources:
    """What a plugin's numbers come from.

    Attributes:
        hash: A hash of it.
        left_out: What is not hashed whole, and why.
        beside: The files, by the path from a plugin file's folder that each may have.
    """

    hash: str
    left_out: tuple[str, ...]
    beside: Mapping[str, Path]


def _sources_of(plugin: Declaration) -> _Sources:
    return _sources(plugin.name, plugin.file, plugin.references, plugin.files)


@functools.cache
def _sources(
    plugin: str, file: Path | None, references: tuple[str, ...], files: tuple[str, ...]
) -> _Sources:
    modules = [reference.partition(":")[0] for reference in references]
    folder = file.parent if file is not None else None
    root = folder or _root_of(modules)
    declared = frozenset(declared_files(root, files, plugin))
    # In a package many texts are words that are folders too, such as "learning".
    named = NamedFiles(root, declared, folders=folder is not None and not files)
    walk = _Walk(named, folder)
    if file is not None:
        walk.waiting.append((f"{_HERE}.{file.stem}", file))
    for module in modules:
        if file is None or module != file.stem:
            walk.add(module, given=True)
    walk.finish()
    digest = hashlib.sha256()
    # A neighbour has the place that it has if Python's path holds the folder.
    for _, path in sorted((_bare(name), path) for name, path in walk.modules.items()):
        digest.update(os.fsencode(path.name) + b"\0" + path.read_bytes() + b"\0")
    for library in sorted(walk.libraries):
        digest.update(library.encode() + b"\0")
    for name, found in named.hashes():
        digest.update(b"file\0" + os.fsencode(name) + b"\0" + found.encode() + b"\0")
    beside = {_place(name, path): path for name, path in walk.modules.items()}
    beside |= {os.path.relpath(path, root): path for path in {*named.found, *declared}}
    return _Sources(digest.hexdigest()[:16], tuple(named.left_out), beside)


def _root_of(modules: Sequence[str]) -> Path:
    """Return the folder of the package that holds modules, or that of its one file."""
    for module in modules:
        for name in (module.partition(".")[0], module):
            file = _file_of(name, None)
            if file is not None:
                return file.parent
    return Path()


_HERE = "@"
"""Stands for the folder of a plugin file, as the package of what lies in it."""


def _bare(module: str) -> str:
    return module.removeprefix(f"{_HERE}.")


def _place(module: str, file: Path) -> str:
    """Return the path that a module needs beside a plugin file."""
    path = _bare(module).replace(".", "/")
    package = file.name == "__init__.py"
    return f"{path}/{file.name}" if package else path + "".join(file.suffixes)


@dataclass
class _Walk:
    """Follows imports, and the files that modules name.

    Attributes:
        named: The files that the modules name.
        folder: The folder of a plugin file, or None: then only the imports from the
            top-level packages of the given modules are followed.
        modules: The modules that were found.
        libraries: The installed libraries that they import, with versions.
        waiting: Modules to be read.
    """

    named: NamedFiles
    folder: Path | None
    modules: dict[str, Path] = field(default_factory=dict)
    libraries: set[str] = field(default_factory=set)
    waiting: list[tuple[str, Path]] = field(default_factory=list)
    _given: set[str] = field(default_factory=set)

    def finish(self) -> None:
        """Read what waits, and what that imports and names."""
        while self.waiting:
            module, file = self.waiting.pop()
            if module in self.modules:
                continue
            self.modules[module] = file
            imports, texts = _read(module, file)
            for path in self.named.find(file, texts):
                if path.suffix == ".py" and path not in self.modules.values():
                    name = os.path.relpath(path.with_suffix(""), self.named.root)
                    self.waiting.append((f"{_HERE}.{name.replace('/', '.')}", path))
            for name in imports:
                self.add(name)

    def add(self, module: str, *, given: bool = False) -> None:
        """Queue an imported module for reading, unless it is installed."""
        top = module.partition(".")[0]
        if given:
            self._given.add(top)
        if self.folder is None:
            if top not in self._given:
                return
        elif top in sys.stdlib_module_names or top == "harness":
            return
        near = self.folder is not None and top != _HERE
        if near and beside(top, [str(self.folder)]) is not None:
            module = f"{_HERE}.{module}"
        elif near and top not in self._given and self._add_library(top):
            return
        depths = range(1, module.count(".") + 2)
        for name in (".".join(module.split(".")[:depth]) for depth in depths):
            file = _file_of(name, self.folder)  # an import runs the packages above
            if file is not None and name not in self.modules:
                self.waiting.append((name, file))

    def _add_library(self, top: str) -> bool:
        spec = elsewhere(top)
        if spec is not None and is_installed(spec):
            self.libraries |= _versions_of(top)
            return True
        return False


@functools.cache
def _versions_of(package: str) -> frozenset[str]:
    """Return the distributions of a package, unless they are dependencies of ours.

    Versions of our own dependencies are stored with every result, and trials are not
    measured again when they change.
    """
    required = importlib.metadata.requires("rnn-harness") or []
    ours = {
        _normalized(re.split(r"[^A-Za-z0-9._-]", r, maxsplit=1)[0]) for r in required
    }
    return frozenset(
        f"{name} {importlib.metadata.version(name)}"
        for name in _distributions(package)
        if _normalized(name) not in ours
    )


def _distributions(package: str) -> Iterator[str]:
    """Yield the distributions that hold a package.

    Asking for the distributions of every package would take much longer.
    """
    a_module = re.compile(rf"^{re.escape(package)}(/[^\n]*)?\.py,", re.MULTILINE)
    for distribution in importlib.metadata.distributions():
        named = (distribution.read_text("top_level.txt") or "").split()
        held = distribution.read_text("RECORD") or ""
        if package in named if named else a_module.search(held):
            yield distribution.name


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


_parsing = threading.Lock()
"""Python 3.11's parser fails where two threads are in it at once (gh-106905)."""


def _read(module: str, file: Path) -> tuple[Sequence[str], Sequence[str]]:
    """Return the names that a module imports, and the texts in it."""
    if file.suffix != ".py":
        return (), ()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    try:
        return _parsed(file.read_bytes(), package)
    except (SyntaxError, ValueError, OSError, RecursionError):  # a worker reports it
        return (), ()


@functools.cache
def _parsed(source: bytes, package: str) -> tuple[Sequence[str], Sequence[str]]:
    with _parsing:
        tree = ast.parse(source)
    nodes = [*_nodes(tree)]
    return tuple(dict.fromkeys(_imported(nodes, package))), tuple({*texts_in(nodes)})


def _nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield every node of a tree, in less than half the time of `ast.walk`."""
    waiting: list[object] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.AST):
            yield node
            for value in vars(node).values():
                if isinstance(value, list):
                    waiting += value
                elif isinstance(value, ast.AST):
                    waiting.append(value)


@functools.cache
def _file_of(module: str, folder: Path | None) -> Path | None:
    """Return the file of a module; runs none of the packages that contain it."""
    top, *rest = module.split(".")
    places: list[str] = [str(folder)]
    spec = None
    try:
        if top != _HERE:
            spec = elsewhere(top)
            places = [*(spec.submodule_search_locations or ())] if spec else []
        for part in rest:
            spec = PathFinder.find_spec(part, places) if places else None
            places = [*(spec.submodule_search_locations or ())] if spec else []
    except Exception:  # of another finder; a worker reports it
        return None
    found = spec is not None and spec.has_location and spec.origin is not None
    return Path(str(spec.origin)) if found and spec is not None else None


def _imported(nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
    """Yield absolute module names that a module imports, `from` names included."""
    for node in nodes:
        if isinstance(node, ast.Call):
            yield from _named(node)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A dot is the module's own package, each further one the package above.
            packages = package.split(".") if package else []
            above = packages[: 1 - node.level or None] if node.level else []
            name = ".".join([*above, *([node.module] if node.module else [])])
            if name:
                yield name
                # A name may be a submodule; any other name has no file and is dropped.
                yield from (f"{name}.{alias.name}" for alias in node.names)


def _named(call: ast.Call) -> Iterator[str]:
    """Yield the module of a call such as `importlib.import_module("name")`."""
    if called_name(call) in IMPORTS and call.args:
        first = call.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value.lstrip(".")
