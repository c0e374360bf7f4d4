"""What a report says in which order; page and summary render the same sections."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.summary import Header, Summary
from harness.report import tables
from harness.report.figures.gallery import MOST_THROUGHPUT, Gallery, timed_places
from harness.report.figures.style import Drawn
from harness.report.tables import Table
from harness.report.text import counts, one_line, seconds

NAMES = {"gradients": "gradient"}


@dataclass(frozen=True)
class Section:
    """A heading with what was not measured, its figures and its tables.

    Attributes:
        folded: Tables that are long and asked for seldom.
    """

    name: str
    title: str
    figures: tuple[Drawn, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    missing: tuple[str, ...] = ()


def sentence(header: Header) -> str:
    """Return one sentence: what was run where, and how it ended."""
    *others, last = _measured(header)
    measured = f"{', '.join(others)} and {last}" if others else last
    trials = "trial" if sum(header.measures.values()) == 1 else "trials"
    words = f"{header.suite} ran {measured} {trials}"
    words += f" on {' and '.join(header.machines) or 'an unnamed machine'}"
    words += f" ({header.fitness})" if header.fitness else ""
    if header.frameworks:
        words += f" with {', '.join(header.frameworks)}"
    if header.wall_time_s is not None:
        words += f" in {seconds(header.wall_time_s)}"
    ended = counts(header.outcomes).replace(" ok", " ended ok")
    return one_line(f"{words}: {ended}.")


def line(header: Header) -> str:
    """Return the same as a line of facts, for a terminal."""
    facts = [header.suite, ", ".join(_measured(header)), counts(header.outcomes)]
    if header.wall_time_s is not None:
        facts.append(seconds(header.wall_time_s))
    machines = " and ".join(header.machines)
    if machines and header.fitness:
        machines += f" ({header.fitness})"
    facts += [machines] if machines else []
    return one_line(" · ".join([*facts, *header.frameworks]))


def _measured(header: Header) -> list[str]:
    return [f"{n} {NAMES.get(name, name)}" for name, n in header.measures.items()]


def sections(
    summary: Summary, gallery: Gallery, unfinished: tuple[str, ...] = ()
) -> list[Section]:
    """Return the sections of a report, the first screen first.

    Args:
        summary: The tables.
        gallery: The figures.
        unfinished: What to say of trials that have no result.
    """
    return [
        _first(summary, gallery),
        _learning(summary, gallery),
        *_agreement(summary, gallery),
        _gradients(summary, gallery),
        _speed(summary, gallery),
        _certificates(summary),
        _outcomes(summary, unfinished),
        Section(
            "environment",
            "Environment",
            tables=_filled(tables.environment_table(summary)),
            missing=()
            if summary.environment or summary.choices
            else ("The run says nothing of its environment.",),
        ),
    ]


def _first(summary: Summary, gallery: Gallery) -> Section:
    notes = []
    if len(summary.header.machines) > 1:
        notes.append(
            "These trials ran on several machines; timings of one are never set "
            "against those of another."
        )
    return Section(
        "first",
        "",
        gallery.overview,
        _filled(tables.learned_table(summary)),
        missing=tuple(notes),
    )


def _learning(summary: Summary, gallery: Gallery) -> Section:
    return Section(
        "learning",
        "What can it learn?",
        gallery.learning,
        _filled(tables.learning_table(summary)),
        missing=() if summary.learned else ("Learning was not measured in this run.",),
    )


def _agreement(summary: Summary, gallery: Gallery) -> list[Section]:
    """Return the section, or none where nothing was trained more than once."""
    if not summary.several_learned:
        return []
    missing: tuple[str, ...] = ()
    if not summary.agreement:
        missing = (
            "Several implementations trained one network, and numpy-reference in "
            "float64, which their curves could be held against, is not among them.",
        )
    return [
        Section(
            "agreement",
            "Do all implementations learn the same?",
            gallery.agreement,
            _filled(tables.agreement_table(summary), tables.parting_table(summary)),
            missing=missing,
        )
    ]


def _gradients(summary: Summary, gallery: Gallery) -> Section:
    missing: tuple[str, ...] = ()
    if not summary.gradients and not summary.initial_values:
        missing = ("The gradient over lag was not measured in this run.",)
    elif not gallery.gradients:
        missing = ("No gradient trial of this run has a curve; see the outcomes.",)
    return Section(
        "gradients",
        "Why? How the gradient travels back",
        gallery.gradients,
        _filled(tables.horizon_table(summary), tables.initial_values_table(summary)),
        missing=missing,
    )


def _speed(summary: Summary, gallery: Gallery) -> Section:
    missing = []
    if not summary.speed:
        missing.append("Speed was not measured in this run.")
    elif not any(row.tokens_per_s for row in summary.speed):
        missing.append("No speed trial of this run has a timing; see the table.")
    peaks = [found for found in summary.peaks if found.peak is not None]
    if summary.peaks and not peaks:
        missing.append(
            "The peak of the machine was not measured beside these timings: there is "
            "no roof, and no fraction of it."
        )
    places = len(timed_places(summary))
    if places > MOST_THROUGHPUT:
        missing.append(
            f"Throughput is drawn for {MOST_THROUGHPUT} of {places} places, from the "
            "least work a call to the most; the tables have them all."
        )
    if summary.learned and not summary.solve_times:
        missing.append(
            "There is no time to solve: it takes a task that the median seed solved "
            "and a certified timing of one update at that task's shape on one thread."
        )
    return Section(
        "speed",
        "How fast is it?",
        gallery.speed,
        _filled(
            tables.fastest_table(summary),
            tables.speed_table(summary),
            tables.rates_table(summary),
            tables.latency_table(summary),
            tables.shaky_table(summary),
            tables.solve_table(summary),
        ),
        _filled(tables.first_calls_table(summary), tables.peaks_table(summary)),
        missing=tuple(missing),
    )


def _certificates(summary: Summary) -> Section:
    missing: tuple[str, ...] = ()
    if not summary.parity:
        missing = (
            "Nothing was certified in this run: no timing is known to be right.",
        )
    return Section(
        "certificates",
        "Certificates: is it the same mathematics?",
        tables=_filled(tables.parity_table(summary)),
        folded=_filled(tables.checks_table(summary)),
        missing=missing,
    )


def _outcomes(summary: Summary, unfinished: tuple[str, ...]) -> Section:
    said = () if summary.outcomes else ("Every finished trial ended ok.",)
    return Section(
        "outcomes",
        "Outcomes",
        tables=_filled(tables.outcome_table(summary)),
        missing=(*said, *unfinished),
    )


def _filled(*found: Table) -> tuple[Table, ...]:
    return tuple(table for table in found if table.rows)
