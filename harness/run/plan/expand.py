"""From a section of a suite to its trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import MisuseError
from harness.measure.subject import ORACLE
from harness.registry import Registry
from harness.run.plan.derived import TIMED_OPTIMIZER, memory_trial
from harness.suite import GradientsSection, LearningSection, SpeedSection, Suite
from harness.trial import LearningSettings, SpeedSettings, Trial


@dataclass(frozen=True)
class LearningGroup:
    """One learning trial, with a candidate for each implementation that could run it.

    Attributes:
        follow_gradients: Whether a gradients trial follows.
        learn_on: The first of these that is certified learns; if there is none, the
            fastest certified candidate does.
        chosen: The implementation that was chosen earlier in this run, or None.
        on_each: Whether there is no choice: the only candidate learns if certified.
    """

    candidates: tuple[Trial, ...]
    follow_gradients: bool
    learn_on: tuple[str, ...] = ()
    chosen: str | None = None
    on_each: bool = False

    @property
    def implementations(self) -> tuple[str, ...]:
        """The implementations of the candidates."""
        return tuple(trial.implementation for trial in self.candidates)

    @property
    def likely(self) -> tuple[Trial, ...]:
        """The candidates from which one will learn if any of them is certified."""
        wanted = (self.chosen,) if self.chosen else self.learn_on[:1]
        found = tuple(t for t in self.candidates if t.implementation in wanted)
        return found or self.candidates

    @property
    def choice_key(self) -> str:
        """What an implementation is chosen for; seeds share one choice."""
        trial = self.candidates[0]
        sizes = f"{trial.hidden_size}x{trial.num_layers} batch {trial.batch}"
        return f"{trial.task} {trial.length} {trial.cell} {sizes} {trial.dtype}"


def _device_of(name: str, device: str) -> str:
    """Return the device of an implementation; the reference always runs on the CPU."""
    return "cpu" if name == ORACLE else device


def _implementations(
    asked: Sequence[str] | None,
    registry: Registry,
    cell: str,
    device: str,
    dtype: str,
    precision: str = "highest",
) -> list[str]:
    """Return the implementations of a cell that a section asks for, and plugin files'.

    Without a list these are all that offer the device, dtype and precision and whose
    framework is installed. Those of plugin files are always added: a user who names a
    plugin file wants it measured.
    """
    declared = registry.implementations.values()
    if asked is not None:
        names = list(asked)
    else:
        names = [
            d.name
            for d in declared
            if device.split(":")[0] in d.devices
            and dtype in d.dtypes
            and precision in d.precisions
            and registry.unavailable(d.name) is None
        ]
    names += [d.name for d in declared if d.file is not None and d.name not in names]
    return [n for n in names if cell in registry.implementation(n).cells]


def learning_groups(
    section: LearningSection,
    registry: Registry,
    device: str,
    choices: Mapping[str, str],
    *,
    where: str,
) -> list[LearningGroup]:
    """Return a group for each length, cell and seed of a section.

    Args:
        section: The section.
        registry: Knows which implementations train a cell.
        device: `cpu` or `cuda:N`.
        choices: Implementations chosen earlier in this run, by `choice_key`.
        where: The name of the section in messages.

    Raises:
        MisuseError: If no implementation trains a cell, or a listed one does not.
    """
    groups = []
    for length in section.length:
        for cell in section.cells:
            asked, dtype = section.implementations, section.dtype
            names = _trainers(asked, registry, cell, device, dtype)
            idle = [n for n in asked or () if not registry.implementation(n).trains]
            if idle or not names:
                trainers = _trainers(None, registry, cell, device, dtype)
                what = f"the cell '{cell}' on {device} in {dtype}"
                raise _cannot_learn(where, what, asked or (), idle, trainers)
            for seed in section.seeds:
                candidates = tuple(
                    _learning_trial(section, name, cell, length, seed, device)
                    for name in names
                )
                if section.learn_on_each:
                    groups += [
                        LearningGroup((trial,), section.gradients, on_each=True)
                        for trial in candidates
                        if _wanted_on_each(section, trial.implementation, registry)
                    ]
                    continue
                group = LearningGroup(
                    candidates, section.gradients, section.learn_on or ()
                )
                chosen = choices.get(group.choice_key)
                if chosen is not None and chosen not in names:
                    raise _lacks_choice(group, chosen)
                groups.append(replace(group, chosen=chosen))
    return groups


def _trainers(
    asked: Sequence[str] | None, registry: Registry, cell: str, device: str, dtype: str
) -> list[str]:
    names = _implementations(asked, registry, cell, device, dtype)
    return [name for name in names if registry.implementation(name).trains]


def _cannot_learn(
    where: str,
    cell: str,
    asked: Sequence[str],
    idle: Sequence[str],
    trainers: Sequence[str],
) -> MisuseError:
    """Return an error that names what cannot learn, and the implementations that can.

    `idle` are the implementations asked for that do not train.
    """
    if not asked:
        return MisuseError(f"{where}: no implementation trains {cell}")
    if idle:
        why = f"{_quoted(idle)} {'do' if idle[1:] else 'does'} not train; leave "
        why += "them out" if idle[1:] else "it out"
    else:
        why = f"{_quoted(asked)} {'do' if asked[1:] else 'does'} not compute the cell"
    known = ", ".join(trainers) or "no implementation known here"
    return MisuseError(f"{where}.implementations: {why}; {cell} is trained by {known}")


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _wanted_on_each(section: LearningSection, name: str, registry: Registry) -> bool:
    """Say whether an implementation is listed, or a plugin file's offers the dtype."""
    listed = name in (section.implementations or ())
    return listed or section.dtype in registry.implementation(name).dtypes


