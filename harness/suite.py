"""Read suites: TOML files that say which trials answer a question."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from harness.contract import Optimizer
from harness.errors import (
    MisuseError,
    PluginError,
    describe_error,
    shortened,
    suggestion,
    suggestion_and_names,
)
from harness.files.text import parse_toml, read_toml
from harness.interpreters.choose import resolved
from harness.loading import load_task
from harness.registry import Registry
from harness.settings import apply_setting, sections_of
from harness.trial import LearningSettings, SpeedSettings

Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Updates = Annotated[int, Field(ge=1, le=2 * 10**6, strict=True)]
Seed = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
Share = Annotated[float, Field(ge=0, lt=1, strict=True)]
Init = Annotated[str, Field(min_length=1, strict=True)]


def _one_or_several(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


MOST_TRIALS = 100_000
"""The most trials that a section may ask of one implementation."""

_MOST_PROBLEMS = 50
"""The most problems of a suite that a message lists."""

_Several = BeforeValidator(_one_or_several)
_Bounds = Field(min_length=1, max_length=1000)
Counts = Annotated[tuple[Count, ...], _Several, _Bounds]
Inits = Annotated[tuple[Init, ...], _Several, _Bounds]
Seeds = Annotated[tuple[Seed, ...], _Bounds]
Names = Annotated[tuple[str, ...], _Bounds]
Precision = Literal["highest", "tf32", "bf16"]
Precisions = Annotated[tuple[Precision, ...], _Several, _Bounds]
SpeedPhase = Literal["forward", "loss_and_gradients", "train_step", "stream"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _OnTask(_Section):
    task: str
    length: Counts
    cells: Names
    task_options: dict[str, bool | int | float | str] = {}


class LearningSection(_OnTask):
    """Cells trained on one task, at one length or several.

    Attributes:
        learn_on: The first of these implementations that is certified learns. If there
            is none, the fastest certified implementation does.
        learn_on_each: Whether every one of `implementations` learns, so that their
            curves can be compared.
    """

    implementations: tuple[str, ...] | None = None
    learn_on: tuple[str, ...] | None = None
    learn_on_each: bool = False
    hidden_size: Count
    num_layers: Count = 1
    batch: Count
    init: Init = "canonical"
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    learning_rate: Positive
    clip_norm: Positive | Literal["none"] = 1.0
    epsilon: Positive = Optimizer.epsilon
    beta1: Share = Optimizer.beta1
    beta2: Share = Optimizer.beta2
    decay: Share = Optimizer.decay
    momentum: Share = Optimizer.momentum
    updates: Updates
    evaluate_every: Count = LearningSettings.evaluate_every
    evaluate_sequences: Count = LearningSettings.evaluate_sequences
    seeds: Seeds
    gradients: bool = True
    dtype: Literal["float32", "float64"] = "float32"

    @property
    def optimizer_constants(self) -> Optimizer:
        """The optimiser with every constant."""
        clip_norm = None if self.clip_norm == "none" else self.clip_norm
        names = ("learning_rate", "epsilon", "beta1", "beta2", "decay", "momentum")
        constants = {name: getattr(self, name) for name in names}
        return Optimizer(self.optimizer, clip_norm=clip_norm, **constants)


class GradientsSection(_OnTask):
    """Initial values; their gradient over lag is measured before any training."""

    init: Inits = ("canonical",)
    hidden_size: Count
    num_layers: Count = 1
    seeds: Seeds


class Shape(_Section):
    """Sizes of a network whose input is random; lists give every combination."""

    batch: Counts
    time_steps: Counts
    input_size: Counts
    hidden_size: Counts
    num_layers: Counts = (1,)

    @property
    def sizes(self) -> Iterator[dict[str, Any]]:
        """Every combination of the sizes, by name."""
        names = list(type(self).model_fields)
        columns = [getattr(self, name) for name in names]
        return (dict(zip(names, row, strict=True)) for row in product(*columns))


class SpeedSection(_Section):
    """Cells and implementations timed at some shapes.

    Attributes:
        target: The width of the interval of a median, or of its ratio to the fastest,
            at which a row is known well enough, as a share of its middle.
        time_budget_s: No round of a session begins after this time.
        rounds: The smallest number of rounds of a session, unless its time is over.
        readings: The readings of a turn that are kept.
        memory: Whether peak memory is measured too, each in a process of its own.
        readout: The time steps whose answers the loss is a mean over: `every`, or the
            `last`, where a gradient may become too small for its dtype on long inputs.
    """

    cells: Names
    implementations: tuple[str, ...] | None = None
    shapes: Annotated[tuple[Shape, ...], _Bounds]
    phases: tuple[SpeedPhase, ...] = Field(
        ("forward", "loss_and_gradients", "train_step"), min_length=1
    )
    threads: Counts = (1,)
    target: Positive = SpeedSettings.target
    time_budget_s: Positive = SpeedSettings.time_budget_s
    rounds: Count = SpeedSettings.rounds
    readings: Count = SpeedSettings.readings
    memory: bool = False
    readout: Literal["every", "last"] = "every"
    dtype: Literal["float32", "float64"] = "float32"
    precision: Precisions = ("highest",)


class Suite(_Section):
    """A named set of sections: learning, gradients before it, and speed.

    Attributes:
        environments: The path of a framework's own interpreter, by framework. It is
            not compared or stored with a suite, because it does not change the trials.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    why: str
    environments: dict[str, str] = Field({}, exclude=True)
    learning: tuple[LearningSection, ...] = ()
    gradients: tuple[GradientsSection, ...] = ()
    speed: tuple[SpeedSection, ...] = ()


