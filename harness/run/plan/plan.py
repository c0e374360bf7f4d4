"""From a suite to trials: the grid, and what is wanted of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.contract import Optimizer
from harness.errors import MisuseError
from harness.measure.subject import ORACLE
from harness.registry import Registry
from harness.run.plan.filter import compile_filter
from harness.suite import GradientsSection, LearningSection, SpeedSection, Suite
from harness.trial import (
    CERTIFIED,
    GradientsSettings,
    LearningSettings,
    PhasesSettings,
    SpeedSettings,
    Trial,
)

# What is timed must be what is checked afterwards: with these constants float32 stays
# within the certificate's tolerance of float64 over the updates of one turn.
TIMED_OPTIMIZER = Optimizer(learning_rate=1e-3, epsilon=1e-3, clip_norm=0.01)


@dataclass(frozen=True)
class LearningGroup:
    """One learning trial, once for each implementation that could run it.

    Attributes:
        follow_gradients: Whether a gradients trial follows.
        learn_on: Implementations to learn on, the first that is certified; where
            there is none, the fastest certified one.
        chosen: What was chosen earlier in this run.
        on_each: Whether nothing is chosen: the only candidate learns if certified.
    """

    candidates: tuple[Trial, ...]
    follow_gradients: bool
    learn_on: tuple[str, ...] = ()
    chosen: str | None = None
    on_each: bool = False

    @property
    def implementations(self) -> tuple[str, ...]:
        """Names of the candidates."""
        return tuple(trial.implementation for trial in self.candidates)

    @property
    def likely(self) -> tuple[Trial, ...]:
        """The candidates of which one will learn, unless none of them is certified."""
        wanted = (self.chosen,) if self.chosen else self.learn_on[:1]
        found = tuple(t for t in self.candidates if t.implementation in wanted)
        return found or self.candidates

    @property
    def choice_key(self) -> str:
        """What one choice of implementation is made for: all seeds alike."""
        trial = self.candidates[0]
        sizes = f"{trial.hidden_size}x{trial.num_layers} batch {trial.batch}"
        return f"{trial.task} {trial.length} {trial.cell} {sizes} {trial.dtype}"


@dataclass(frozen=True)
class Plan:
    """Trials by stage; each stage may use what the ones before it found.

    Attributes:
        parity: Certificates of everything that will run.
        memory: Peak memory, each in a process of its own.
        speed: Trials that are measured taking turns, by session.
        learning: Groups from which one implementation is chosen.
        notes: What was wanted and is not planned, and why.
        gradients: Trials at initial values, which follow no learning and need no
            certificate: the reference computes them.
    """

    parity: tuple[Trial, ...]
    speed: Mapping[str, tuple[Trial, ...]]
    learning: tuple[LearningGroup, ...]
    notes: tuple[str, ...] = ()
    gradients: tuple[Trial, ...] = ()
    memory: tuple[Trial, ...] = ()

    @property
    def first(self) -> tuple[Trial, ...]:
        """What needs nothing of other trials, and does not have to be alone."""
        return (*self.parity, *self.memory, *self.gradients)


def make_plan(
    suite: Suite,
    registry: Registry,
    device: str,
    *,
    expression: str | None = None,
    choices: Mapping[str, str],
) -> Plan:
    """Expand a suite, keep what a filter wants, and add what that needs.

    A wanted learning trial needs the speed of the candidates there is a choice of,
    which also gives the time to solve; everything needs its certificate.

    Args:
        suite: The checked suite.
        registry: Knows which implementations compute a cell.
        device: `cpu` or `cuda:N`.
        expression: Filter over the words of trials.
        choices: Implementations chosen earlier in this run, by `choice_key`.

    Raises:
        MisuseError: If the filter matches nothing.
    """
    learning = _unique_groups(
        group
        for index, section in enumerate(suite.learning)
        for group in _learning_groups(
            section, registry, device, choices, where=f"learning[{index}]"
        )
    )
    shapes, memory, with_stream = [], [], []
    for section in suite.speed:
        found = _speed_trials(section, registry, device)
        shapes += found
        with_stream += found if "stream" in section.phases else []
        memory += [memory_trial(trial) for trial in found if section.memory]
    memory = _unique(memory)
    gradients = _unique(t for s in suite.gradients for t in _gradients_trials(s))
    timed = _timed(learning)
    every = [*shapes, *timed, *(t for g in learning for t in g.candidates)]
    if expression is None:
        return _plan(every, shapes, learning, gradients, memory)
    certificates = _unique(map(certificate_trial, every))
    words = {w for t in [*every, *certificates, *gradients, *memory] for w in t.words}
    if learning:
        words.add("gradients")
    wanted = compile_filter(expression, words)
    learning = [_narrow(group, wanted) for group in learning]
    learning = [group for group in learning if group.candidates]
    kept = [t for t in [*shapes, *timed] if wanted(t.words)]
    trials = _unique([*kept, *(t for g in learning for t in g.candidates)])
    certificates = [t for t in certificates if wanted(t.words)]
    gradients = [t for t in gradients if wanted(t.words)]
    memory = [t for t in memory if wanted(t.words)]
    if not trials and not certificates and not gradients and not memory:
        raise MisuseError(
            f"-k '{expression}' matches no trial; `rnn-harness run SUITE --dry-run` "
            "lists them with their words"
        )
    found_plan = _plan(trials, kept, learning, gradients, memory, certificates)
    notes = _without_stream([t for t in with_stream if wanted(t.words)], with_stream)
    return replace(found_plan, notes=(*found_plan.notes, *notes))


def _without_stream(kept: Sequence[Trial], every: Sequence[Trial]) -> tuple[str, ...]:
    """Say where `stream` is timed, if a filter left all of that out."""
    if not kept or any(map(_streams, kept)):
        return ()
    sizes = filter(_streams, every)
    words = dict.fromkeys(f"batch {t.batch}, {t.time_steps} time steps" for t in sizes)
    return (f"-k leaves out stream, which is timed at {' and '.join(words)} alone",)


def _streams(trial: Trial) -> bool:
    return "stream" in trial.settings_as(SpeedSettings).phases


def without_certificates(plan: Plan) -> Plan:
    """Return a plan that measures without holding anything against the reference."""
    note = "--no-certify: nothing is held against the reference; every number is marked"
    return replace(plan, parity=(), notes=(*plan.notes, note))


def _narrow(group: LearningGroup, wanted: object) -> LearningGroup:
    assert callable(wanted)

    def matches(trial: Trial) -> bool:
        # A gradients trial belongs to its learning trial and is asked for by either.
        follower = replace(trial, measure="gradients")
        return bool(
            wanted(trial.words) or (group.follow_gradients and wanted(follower.words))
        )

    return replace(group, candidates=tuple(filter(matches, group.candidates)))


def _plan(
    trials: Sequence[Trial],
    speed: Sequence[Trial],
    learning: Sequence[LearningGroup],
    gradients: Sequence[Trial],
    memory: Sequence[Trial],
    certificates: Sequence[Trial] = (),
) -> Plan:
    timed = _timed(learning)
    sessions: dict[str, tuple[Trial, ...]] = {}
    for trial in _unique([*speed, *timed]):
        name = trial.session or ""
        sessions[name] = (*sessions.get(name, ()), trial)
    parity = _unique([*certificates, *map(certificate_trial, trials)])
    settled, notes = _settled(learning)
    return Plan(
        tuple(parity), sessions, settled, notes, tuple(gradients), tuple(memory)
    )


def _settled(
    groups: Sequence[LearningGroup],
) -> tuple[tuple[LearningGroup, ...], tuple[str, ...]]:
    """Leave a group whose implementation is chosen with that one alone.

    The other candidates are certified and timed all the same: time to solve is told
    for each of them.
    """
    settled, notes = [], []
    for group in groups:
        kept = [t for t in group.candidates if t.implementation == group.chosen]
        if group.chosen is None:
            settled.append(group)
        elif kept:
            settled.append(replace(group, candidates=tuple(kept)))
        else:
            trial = group.candidates[0]
            notes.append(
                f"{trial.cell} learns {trial.task} {trial.length} on {group.chosen} in "
                "this run, a choice made once; to learn on "
                f"{' or '.join(group.implementations)} give another folder with -o"
            )
    return tuple(settled), tuple(dict.fromkeys(notes))


def _timed(groups: Iterable[LearningGroup]) -> list[Trial]:
    """Return the timings that a choice is made by."""
    return _unique(
        timed_trial(trial)
        for group in groups
        if not group.on_each
        for trial in group.candidates
    )


def _unique_groups(groups: Iterable[LearningGroup]) -> list[LearningGroup]:
    """Join groups that ask the same, as where a seed is named twice."""
    unique: dict[tuple[str, bool], LearningGroup] = {}
    for group in groups:
        key = (group.candidates[0].key(), group.on_each)
        follow = group.follow_gradients
        if key in unique:
            follow = follow or unique[key].follow_gradients
        unique[key] = replace(group, follow_gradients=follow)
    return list(unique.values())


def _unique(trials: Iterable[Trial]) -> list[Trial]:
    return list({trial.key(): trial for trial in trials}.values())


# --- expanding -----------------------------------------------------------------------


def _device_of(name: str, device: str) -> str:
    """Return where an implementation runs: the reference stays on the processor.

    Whatever runs elsewhere is still compared with it.
    """
    return "cpu" if name == ORACLE else device


def _implementations(
    asked: Sequence[str] | None,
    registry: Registry,
    cell: str,
    device: str,
    dtype: str,
    precision: str = "highest",
) -> list[str]:
    """Return who computes a cell: those asked for, and every plugin file's.

    Whoever names a plugin file wants it measured. Where nobody is asked for, those
    that do not offer the device, dtype or precision, or whose framework is not
    installed, are left out: none of them was wanted.
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


