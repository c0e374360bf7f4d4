"""A trial: one measure of one network at one size, and its identity."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.contract import Optimizer

Measure = Literal["parity", "learning", "gradients", "speed", "memory"]

# --- what `Trial.key` may ignore: names of a trial's fields and of its settings -------

SEEDS = ("seed", "data_seed")
"""The draws of the initial values and of the training data."""

SESSION = ("session",)
"""The trials that are timed beside it."""

SETTINGS = ("settings",)
"""What only its measure needs."""

QUESTION = ("measure", *SESSION, *SETTINGS)
"""What is asked of a network; the rest names the network."""

FOLLOWS = ("follows",)
"""The learning trial whose weights a gradients trial looks at."""

HOW_LONG = ("phases", "rounds", "readings", "target", "time_budget_s")
"""Which phases are timed, and for how long."""

HOW_TIMED = (*SEEDS, *SESSION, *HOW_LONG)
"""What may differ between two timings of the same call."""

START = ("init", "optimizer")
"""What the time of an update does not depend on: initial values and constants."""

IMPLEMENTATION = ("implementation",)

WHO_COMPUTES = (*IMPLEMENTATION, "device")
"""An implementation, and the device it runs on."""

ARITHMETIC = ("dtype", "precision")

HOW_COMPUTED = (*WHO_COMPUTES, *ARITHMETIC)
"""Who computes a network, where, and how exactly."""

BUDGET = ("threads", *ARITHMETIC)
"""What a timing may use."""


@dataclass(frozen=True)
class Trial:
    """One measure of one (implementation, cell, task, sizes, device, precision, seed).

    Attributes:
        session: Speed trials of one session are measured taking turns.
        task: None where the input is random numbers: parity, and speed by shape.
        seed: Draws the initial values; `data_seed` draws the training data.
        settings: What only this measure needs, and the suite decided.
    """

    measure: Measure
    implementation: str
    cell: str
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    precision: str = "highest"
    biases: Literal["canonical", "native"] = "canonical"
    threads: int = 1
    session: str | None = None
    task: str | None = None
    task_options: Mapping[str, Any] = field(default_factory=dict)
    length: int | None = None
    time_steps: int | None = None
    input_size: int | None = None
    hidden_size: int | None = None
    num_layers: int = 1
    batch: int | None = None
    seed: int | None = None
    data_seed: int | None = None
    init: str = "canonical"
    optimizer: Optimizer = field(default_factory=Optimizer)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON values."""
        # Every trial of a long study is asked; a deep copy would take most of the time.
        return {
            **{name: getattr(self, name) for name in _NAMES},
            "task_options": dict(self.task_options),
            "settings": dict(self.settings),
            "optimizer": dict(vars(self.optimizer)),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Trial:
        """Rebuild a trial from `to_json`."""
        return cls(**{**values, "optimizer": Optimizer(**values["optimizer"])})

    @property
    def words(self) -> tuple[str, ...]:
        """The words a filter expression may ask for."""
        words = [self.measure, self.cell, self.implementation, self.device]
        words += [self.dtype, self.init, self.precision, f"threads{self.threads}"]
        if self.task is not None:
            words += [self.task, f"length{self.length}"]
        sizes = {"batch": self.batch, "steps": self.time_steps}
        sizes["hidden"] = self.hidden_size
        words += [f"{name}{size}" for name, size in sizes.items() if size is not None]
        if self.seed is not None:
            words.append(f"seed{self.seed}")
        return tuple(words)

    @property
    def label(self) -> str:
        """A name for people: measure, cell, implementation, task, init, dtype, seed."""
        parts = [self.measure, self.cell, self.implementation]
        if self.task is not None:
            parts.append(f"{self.task}-{self.length}")
        elif self.time_steps is not None:
            parts.append(f"{self.batch}x{self.time_steps}x{self.hidden_size}")
        if self.init != "canonical":
            parts.append(self.init)
        if self.dtype != "float32":
            parts.append(self.dtype)
        if self.precision != "highest":
            parts.append(self.precision)
        if self.threads != 1:
            parts.append(f"{self.threads}-threads")
        if self.seed is not None:
            parts.append(f"s{self.seed}")
        return " ".join(parts)

    def key(self, *ignored: Collection[str]) -> str:
        """Return a hash that is the same for trials that differ in ignored names only.

        Args:
            ignored: Names of fields and of settings, such as `SEEDS`; none by default.
        """
        names = frozenset[str]().union(*ignored)
        if names not in self._keys:
            given = {n: v for n, v in self._given.items() if n not in names}
            settings = given.pop("settings", {}).items()
            given |= {n: v for n, v in settings if n not in names}
            self._keys[names] = _digest(given)
        return self._keys[names]

    @functools.cached_property
    def _given(self) -> dict[str, Any]:
        """The fields that are not at their default, as JSON values."""
        return _without_defaults(self)

    @functools.cached_property
    def _keys(self) -> dict[frozenset[str], str]:
        return {}

    def identity(self, sources: Mapping[str, str]) -> str:
        """Name the trial: readable, with a hash of it and of its plugins' sources.

        A field that is at its default does not enter the hash, so that a field that a
        later version adds changes no id. The default of a field must never change.
        """
        digest = _digest({"trial": self._given, "sources": dict(sources)})
        # A file name may have 255 bytes, and temporary names are longer.
        label = re.sub(r"[^A-Za-z0-9.]+", "-", self.label)[:120]
        return f"{label}-{digest[:12]}"


_NAMES = tuple(field.name for field in dataclasses.fields(Trial))

CERTIFIED = ("cell", *WHO_COMPUTES, *BUDGET, "biases")
"""The fields that a certificate depends on."""

UNCERTIFIED = tuple(name for name in _NAMES if name not in CERTIFIED)
"""The fields that a certificate does not depend on."""


def _without_defaults(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that are not at their default."""
    found = {}
    for each in dataclasses.fields(value):
        given, default = getattr(value, each.name), each.default
        if each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        if given != default:
            whole = not dataclasses.is_dataclass(given)
            found[each.name] = given if whole else _without_defaults(given)
    return found


def _digest(value: Any) -> str:
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=dict
    )
    return hashlib.sha256(text.encode()).hexdigest()
