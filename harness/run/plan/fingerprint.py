"""Hashes of the source that a trial's numbers come from.

A plugin's source is the module of its factory, and all that this module imports from
its own top-level package, or from files beside it. Nothing is imported to find out.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path

from harness.declarations import Declaration
from harness.machine.facts import processor
from harness.measure import MEASURES
from harness.registry import Registry
from harness.trial import Trial

CERTIFIED_WITH = ("library versions", "processor")
"""What a certificate depends on beside its trial and the sources."""


def source_hashes(registry: Registry, trial: Trial) -> Mapping[str, str]:
    """Return a hash for each plugin that takes part in a trial.

    A result that later runs may use, such as a certificate, holds for the library
    versions and the processor that it was made with; both are added to the hashes.
    """
    implementation = registry.implementation(trial.implementation)
    framework = registry.framework_of(trial.implementation)
    plugins: list[Declaration] = [registry.cell(trial.cell), implementation]
    if implementation.factory is None:
        plugins.append(framework)
    if trial.task is not None:
        plugins.append(registry.task(trial.task))
    hashes = {f"{p.kind} {p.name}": source_hash(p) for p in plugins}
    if MEASURES[trial.measure].cached:
        made_with = (registry.versions_of(framework), processor())
        hashes |= dict(zip(CERTIFIED_WITH, made_with, strict=True))
    return hashes


def source_hash(plugin: Declaration) -> str:
    """Return a hash of a plugin's source files and of the libraries they import.

    Modules that a plugin file imports and that are not installed, such as its
    neighbours, belong to its source. Installed modules enter with their version only.
    """
    files, libraries = _sources(plugin)
    versions = tuple(sorted(libraries))
    return _hash_of_files(tuple(files[name] for name in sorted(files)), versions)


def module_hash(module: str) -> str:
    """Return a hash of a module and of what it imports from its own package."""
    files = _files_of(module)
    return _hash_of_files(tuple(files[name] for name in sorted(files)), ())


def files_beside(plugin: Declaration) -> Mapping[str, Path]:
    """Return the modules that a plugin file imports and that are not installed."""
    if plugin.file is None:
        return {}
    files, _ = _sources(plugin)
    return {name: file for name, file in files.items() if file != plugin.file}


def forget_files() -> None:
    """Find every module again when asked next: another file may have its name now."""
    _files_of.cache_clear()
    importlib.invalidate_caches()


def _sources(plugin: Declaration) -> tuple[dict[str, Path], set[str]]:
    """Return a plugin's source files by module, and the libraries they import."""
    files: dict[str, Path] = {}
    libraries: set[str] = set()
    for reference in plugin.references:
        module = reference.partition(":")[0]
        if plugin.file is not None and module == plugin.file.stem:
            files[module] = plugin.file
            for name in _imports_of(module, plugin.file):
                _add_import(name, files, libraries)
        else:
            files |= _files_of(module)
    return files, libraries


def _add_import(module: str, files: dict[str, Path], libraries: set[str]) -> None:
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names or package == "harness":
        return
    spec = _spec_of(package)
    if spec is None:
        return
    # A folder without `__init__.py` is a package that has no file.
    paths = [*(spec.submodule_search_locations or ()), spec.origin or ""]
    if any({"site-packages", "dist-packages"} & {*Path(p).parts} for p in paths):
        libraries |= _versions_of(package)
        return
    for name, found in _with_packages(_files_of(module)).items():
        if name not in files:
            files[name] = found
            for further in _imports_of(name, found):
                _add_import(further, files, libraries)


def _with_packages(modules: Mapping[str, Path]) -> dict[str, Path]:
    """Add the packages that contain modules: an import of a module runs them."""
    names = dict.fromkeys(
        ".".join(name.split(".")[:depth])
        for name in modules
        for depth in range(1, name.count(".") + 2)
    )
    return {n: file for n in names if (file := _file_of(n)) is not None}


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
    names = importlib.metadata.packages_distributions().get(package, [])
    return frozenset(
        f"{name} {importlib.metadata.version(name)}"
        for name in names
        if _normalized(name) not in ours
    )


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def _hash_of_files(files: tuple[Path, ...], libraries: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for library in libraries:
        digest.update(library.encode() + b"\0")
    return digest.hexdigest()[:16]


@functools.cache
def _files_of(module: str) -> Mapping[str, Path]:
    """Return the files of a module and of what it imports from its own package."""
    package = module.partition(".")[0]
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file_of(name)
        if file is None or name in found:
            continue
        found[name] = file
        imports = _imports_of(name, file)
        waiting += [m for m in imports if m.partition(".")[0] == package]
    return found


_parsing = threading.Lock()
"""Python 3.11's parser fails where two threads are in it at once (gh-106905)."""


def _imports_of(module: str, file: Path) -> list[str]:
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    try:
        return _imports_in(file.read_bytes(), package)
    except (SyntaxError, ValueError, OSError):  # reported when a worker loads it
        return []


@functools.cache
def _imports_in(source: bytes, package: str) -> list[str]:
    with _parsing:
        return list(_imported(ast.parse(source), package))


def _file_of(module: str) -> Path | None:
    spec = _spec_of(module)
    origin = spec.origin if spec is not None else None
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _spec_of(module: str) -> ModuleSpec | None:
    parent = module.rpartition(".")[0]
    if parent:
        above = _spec_of(parent)
        if above is None or above.submodule_search_locations is None:
            return None  # the search would import the parent, which is not a package
    try:
        return importlib.util.find_spec(module)
    except Exception:  # finding a module runs its packages; a worker reports it
        return None


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield absolute module names that a module imports, `from` names included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _named(node)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A dot is the module's own package, each further one the package above.
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            name = ".".join([*above, *([node.module] if node.module else [])])
            if name:
                yield name
                # A name may be a submodule; any other name has no file and is dropped.
                yield from (f"{name}.{alias.name}" for alias in node.names)


def _named(call: ast.Call) -> Iterator[str]:
    """Yield the module of a call such as `importlib.import_module("name")`."""
    function = call.func
    name = getattr(function, "attr", None) or getattr(function, "id", None)
    if name in ("import_module", "__import__") and call.args:
        first = call.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value.lstrip(".")