_SECTIONS: Mapping[str, type[_Section]] = {
    "learning": LearningSection,
    "gradients": GradientsSection,
    "speed": SpeedSection,
}


def built_in_suites() -> dict[str, str]:
    """Return the text of each built-in suite by name."""
    folder = resources.files("harness") / "suites"
    return {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in sorted(folder.iterdir(), key=lambda f: f.name)
        if file.name.endswith(".toml")
    }


def _run_nothing(programs: Mapping[str, str]) -> bool:
    return False


def load_suite(
    source: str,
    registry: Registry,
    settings: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    *,
    may_run: Callable[[Mapping[str, str]], bool] = _run_nothing,
) -> Suite:
    """Read a suite: the name of a built-in one, or a TOML file.

    Args:
        source: Name or path.
        registry: Knows which cells, tasks and implementations there are.
        settings: `KEY=VALUE`, such as `learning.updates=500`, `learning.0.length=50`.
        seeds: Replaces the seeds of every section that has seeds.
        may_run: Says whether the interpreters may be run that the `[environments]` of
            a file name, by framework. Nobody is asked about those of a setting.

    Raises:
        MisuseError: If it has mistakes; the message lists all of them. Or if it names
            interpreters that may not be run.
    """
    raw, where = _read(source)
    named = {} if source in built_in_suites() else _environments(raw)
    for setting in settings:
        apply_setting(raw, setting)
    chosen = _environments(raw)
    kept = [name for name, python in named.items() if chosen.get(name) is python]
    if seeds is not None:
        seeded = [k for k, kind in _SECTIONS.items() if "seeds" in kind.model_fields]
        for section in chain.from_iterable(sections_of(raw, kind) for kind in seeded):
            section["seeds"] = list(seeds)
    unknown = [*_unknown_names(raw, registry), *_interpreters(raw, source, registry)]
    try:
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        raise _misuse(where, [*_problems(error), *unknown]) from error
    problems = [*unknown, *_refused(suite, registry)]
    if problems:
        raise _misuse(where, problems)
    programs = {name: suite.environments[name] for name in kept}
    if programs and not may_run(programs):
        raise _not_run(where, programs)
    return suite


def _environments(raw: Mapping[str, Any]) -> dict[str, Any]:
    table = raw.get("environments")
    return dict(table) if isinstance(table, dict) else {}