def _learning_groups(
    section: LearningSection,
    registry: Registry,
    device: str,
    choices: Mapping[str, str],
    *,
    where: str,
) -> list[LearningGroup]:
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
    """Name who was asked in vain, `idle` those that do not train, and who trains."""
    if not asked:
        return MisuseError(f"{where}: no implementation trains {cell}")
    if idle:
        vain = f"{_quoted(idle)} {'do' if idle[1:] else 'does'} not train; leave "
        vain += "them out" if idle[1:] else "it out"
    else:
        vain = f"{_quoted(asked)} {'do' if asked[1:] else 'does'} not compute the cell"
    known = ", ".join(trainers) or "no implementation known here"
    return MisuseError(f"{where}.implementations: {vain}; {cell} is trained by {known}")


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _wanted_on_each(section: LearningSection, name: str, registry: Registry) -> bool:
    """Leave out a plugin file's implementation in a dtype that it does not offer."""
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
        threads=1,
        task=section.task,
        task_options=section.task_options,
        length=length,
        hidden_size=section.hidden_size,
        num_layers=section.num_layers,
        batch=section.batch,
        seed=seed,
        data_seed=seed,
        init=section.init,
        optimizer=section.optimizer_constants,
        settings=LearningSettings(
            section.updates, section.evaluate_every, section.evaluate_sequences
        ),
    )


