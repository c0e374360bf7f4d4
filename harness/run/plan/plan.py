"""From a suite to a plan: which trials run, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from harness.errors import MisuseError, shortened
from harness.registry import Registry
from harness.run.plan.derived import (
    certificate_trial,
    gradients_trial,
    timed_trial,
)
from harness.run.plan.expand import (
    INDEPENDENT,
    LearningGroup,
    learning_groups,
    speed_trials,
)
from harness.run.plan.filter import Predicate, compile_filter
from harness.suite import Suite
from harness.trial import SpeedSettings, Trial


@dataclass(frozen=True)
class Plan:
    """Trials by stage; each stage may use the results of the stages before it.

    Attributes:
        certificates: The certificates of everything that will run.
        speed: Trials that take turns, by session.
        learning: Groups; one implementation of each group is chosen to learn.
        notes: What was asked for and is not planned, and why.
        independent: Trials that need neither a certificate nor another result, by
            measure.
    """

    certificates: tuple[Trial, ...]
    speed: Mapping[str, tuple[Trial, ...]]
    learning: tuple[LearningGroup, ...]
    notes: tuple[str, ...] = ()
    independent: Mapping[str, tuple[Trial, ...]] = field(default_factory=dict)

    @property
    def first(self) -> tuple[Trial, ...]:
        """The trials that need no result of others and may run beside others."""
        return (*self.certificates, *chain.from_iterable(self.independent.values()))


def make_plan(
    suite: Suite,
    registry: Registry,
    device: str,
    *,
    expression: str | None = None,
    choices: Mapping[str, str],
) -> Plan:
    """Expand a suite, keep the trials that match a filter, and add what they need.

    Every trial that is timed or learns needs its certificate. Where learning chooses an
    implementation, it needs their timings too, which also give the time to solve.

    Args:
        suite: The checked suite.
        registry: Knows which implementations compute a cell.
        device: `cpu` or `cuda:N`.
        expression: A filter over the words of trials, or None.
        choices: Implementations chosen earlier in this run, by `choice_key`.

    Raises:
        MisuseError: If the filter matches nothing.
    """
    groups = _unique_groups(
        group
        for index, section in enumerate(suite.learning)
        for group in learning_groups(
            section, registry, device, choices, where=f"learning[{index}]"
        )
    )
    by_section = [(s, speed_trials(s, registry, device)) for s in suite.speed]
    shapes = [trial for _, trials in by_section for trial in trials]
    independent = {
        measure: _unique(trials_of(suite, registry, device, by_section))
        for measure, trials_of in INDEPENDENT.items()
    }
    timed = [*shapes, *_timed(groups)]
    candidates = [trial for group in groups for trial in group.candidates]
    certificates = _unique(map(certificate_trial, [*timed, *candidates]))
    others = chain.from_iterable(independent.values())
    every = [*timed, *candidates, *certificates, *others]
    known = {word for trial in every for word in trial.words}
    wanted = compile_filter(expression, known | ({"gradients"} if groups else set()))

    def kept(trials: Iterable[Trial]) -> list[Trial]:
        return [trial for trial in trials if wanted(trial.words)]

    learning = [g for group in groups if (g := _narrow(group, wanted)).candidates]
    used = [*kept(timed), *(trial for group in learning for trial in group.candidates)]
    certificates = _unique([*kept(certificates), *map(certificate_trial, used)])
    found = {measure: tuple(kept(trials)) for measure, trials in independent.items()}
    if expression is not None and not (certificates or any(found.values())):
        raise MisuseError(
            f"-k '{shortened(expression)}' matches no trial; `rnn-harness run SUITE "
            "--dry-run` lists them with their words"
        )
    sessions: dict[str, tuple[Trial, ...]] = {}
    for trial in _unique([*kept(timed), *_timed(learning)]):
        name = trial.session or ""
        sessions[name] = (*sessions.get(name, ()), trial)
    settled, notes = _settled(learning)
    with_stream = [
        t for s, trials in by_section if "stream" in s.phases for t in trials
    ]
    notes += _without_stream(kept(with_stream), with_stream)
    return Plan(tuple(certificates), sessions, settled, notes, found)


def _narrow(group: LearningGroup, wanted: Predicate) -> LearningGroup:
    """Keep the candidates that match, or whose gradients trial matches."""

    def matches(trial: Trial) -> bool:
        follower = gradients_trial(trial, "")
        return wanted(trial.words) or (
            group.follow_gradients and wanted(follower.words)
        )

    return replace(group, candidates=tuple(filter(matches, group.candidates)))


def _without_stream(kept: Sequence[Trial], every: Sequence[Trial]) -> tuple[str, ...]:
    """Return a note on where `stream` is timed, if a filter left out all of it."""

    def streams(trial: Trial) -> bool:
        return "stream" in trial.settings_as(SpeedSettings).phases

    if not kept or any(map(streams, kept)):
        return ()
    sizes = dict.fromkeys(
        f"batch {t.batch}, {t.time_steps} time steps" for t in filter(streams, every)
    )
    return (f"-k leaves out stream, which is timed at {' and '.join(sizes)} alone",)


def without_certificates(plan: Plan) -> Plan:
    """Return a plan that measures without comparing anything with the reference."""
    note = (
        "--no-certify: nothing is compared with the reference; every number is marked"
    )
    return replace(plan, certificates=(), notes=(*plan.notes, note))


def _settled(
    groups: Sequence[LearningGroup],
) -> tuple[tuple[LearningGroup, ...], tuple[str, ...]]:
    """Keep only the chosen candidate of each group that has one.

    The other candidates are still certified and timed, because time to solve is
    reported for each of them.

    Returns:
        The groups, and notes on those whose chosen implementation a filter left out.
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
    """Return the timings from which an implementation is chosen."""
    return _unique(
        timed_trial(trial)
        for group in groups
        if not group.on_each
        for trial in group.candidates
    )


def _unique_groups(groups: Iterable[LearningGroup]) -> list[LearningGroup]:
    """Merge groups of the same trial, as when a suite names a seed twice."""
    unique: dict[tuple[str, bool], LearningGroup] = {}
    for group in groups:
        key = (group.candidates[0].key(), group.on_each)
        follow = group.follow_gradients or unique.get(key, group).follow_gradients
        unique[key] = replace(group, follow_gradients=follow)
    return list(unique.values())


def _unique(trials: Iterable[Trial]) -> list[Trial]:
    return list({trial.key(): trial for trial in trials}.values())
