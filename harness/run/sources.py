"""Hashes of the source a trial's numbers come from, and what a certificate holds for.

A plugin's source is the module its factory is in, and whatever that imports from its
own top-level package. Nothing is imported to find out.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.declarations import Declaration
from harness.environment import framework_versions, processor
from harness.registry import Registry
from harness.trial import Trial

CERTIFIED_WITH = ("library versions", "processor")
"""What a certificate is keyed by beside its trial and the sources."""


def source_hashes(registry: Registry, trial: Trial) -> Mapping[str, str]:
    """Return a hash for each plugin that takes part in a trial.

    A certificate holds for the library versions and the processor it was made with,
    so both stand beside the hashes of a parity trial.
    """
    implementation = registry.implementation(trial.implementation)
    framework = registry.framework_of(trial.implementation)
    plugins: list[Declaration] = [registry.cell(trial.cell), implementation]
    if implementation.factory is None:
        plugins.append(framework)
    if trial.task is not None:
        plugins.append(registry.task(trial.task))
    hashes = {f"{p.kind} {p.name}": source_hash(p) for p in plugins}
    if trial.measure == "parity":
        versions = framework_versions(framework.name, framework.distributions)
        hashes |= dict(zip(CERTIFIED_WITH, (versions, processor()), strict=True))
    return hashes


def source_hash(plugin: Declaration) -> str:
    """Return a hash of a plugin's own source files."""
    files: dict[Path, None] = {}
    for reference in plugin.references:
        module = reference.partition(":")[0]
        if plugin.file is not None and module == plugin.file.stem:
            files[plugin.file] = None
        else:
            files |= dict.fromkeys(_files_of(module))
    return _hash_of_files(tuple(files))


@functools.cache
def _hash_of_files(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@functools.cache
def _files_of(module: str) -> tuple[Path, ...]:
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
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # told when a worker loads it
            continue
        waiting += [m for m in _imported(tree) if m.partition(".")[0] == package]
    return tuple(found[name] for name in sorted(found))


def _file_of(module: str) -> Path | None:
    parent = module.rpartition(".")[0]
    file = _file_of(parent) if parent else None
    if parent and (file is None or file.name != "__init__.py"):
        return None  # looking further would import the parent, which is no package
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # finding a module runs the packages it is in; told by a worker
        return None
    origin = spec.origin if spec is not None else None
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield absolute module names that a module imports, `from` names included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            # A name may be a submodule; one that is not has no file and is dropped.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