def _gradients_trials(section: GradientsSection) -> list[Trial]:
    """Return trials in float64, which is what the reference computes gradients in."""
    return [
        Trial(
            measure="gradients",
            implementation=ORACLE,
            cell=cell,
            dtype="float64",
            task=section.task,
            task_options=section.task_options,
            length=length,
            hidden_size=section.hidden_size,
            num_layers=section.num_layers,
            seed=seed,
            data_seed=seed,
            init=init,
        )
        for length in section.length
        for cell in section.cells
        for init in section.init
        for seed in section.seeds
    ]


def _speed_trials(
    section: SpeedSection, registry: Registry, device: str
) -> list[Trial]:
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
    """Yield sizes and what is timed at them.

    A single time step of one sequence is the same whatever the batch and the time
    steps: of the sizes that differ in nothing else the least have `stream`.
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
    """Say whether there is anything to time; what is asked for by name is refused.

    Not where its only phase is timed at other sizes.
    """
    infers = {"forward", "stream"} & set(phases)
    listed = name in (section.implementations or ()) and "stream" not in section.phases
    return bool(infers) or listed or registry.implementation(name).trains


def _arithmetic(dtype: str, precision: str) -> str:
    return dtype if precision == "highest" else f"{dtype} {precision}"


def memory_trial(trial: Trial) -> Trial:
    """Return the trial that measures the peak memory of a speed trial's phases."""
    phases = PhasesSettings(trial.settings_as(SpeedSettings).phases)
    return replace(trial, measure="memory", session=None, settings=phases)


def timed_trial(trial: Trial) -> Trial:
    """Return the speed trial of a learning trial's shape: one update at a time."""
    session = (
        f"{trial.task} {trial.length} batch {trial.batch} hidden {trial.hidden_size}"
        f"x{trial.num_layers} {trial.dtype} {trial.device}"
    )
    return replace(
        trial,
        measure="speed",
        session=session,
        seed=0,
        data_seed=0,
        init="canonical",
        optimizer=replace(
            TIMED_OPTIMIZER,
            name=trial.optimizer.name,
            momentum=trial.optimizer.momentum,
        ),
        # Learning chooses by it and time to solve takes it along, whose other factor
        # is known far less.
        settings=SpeedSettings(
            ("train_step",), rounds=12, readings=4, target=0.05, time_budget_s=5.0
        ),
    )


def certificate_trial(trial: Trial) -> Trial:
    """Return the certificate that a trial's numbers rest on."""
    return Trial("parity", **{name: getattr(trial, name) for name in CERTIFIED})


def gradients_trial(learning: Trial, learning_id: str) -> Trial:
    """Return the gradients trial that follows a learning trial."""
    return replace(
        learning, measure="gradients", settings=GradientsSettings(learning_id)
    )
