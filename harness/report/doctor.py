"""The text of `doctor`: the machine, the verdict on it, the rates of libraries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.analysis.grouping import group
from harness.machine.gpu import Gpu
from harness.machine.peak import Rate, RateName
from harness.machine.watch import Machine
from harness.printing import printable
from harness.reason import Fitness
from harness.report.text import NOTHING, number, percent, seconds, size, with_unit
from harness.run.doctor import Diagnosis, LibraryPeak, place_words

UNREADABLE = "not readable"

UNITS: dict[RateName, str] = {"flop": "FLOP/s", "copy": "B/s"}


def doctor_json(found: Diagnosis) -> dict[str, Any]:
    """Return the diagnosis as JSON values, with the best library of each device."""
    peaks = [
        {
            **peak.to_json(),
            "best_product": peak is found.best(peak.place, "flop"),
            "best_copy": peak is found.best(peak.place, "copy"),
        }
        for peak in found.peaks
    ]
    return {**found.to_json(), "peaks": peaks, "summary": summary(found)}


def doctor_text(found: Diagnosis) -> str:
    """Return the machine, the verdict with reasons and advice, and a table of rates."""
    libraries = found.environment["libraries"]
    lines = [f"machine    {found.environment['machine']}"]
    lines += [f"           {line}" for line in _machine_lines(found.fitness.machine)]
    if found.fitness.gpu is not None:
        lines.append(f"gpu        {_gpu_line(found.fitness.gpu)}")
    lines.append("libraries  " + ", ".join(f"{n} {v}" for n, v in libraries.items()))
    lines += ["", *_verdict_lines(found.fitness)]
    if found.peaks:
        lines += ["", *_table(found)]
    return "\n".join(map(printable, [*lines, "", summary(found)]))


def summary(found: Diagnosis) -> str:
    """Return one line: the verdict, the machine and the best rates of each device."""
    parts = [found.fitness.verdict, str(found.environment["machine"])]
    for here in _by_place(found):
        rates = [
            f"{_rate(best.rate(name), unit)} ({best.framework})"
            for name, unit in UNITS.items()
            if (best := found.best(here, name)) is not None
        ]
        if rates:
            parts.append(f"{place_words(*here)}: {', '.join(rates)}")
    return " · ".join(parts)


# --- the machine and the verdict -----------------------------------------------------


def _machine_lines(machine: Machine) -> Iterator[str]:
    yield _facts(
        cores=machine.cores,
        allowed=machine.allowed_cores,
        quota=_quota(machine),
        load=machine.load_average,
    )
    load = machine.other_load
    yield _facts(
        others=None if load is None else f"{load:.2f} cores",
        steal=_share(machine.steal),
        swap=None if machine.swap_used_bytes is None else size(machine.swap_used_bytes),
        throttled=machine.throttled,
    )
    yield _facts(
        governor=machine.governor,
        boost=None if machine.boost is None else "on" if machine.boost else "off",
        clock=_clock(machine.clock_hz),
        clock_varied=_share(machine.clock_spread),
    )
    yield (
        f"a fixed piece of work: median {seconds(machine.work_s)}, known to "
        f"{percent(machine.work_interval)}; one in twenty takes "
        f"{percent(machine.work_spread)} longer"
    )


def _facts(**values: object) -> str:
    words = {name.replace("_", " "): value for name, value in values.items()}
    return " · ".join(f"{n} {UNREADABLE if v is None else v}" for n, v in words.items())


def _quota(machine: Machine) -> str | None:
    quota = machine.quota_cores
    if quota is None:
        return None
    return "none" if quota == machine.cores else f"{quota:g} cores"


def _share(value: float | None) -> str | None:
    return None if value is None else "0 %" if value == 0 else percent(value)


def _clock(hz: float | None) -> str | None:
    return None if hz is None else f"{hz / 1e9:.2f} GHz"


def _gpu_line(gpu: Gpu) -> str:
    slowed_by = gpu.slowed_by
    return f"{gpu.name} · " + _facts(
        clock=_clock(gpu.clock_hz),
        memory_clock=_clock(gpu.memory_clock_hz),
        temperature=None if gpu.temperature_c is None else f"{gpu.temperature_c} °C",
        power=None if gpu.power_w is None else f"{number(gpu.power_w)} W",
        held_back_by=None if slowed_by is None else ", ".join(slowed_by) or "nothing",
        busy=_share(gpu.busy),
        other_processes=gpu.others,
    )


def _verdict_lines(fitness: Fitness) -> Iterator[str]:
    words = {
        "fit": "nothing was found that changes a time",
        "noisy": "numbers can be used, with the marks beside them",
        "unfit": "numbers would be wrong or meaningless",
    }
    yield f"verdict    {fitness.verdict}: {words[fitness.verdict]}"
    for reason in fitness.reasons:
        yield f"  {reason.verdict:<8} {reason.words}"
        yield f"  {'':<8} -> {reason.advice}"


# --- the rates -----------------------------------------------------------------------


def _table(found: Diagnosis) -> Iterator[str]:
    width = max(len(peak.versions) for peak in found.peaks)
    first = found.peaks[0].conditions
    yield (
        f"{f'{first.dtype}, {first.precision}':<{width + 2}} {'product':>15}  "
        f"{'at size':>8} {'copy':>11}"
    )
    for here, peaks in _by_place(found).items():
        yield place_words(*here)
        for peak in peaks:
            yield f"  {peak.versions:<{width}} {_rates(found, peak)}".rstrip()
    yield "* the best here; a product is 2 size³ operations, a copy reads and writes"
    if found.fitness.verdict != "fit":
        yield f"! measured while the machine was {found.fitness.verdict}: may be low"


def _rates(found: Diagnosis, row: LibraryPeak) -> str:
    if row.peak is None:
        return f"{NOTHING:>15}   {row.reason}"
    product, copy = (_rate(row.rate(name), unit) for name, unit in UNITS.items())
    best = (found.best(row.place, name) for name in UNITS)
    first, second = ("*" if row is each else " " for each in best)
    return f"{product:>15}{first} {row.peak.flop.size:>8} {copy:>11}{second}"


def _rate(rate: Rate | None, unit: str) -> str:
    return with_unit(None if rate is None else rate.per_s, unit)


def _by_place(found: Diagnosis) -> dict[tuple[str, int], list[LibraryPeak]]:
    """Return the peaks of each device and number of threads."""
    return group(found.peaks, lambda peak: peak.place)
