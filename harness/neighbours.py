"""Give each plugin file the modules beside it, and those of no other plugin.

Python finds a module by its bare name, so that two plugins with a `core.py` each would
share one. Here a plugin's folder is a package with a name of its own, such as
`rnn_harness_plugin_0`, and what lies beside the file are modules of that package: an
import of `core` is an import of `rnn_harness_plugin_0.core`, also in a function that is
called later. Nothing else imports so, because the `__import__` that does it is in the
`__builtins__` of the modules in the folder.

A module of Python or of an installed library comes before a neighbour of its name.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from harness.entry_points import declaring

_numbers = itertools.count()
_known: dict[str, Neighbours] = {}


class Neighbours:
    """The modules in a folder of plugin files.

    Attributes:
        folder: The folder.
        package: The name of the package that the modules belong to.
        builtins: What the modules find under names that they do not define.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = f"rnn_harness_plugin_{next(_numbers)}"
        self.builtins = {**vars(builtins), "__import__": self._import}
        util = _like(
            importlib.util,
            find_spec=self._find_spec,
            spec_from_file_location=self._spec_from_file,
        )
        own = _like(importlib, import_module=self.import_module, util=util)
        self._instead = {id(importlib): own, id(importlib.util): util}
        self._added: list[str] = []
        self._owned: dict[str, bool] = {}
        self._before: list[str] | None = None  # the path before a file ran
        spec = ModuleSpec(self.package, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        self._module = importlib.util.module_from_spec(spec)
        sys.modules[self.package] = self._module
        _known[self.package] = self

    def run(self, file: Path) -> ModuleType:
        """Return the module of a plugin file in the folder, after running it."""
        name = f"{self.package}.{file.stem.replace('.', '_')}"
        spec = self._spec_from_file(name, file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        self._before = [*map(str, sys.path)]
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)  # the file may have removed itself
            raise
        finally:
            self._places()
            self._before = None
        return module

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Do what `importlib.import_module` does, with the neighbours."""
        if name.startswith(".") or not self.owns(name.partition(".")[0]):
            return importlib.import_module(name, package)
        try:
            return importlib.import_module(f"{self.package}.{name}")
        except ModuleNotFoundError as error:
            self._name_as_written(error)
            raise

    def _find_spec(self, name: str, package: str | None = None) -> ModuleSpec | None:
        """Do what `importlib.util.find_spec` does, with the neighbours."""
        if not name.startswith(".") and self.owns(name.partition(".")[0]):
            name = f"{self.package}.{name}"
        return importlib.util.find_spec(name, package)

    def _spec_from_file(
        self, name: str, location: Any = None, **named: Any
    ) -> ModuleSpec | None:
        """Do what `spec_from_file_location` does; the module has the neighbours."""
        own = location is not None and str(location).endswith(".py")
        if own and Path(location).resolve().is_relative_to(self.folder.resolve()):
            named.setdefault("loader", _Loader(name, str(location), self))
        return importlib.util.spec_from_file_location(name, location, **named)

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Do what `__import__` does, with the neighbours."""
        python_import = builtins.__import__  # looked up now: a profiler replaces it
        top = name.partition(".")[0]
        if level or not self.owns(top):
            found = python_import(name, globals, locals, fromlist or (), level)
            return self._instead.get(id(found), found)
        inner = f"{self.package}.{name}"
        try:
            found = python_import(inner, globals, locals, fromlist or (), 0)
        except ModuleNotFoundError as error:
            self._name_as_written(error)
            raise
        return found if fromlist else sys.modules[f"{self.package}.{top}"]

    def owns(self, name: str) -> bool:
        """Say whether a name without dots is that of a neighbour."""
        known = self._owned.get(name)
        if known is None:
            known = beside(name, self._places()) is not None
            # A module that is nowhere may be written before it is imported again.
            if known or elsewhere(name) is not None:
                self._owned[name] = known
        return known

    def _places(self) -> list[str]:
        """Return the folder, and what its files have added to Python's path."""
        path = [*map(str, sys.path)]
        own = [p for p in path if Path(p).is_relative_to(self.folder)]
        if self._before is not None:
            own += [p for p in path if p not in self._before]
        self._added = list(dict.fromkeys([*self._added, *own]))
        places = list(dict.fromkeys([str(self.folder), *self._added]))
        self._module.__path__ = places
        return places

    def _name_as_written(self, error: ModuleNotFoundError) -> None:
        """Give an error the name of the module that the plugin's author wrote."""
        inner = f"{self.package}."
        if error.name is not None and error.name.startswith(inner):
            error.name = error.name.removeprefix(inner)
            error.msg = error.msg.replace(inner, "")


def _like(module: ModuleType, **instead: Any) -> ModuleType:
    """Return a module that is like another but for some names."""
    found = ModuleType(module.__name__)
    later = functools.partial(getattr, module)
    vars(found).update({**vars(module), "__getattr__": later, **instead})
    return found


def beside(name: str, places: Sequence[str]) -> ModuleSpec | None:
    """Return where a plugin's own module of a name is, or None; runs nothing.

    Args:
        name: A name without dots.
        places: The plugin's folders.
    """
    if name in sys.stdlib_module_names or name in _declaring_packages():
        return None
    near = PathFinder.find_spec(name, places)
    far = elsewhere(name) if near is not None else None
    if near is None or far is None:
        return near
    if is_installed(far) or _same(near, far):
        return None
    # As for Python, a folder without `__init__.py` comes after every module.
    return None if near.origin is None and far.origin is not None else near


def elsewhere(name: str) -> ModuleSpec | None:
    """Return the module that a name without dots means to others; runs nothing."""
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # such as of a module that has no spec
        return None


def is_installed(spec: ModuleSpec) -> bool:
    """Say whether a module is in a folder of installed libraries."""
    return any({"site-packages", "dist-packages"} & {*p.parts} for p in _paths(spec))


def _paths(spec: ModuleSpec) -> set[Path]:
    """Return the file of a module, or the folders of a package that has no file."""
    found = [spec.origin] if spec.has_location and spec.origin is not None else []
    return {*map(Path, found or spec.submodule_search_locations or ())}


def _same(one: ModuleSpec, other: ModuleSpec) -> bool:
    of_one, of_other = ({p.resolve() for p in _paths(spec)} for spec in (one, other))
    return not of_one.isdisjoint(of_other)


@functools.cache
def _declaring_packages() -> frozenset[str]:
    """Return the harness and the packages whose entry points declare plugins."""
    entries = [entry for found in declaring().values() for entry in found]
    return frozenset({"harness", *(e.module.partition(".")[0] for e in entries)})


class _Loader(SourceFileLoader):
    """Runs a module in the folder of a plugin file."""

    def __init__(self, name: str, path: str, folder: Neighbours) -> None:
        super().__init__(name, path)
        self._folder = folder

    def get_code(self, fullname: str) -> CodeType:
        """Compile the file as it is now.

        Python would use what it stored before if a file of the same length was written
        in the same second, which is not what a certificate's hash was made of.
        """
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        """Run a module with the imports of its folder."""
        vars(module)["__builtins__"] = self._folder.builtins
        super().exec_module(module)


class _Finder:
    """Finds the modules of plugins' folders."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        folder = _known.get(name.partition(".")[0])
        if folder is None:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path, folder)
        return spec


sys.meta_path.insert(0, _Finder())
