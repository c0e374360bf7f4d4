"""A trial: one measure of one network at one size, and its identity."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.contract import Optimizer

Measure = Literal["parity", "learning", "gradients", "speed", "memory"]


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

    def slot(self) -> str:
        """Hash of the trial alone: results with one slot answer one question."""
        return self._slot

    @functools.cached_property
    def _slot(self) -> str:
        return _digest(self.to_json())

    def identity(self, sources: Mapping[str, str]) -> str:
        """Name the trial: readable, with a hash of it and of its plugins' sources."""
        digest = _digest({"trial": self.to_json(), "sources": dict(sources)})
        # A file name may have 255 bytes, and temporary names are longer.
        label = re.sub(r"[^A-Za-z0-9.]+", "-", self.label)[:120]
        return f"{label}-{digest[:12]}"


_NAMES = tuple(field.name for field in dataclasses.fields(Trial))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