def _not_run(where: str, programs: Mapping[str, str]) -> MisuseError:
    """Return the refusal of a file that names programs; a stranger may have written it.

    The programs would run with all rights of the user.
    """
    table = ", ".join(f"{name} = {path!r}" for name, path in programs.items())
    return MisuseError(
        f"{where} names programs to run in [environments]: {table}; if you trust them, "
        "add --allow-environments, or name them yourself with --set "
        "environments.FRAMEWORK=PATH"
    )


def _misuse(where: str, problems: Sequence[str]) -> MisuseError:
    if len(problems) == 1:
        return MisuseError(f"{where}: {problems[0]}")
    lines = [f"  {problem}" for problem in problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        lines.append(f"  and {len(problems) - _MOST_PROBLEMS} more")
    return MisuseError(f"{where} has {len(problems)} problems:", *lines)


def _read(source: str) -> tuple[dict[str, Any], str]:
    """Return the table of a suite, and what messages call it."""
    suites = built_in_suites()
    if source in suites:
        return parse_toml(suites[source]), f"suite '{source}'"
    path = Path(source)
    if os.path.exists(path) and not path.is_dir():  # noqa: PTH110 -- a name may be odd
        try:
            return read_toml(path), source
        except OSError as error:
            raise MisuseError(f"{source} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise MisuseError(f"{source} is not valid TOML: {error}") from error
    if path.suffix == ".toml" or "/" in source:
        what = "is a folder" if os.path.isdir(path) else "does not exist"  # noqa: PTH112
        raise MisuseError(f"suite file {shortened(source, 1000)} {what}")
    hint = suggestion_and_names(source, suites, "built in")
    raise MisuseError(f"unknown suite '{shortened(source)}'{hint}; or give a TOML file")


# --- saying what is wrong ------------------------------------------------------------


_REFUSED = {"bidirectional": "; every network runs forward in time only"}
"""Keys that a user may try, and why they do not exist."""


def _problems(error: ValidationError) -> list[str]:
    problems = []
    for item in error.errors(include_url=False):
        if _only_lacks_wrong_items(item):
            continue
        where = shortened(_key_path(item["loc"]))
        if item["type"] == "extra_forbidden":
            key = str(item["loc"][-1])
            hint = _REFUSED.get(key) or suggestion(key, _keys_at(item["loc"]))
            problems.append(f"{where}: unknown key{hint}")
        elif item["type"] == "missing":
            problems.append(f"{where}: missing; give a value")
        elif where in _SECTIONS:
            problems.append(f"{where}: write [[{where}]] for each section")
        else:
            message = re.sub(r"^Input should", "should", item["msg"])
            problems.append(f"{where}: {message}, not {_shown(item['input'])}")
    return problems


def _only_lacks_wrong_items(item: ErrorDetails) -> bool:
    """Say whether a list is called too short only because its items are wrong.

    Pydantic counts the items that are left; those that are wrong have an error each.
    """
    if item["type"] != "too_short":
        return False
    return bool(len(item["input"]) >= item["ctx"]["min_length"])


def _key_path(location: Sequence[int | str]) -> str:
    """Return learning[0].length for ("learning", 0, "length", 0)."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.startswith(("constrained-", "literal[")):
            text += f".{part}" if text else part
    return text


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _keys_at(location: Sequence[int | str]) -> list[str]:
    names: dict[str, type[BaseModel]] = {**_SECTIONS, "shapes": Shape}
    model: type[BaseModel] = Suite
    for part in location[:-1]:
        if isinstance(part, str):
            model = names.get(part, model)
    return list(model.model_fields)


_NAMED = {
    "task": "task",
    "cells": "cell",
    "implementations": "implementation",
    "learn_on": "implementation",
}
"""The keys of sections that name plugins, and the kind of plugin."""


def _unknown_names(raw: Mapping[str, Any], registry: Registry) -> list[str]:
    """Look up every name, even if other keys are wrong."""
    problems = []
    for section, key in product(_SECTIONS, _NAMED):
        for index, values in enumerate(sections_of(raw, section)):
            names = values.get(key, [])
            for name in names if isinstance(names, list) else [names]:
                try:
                    if isinstance(name, str) and key in _SECTIONS[section].model_fields:
                        getattr(registry, _NAMED[key])(name)
                except MisuseError as error:
                    problems.append(f"{section}[{index}].{key}: {error}")
    return problems


def _interpreters(raw: dict[str, Any], source: str, registry: Registry) -> list[str]:
    """Make the paths of interpreters absolute; return what is wrong with them."""
    table = raw.get("environments", {})
    if not isinstance(table, dict):
        return []
    folder = Path() if source in built_in_suites() else Path(source).parent
    raw["environments"], problems = resolved(table, folder, registry.frameworks)
    return problems


def _refused(suite: Suite, registry: Registry) -> list[str]:
    """Return what tasks, cells and implementations do not offer to a suite."""
    if not any(getattr(suite, kind) for kind in _SECTIONS):
        *others, last = (f"[[{kind}]]" for kind in _SECTIONS)
        return [f"has no {', '.join(others)} or {last} section"]
    problems = []
    for kind in _SECTIONS:
        for index, section in enumerate(getattr(suite, kind)):
            count = _trials_of_one(section)
            if count > MOST_TRIALS:
                problems.append(
                    f"{kind}[{index}]: asks for {count:.3g} trials of each "
                    f"implementation; at most {MOST_TRIALS} are allowed, so give fewer "
                    "values"
                )
            if not isinstance(section, _OnTask):
                continue
            found = _task_problems(section, registry)
            found += _init_problems(section, registry)
            if isinstance(section, LearningSection) and section.learn_on_each:
                found += _on_each_problems(section)
            problems += [f"{kind}[{index}].{problem}" for problem in found]
    return problems


def _trials_of_one(section: _Section) -> int:
    """Count the trials that a section asks of one implementation, unless it is 0."""
    names = {*type(section).model_fields} - {"implementations", "learn_on", "phases"}
    values = [getattr(section, name) for name in names]
    lists = [value for value in values if isinstance(value, tuple) and value]
    shapes = next((v for v in lists if isinstance(v[0], Shape)), ())
    lists = [v for v in lists if v is not shapes]
    sizes = sum(map(_trials_of_one, shapes)) if shapes else 1
    return sizes * math.prod(map(len, lists))


def _task_problems(section: _OnTask, registry: Registry) -> list[str]:
    """Return the options and lengths that a task does not take.

    Tasks need only numpy, so they are asked in this process.
    """
    if section.task not in registry.tasks:
        return []
    try:
        task = load_task(registry, section.task, section.task_options)
    except PluginError as error:
        return [f"task: {error}"]
    problems = []
    for length in section.length:
        try:
            task.time_steps(length)
        except ValueError as error:
            problems.append(f"length: {shortened(str(error), 1000)}")
        except KeyboardInterrupt:  # by the user
            raise
        except BaseException as error:  # whatever a task's own code may raise
            problems.append(f"task: {section.task}: {describe_error(error)}")
    return problems


def _init_problems(section: _OnTask, registry: Registry) -> list[str]:
    """Return the initial values that a cell does not offer."""
    asked = getattr(section, "init", ())
    inits = [asked] if isinstance(asked, str) else asked
    return [
        f"init: cell '{cell}' has no initial values '{init}'"
        f"{suggestion_and_names(init, registry.cell(cell).inits, 'it offers')}"
        for cell in section.cells
        if cell in registry.cells
        for init in inits
        if init not in registry.cell(cell).inits
    ]


def _on_each_problems(section: LearningSection) -> list[str]:
    """Return the keys that contradict `learn_on_each`."""
    problems = []
    if section.learn_on is not None:
        problems.append(
            "learn_on_each: every listed implementation learns, so that learn_on has "
            "nothing to choose; give one of the two"
        )
    if not section.implementations:
        problems.append(
            "learn_on_each: list the implementations that learn, such as "
            'implementations = ["numpy-reference", "torch-native"]'
        )
    return problems
