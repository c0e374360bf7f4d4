"""Load plugins from their declarations; only a worker does, as it runs their code."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

from harness.conformance import check_call, check_methods
from harness.contract import (
    Cell,
    DeviceProbe,
    Equations,
    Network,
    NetworkSpec,
    ReferenceCell,
    Task,
    TrainableNetwork,
)
from harness.declarations import (
    BUILT_IN,
    Declaration,
    FrameworkDeclaration,
    ImplementationDeclaration,
    TaskDeclaration,
)
from harness.errors import HarnessError, PluginError, shown, suggestion
from harness.machine.process_state import ProcessState
from harness.registry import Registry


def load_cell(registry: Registry, name: str) -> Cell:
    """Return the cell, its name and its methods checked.

    Raises:
        PluginError: If it cannot be loaded, or its name or a method is wrong.
    """
    declaration = registry.cell(name)
    with _unchanged(declaration):
        cell = _call(registry, declaration, declaration.factory, {})
    check_methods(cell, ReferenceCell if declaration.reference else Cell, name)
    own = cell.info.name
    if own != name:
        raise PluginError(
            name,
            f"the cell is declared as '{name}', and its info.name is {shown(own)}; "
            f"both must be the same: write CellInfo(name='{name}', ...), or declare "
            "the cell by the other name",
        )
    return cast("Cell", cell)


def load_equations(registry: Registry, name: str) -> Equations:
    """Return the equations of a cell that has them, their arguments checked.

    Raises:
        PluginError: If they cannot be loaded or take other arguments.
    """
    declared = registry.cell(name)
    with _unchanged(declared):
        equations = _resolve(registry, declared, declared.equations)
    check_call(equations, ("ops", "w", "a", "state"), name, by_position=True)
    return equations


def load_task(registry: Registry, name: str, options: Mapping[str, Any]) -> Task:
    """Return the task with its options, its methods checked.

    Raises:
        PluginError: If it cannot be loaded or a method is wrong.
    """
    declaration = registry.task(name)
    with _unchanged(declaration):
        taken = _options(registry, declaration)
        for option in options:
            if taken is not None and option not in taken:
                hint = suggestion(option, taken)
                raise PluginError(name, f"takes no option '{option}'{hint}")
        task = _call(registry, declaration, declaration.factory, options)
    check_methods(task, Task, name)
    return cast("Task", task)


def _options(registry: Registry, task: TaskDeclaration) -> list[str] | None:
    """Return the options that a task takes, or None if it takes any."""
    try:
        signature = inspect.signature(_resolve(registry, task, task.factory))
    except (TypeError, ValueError):
        return None
    parameters = signature.parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters]


def build_network(
    registry: Registry, name: str, spec: NetworkSpec, cell: Cell, device: str
) -> Network:
    """Return a network of an implementation, its methods checked.

    Raises:
        UnavailableError: If its framework or the device is not there.
        PluginError: If it cannot be loaded or a method is wrong.
    """
    declaration = registry.implementation(name)
    arguments: dict[str, Any] = {"spec": spec, "cell": cell, "device": device}
    if declaration.factory is not None:
        network = _call(registry, declaration, declaration.factory, arguments)
    else:
        arguments["layer"] = _layer(registry, declaration, cell)
        framework = registry.framework_of(name)
        network = _call(registry, framework, framework.factory, arguments, name)
    protocol = TrainableNetwork if declaration.trains else Network
    check_methods(network, protocol, name)
    return cast("Network", network)


def build_around(
    registry: Registry,
    framework: str,
    layer: Callable[[str, int, int], Any],
    spec: NetworkSpec,
    cell: Cell,
    device: str,
) -> Network:
    """Return a network of a framework around a layer that exists already.

    Raises:
        UnavailableError: If the framework or the device is not there.
        PluginError: If a layer is not in the framework's form.
    """
    declared = registry.frameworks[framework]
    arguments = {"spec": spec, "cell": cell, "device": device, "layer": layer}
    return cast("Network", _call(registry, declared, declared.factory, arguments))


def load_probe(registry: Registry, framework: str, device: str) -> DeviceProbe | None:
    """Return a framework's probe of a device, or None if it declares none.

    Raises:
        UnavailableError: If the framework or the device is not there.
        PluginError: If it cannot be loaded or a method is wrong.
    """
    declared = registry.frameworks[framework]
    if declared.probe is None:
        return None
    probe = _call(registry, declared, declared.probe, {"device": device})
    check_methods(probe, DeviceProbe, framework)
    return cast("DeviceProbe", probe)


def import_built_in(
    registry: Registry, framework: FrameworkDeclaration | None = None
) -> None:
    """Import this project's cells, and its code for one framework or its tasks.

    What plugins change of them can be noticed only if it was there before.
    """
    of = None if framework is None else framework.name
    own: list[Declaration] = [*registry.cells.values()]
    if framework is None:
        own += registry.tasks.values()
    else:
        own.append(framework)
        own += (i for i in registry.implementations.values() if i.framework == of)
    for declaration in own:
        if declaration.origin == BUILT_IN:
            for reference in declaration.references:
                with suppress(Exception):  # loading the plugin itself reports it
                    importlib.import_module(reference.partition(":")[0])


@contextmanager
def _unchanged(plugin: Declaration) -> Iterator[None]:
    """Refuse a cell or a task of others that changes this process when it is loaded.

    It is loaded where numbers are judged and analysed, unlike an implementation.

    Raises:
        PluginError: If it has changed the process; the change is undone.
    """
    if plugin.origin == BUILT_IN:
        yield
        return
    before = ProcessState()
    try:
        yield
    finally:  # an error ends the loading, not what it has changed
        if found := before.changes():
            before.restore()
    if found:
        reason = f"changes {', '.join(found[:3])} when it is loaded; a {plugin.kind}"
        raise PluginError(plugin.name, f"{reason} must leave its process as it is")


def _layer(
    registry: Registry, declaration: ImplementationDeclaration, cell: Cell
) -> Callable[..., Any]:
    """Return a function that makes a layer from (cell, input_size, hidden_size)."""
    if declaration.layer is not None:
        layer = _resolve(registry, declaration, declaration.layer)
        names = ("cell", "input_size", "hidden_size")
        check_call(layer, names, declaration.name, by_position=True)
        return layer
    loop = _resolve(registry, declaration, declaration.loop)
    sizes = ("input_size", "hidden_size")
    check_call(loop, ("equations", "cell", *sizes), declaration.name)
    equations = load_equations(registry, cell.info.name)

    def of_cell(name: str, input_size: int, hidden_size: int) -> Any:
        return loop(equations, cell, input_size, hidden_size)

    return of_cell


def _call(
    registry: Registry,
    declaration: Declaration,
    reference: str | None,
    arguments: Mapping[str, Any],
    plugin: str | None = None,
) -> Any:

    plugin = plugin or declaration.name
    factory = _resolve(registry, declaration, reference)
    check_call(factory, tuple(arguments), plugin)
    try:
        return factory(**arguments)
    except (HarnessError, KeyboardInterrupt):
        raise
    except BaseException as error:  # such as SystemExit
        raise registry.broken(plugin, error) from error


def _resolve(
    registry: Registry, declaration: Declaration, reference: str | None
) -> Callable[..., Any]:
    assert reference is not None
    module_name, _, attribute = reference.partition(":")
    module = registry.module_named(module_name, declaration)
    found = getattr(module, attribute, None)
    if not callable(found):
        file = declaration.file
        where = file.name if file is not None else module_name
        names = [n for n in vars(module) if not n.startswith("_")]
        reason = f"{where} has no callable '{attribute}'"
        raise PluginError(declaration.name, f"{reason}{suggestion(attribute, names)}")
    return cast(Callable[..., Any], found)