def _lacks_choice(group: LearningGroup, chosen: str) -> MisuseError:
    names = ", ".join(trial.implementation for trial in group.candidates)
    return MisuseError(
        f"this run learns '{group.choice_key}' on '{chosen}', a choice made once, and "
        f"that is not among its implementations now ({names}); give the same "
        "implementations and --plugin files as before, or another folder with -o"
    )


def _learning_trial(
    section: LearningSection, name: str, cell: str, length: int, seed: int, device: str
) -> Trial:
    return Trial(
        measure="learning",
        implementation=name,
        cell=cell,
        device=_device_of(name, device),
        dtype=section.dtype,
        **_on_task(section, length, seed),
        batch=section.batch,
        init=section.init,
        optimizer=section.optimizer_constants,
        settings=LearningSettings(
            section.updates, section.evaluate_every, section.evaluate_sequences
        ),
    )


def _on_task(
    section: LearningSection | GradientsSection, length: int, seed: int
) -> dict[str, Any]:
    """Return the fields of a trial that learning and initial gradients share."""
    names = ("task", "task_options", "hidden_size", "num_layers")
    shared = {name: getattr(section, name) for name in names}
    return {**shared, "length": length, "seed": seed, "data_seed": seed}


def initial_gradients(suite: Suite) -> list[Trial]:
    """Return trials in float64, the dtype in which the reference computes gradients."""
    return [
        Trial(
            measure="gradients",
            implementation=ORACLE,
            cell=cell,
            dtype="float64",
            **_on_task(section, length, seed),
            init=init,
        )
        for section in suite.gradients
        for length in section.length
        for cell in section.cells
        for init in section.init
        for seed in section.seeds
    ]


def speed_trials(section: SpeedSection, registry: Registry, device: str) -> list[Trial]:
    """Return the trials of a section; those of one shape and budget share a session."""
    return [
        Trial(
            measure="speed",
            implementation=name,
            cell=cell,
            device=_device_of(name, device),
            dtype=section.dtype,
            precision=precision,
            threads=threads,
            session=(
                f"{'x'.join(map(str, sizes.values()))} {arithmetic} {device} "
                f"{threads} {'thread' if threads == 1 else 'threads'}"
            ),
            **sizes,
            readout=section.readout,
            seed=0,
            data_seed=0,
            optimizer=TIMED_OPTIMIZER,
            settings=SpeedSettings(
                phases,
                section.rounds,
                section.readings,
                section.target,
                section.time_budget_s,
            ),
        )
        for threads in section.threads
        for precision in section.precision
        for arithmetic in [_arithmetic(section.dtype, precision)]
        for sizes, phases in _shapes(section)
        for cell in section.cells
        for name in _implementations(
            section.implementations, registry, cell, device, section.dtype, precision
        )
        if _has_a_phase(section, phases, registry, name)
    ]


def _shapes(
    section: SpeedSection,
) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Yield the sizes of a section, and the phases that are timed at each.

    `stream` times a single time step of one sequence, which depends neither on the
    batch nor on the time steps. Of sizes that differ only in these, the smallest has
    `stream`.
    """
    every = [sizes for shape in section.shapes for sizes in shape.sizes]
    least: dict[tuple[int, ...], dict[str, Any]] = {}
    for sizes in sorted(every, key=lambda s: s["batch"] * s["time_steps"]):
        least.setdefault(_of_a_step(sizes), sizes)
    for sizes in every:
        phases: tuple[str, ...] = section.phases
        if least[_of_a_step(sizes)] != sizes:
            phases = tuple(name for name in phases if name != "stream")
        if phases:
            yield sizes, phases


def _of_a_step(sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(n for name, n in sizes.items() if name not in ("batch", "time_steps"))


def _has_a_phase(
    section: SpeedSection, phases: Sequence[str], registry: Registry, name: str
) -> bool:
    """Say whether an implementation has something to time at some sizes.

    A listed one always has, so that its trial says why it cannot be timed, unless its
    only phase may be `stream`, which is timed at other sizes.
    """
    infers = {"forward", "stream"} & set(phases)
    listed = name in (section.implementations or ()) and "stream" not in section.phases
    return bool(infers) or listed or registry.implementation(name).trains


def _arithmetic(dtype: str, precision: str) -> str:
    return dtype if precision == "highest" else f"{dtype} {precision}"


Timed = Sequence[tuple[SpeedSection, Sequence[Trial]]]
"""The speed sections of a suite, each with its trials."""


def memory_trials(timed: Timed) -> list[Trial]:
    """Return a trial for each speed trial of the sections that ask for memory."""
    return [
        memory_trial(trial)
        for section, trials in timed
        if section.memory
        for trial in trials
    ]


INDEPENDENT: Mapping[str, Callable[[Suite, Registry, str, Timed], Iterable[Trial]]] = {
    "memory": lambda suite, registry, device, timed: memory_trials(timed),
    "gradients": lambda suite, registry, device, timed: initial_gradients(suite),
}
"""By measure, what makes its trials that need no other trial.

It is called with the suite, the plugins, the device and the speed trials.
"""
