"""The types of what run folders hold: documents of other versions, or of strangers.

A document whose values have other types is as useless as one that is cut short; it is
found here, so that nothing that reads a record has to look again.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from harness.quantities import BYTES, COUNT, RATE, SINCE, ImpossibleError, Range


def _checked(allowed: Range, value: float) -> float:
    if problem := allowed.problem((value,)):
        raise ImpossibleError(problem)
    return value


def _within(allowed: Range) -> AfterValidator:
    return AfterValidator(partial(_checked, allowed))


Count = Annotated[int, _within(COUNT)]
Bytes = Annotated[float | int, _within(BYTES)]
Rate = Annotated[float | int, _within(RATE)]
Seconds = Annotated[float | int, _within(SINCE)]
Texts = dict[str, str | None]

FILES = r"^(spec\.json|attempt-\d+/(events\.jsonl|arrays\.npz))$"
"""The names of files that a result may be about; none leads out of its folder."""


class _Document(BaseModel):
    """Values that are not named here may be anything: nothing reads them."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Reason(_Document):
    kind: str
    words: str
    advice: str


class _Fitness(_Document):
    verdict: str | None = None
    reasons: list[_Reason] | None = None


class _Quantity(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    unit: str
    better: str = "neither"


class _Peak(_Document):
    flop_per_s: Rate
    size: Count | None = None
    flop_by: str | None = None
    flop_versions: str | None = None
    flop_measured_at: str | None = None
    flop_machine: str | None = None
    copy_bytes_per_s: Rate | None = None
    copy_bytes: Bytes | None = None
    copy_by: str | None = None
    copy_versions: str | None = None
    copy_measured_at: str | None = None
    copy_machine: str | None = None


class _Facts(_Document):
    """What a result or a cached certificate holds beside its readings."""

    outcome: str
    reason: str | None
    kernel: str | None = None
    framework: str | None = None
    numpy: str | None = None
    processor: str | None = None
    gpu: str | None = None
    machine: str | None = None
    host: str | None = None
    python: str | None = None
    session: str | None = None
    headline: str | None = None
    against: str | None = None
    unproven: str | None = None
    read_back_at: str | None = None
    made: str | None = None
    time_steps: Count | None = None
    worker_memory_bytes: Bytes | None = None
    compute_time_s: Seconds | None = None
    wall_time_s: Seconds | None = None
    built_before: bool | None = None
    pinned: Texts | None = None
    where: Texts | None = None
    causes: dict[str, str] | None = None
    parameters: dict[str, Count] | None = None
    quantities: dict[str, _Quantity] | None = None
    fitness: _Fitness | None = None
    unstable: dict[str, list[_Reason]] | None = None
    peak: _Peak | None = None


class _Result(_Facts):
    trial: str
    commit: Count = 0
    committed_at: Seconds
    disk_bytes: Bytes | None = None
    resumed_from: str | None = None
    log_tail: list[str] = []
    files: dict[Annotated[str, Field(pattern=FILES)], str]
    readings: list[dict[str, Any]]


class _Section(_Document):
    cells: list[str] = []


SECTIONS = ("gradients", "learning", "speed")
"""The keys of a suite whose sections name cells."""


class _Suite(_Document):
    name: str | None = None
    why: str | None = None
    learning: list[_Section] = []
    gradients: list[_Section] = []
    speed: list[_Section] = []


class _Environment(_Document):
    libraries: dict[str, str] | None = None
    commit: str | None = None
    memory_bytes: Bytes | None = None
    machine: str | None = None


class _Gate(_Document):
    same_sources: bool | None = None


class _Info(_Document):
    suite: _Suite | None = None
    environment: _Environment | None = None
    device: str | None = None
    choices: dict[str, str] | None = None
    started_at: Seconds | None = None
    wall_time_s: Seconds | None = None
    estimates: list[dict[str, Any]] | None = None
    gate: _Gate | None = None


def check_facts(values: Any) -> None:
    """Check the facts of a cached certificate; raise ValueError with what is wrong."""
    _check(_Facts, values)


def check_result(values: Any) -> None:
    """Check a result; raise ValueError with what is wrong."""
    _check(_Result, values)


def check_info(values: Any) -> None:
    """Check the content of `run.json`; raise ValueError with what is wrong."""
    _check(_Info, values)


def _check(kind: type[_Document], values: Any) -> None:
    try:
        kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:100]
        what = re.sub("^(Input|Value error,) ", "", first["msg"])
        impossible = first["type"] == "value_error"
        raise (ImpossibleError if impossible else ValueError)(
            f"{where} {what}"
        ) from error
