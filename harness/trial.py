"""A trial: one measure of one network at one size, and its identity."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, TypeVar

from harness.contract import Optimizer

# --- the settings of each measure ----------------------------------------------------

_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (float, int),
    "float | None": (float, int, type(None)),
    "str": (str,),
    "str | None": (str, type(None)),
    "tuple[str, ...]": (tuple,),
}
"""The types that a value may have, by the type of its field; a literal is text."""


def _check_types(found: Any) -> None:
    """Check the values of a dataclass, which may come from a file.

    Raises:
        TypeError: If one has another type than its field.
    """
    for each in fields(found):
        value, kind = getattr(found, each.name), str(each.type)
        words = value if isinstance(value, tuple) else ()
        allowed = (str,) if kind.startswith("Literal") else _TYPES.get(kind)
        if allowed and (type(value) not in allowed or {*map(type, words)} - {str}):
            raise TypeError(f"{each.name} is {repr(value)[:60]}, not {kind}")


class SettingsError(ValueError):
    """Stored settings differ from the settings that the measure has in this version."""


@dataclass(frozen=True)
class Settings:
    """The settings of one measure; this class is for measures without any.

    Raises:
        TypeError: If a value has another type than its field.
    """

    def __post_init__(self) -> None:
        """Check the values, which may come from a file."""
        for each in fields(self):
            if isinstance(value := getattr(self, each.name), list):
                object.__setattr__(self, each.name, tuple(value))
        _check_types(self)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values, without those that are None."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if value is not None
        }


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class CertificateSettings(Settings):
    """`shapes`: "full" for every combination of sizes, None for a small set."""

    shapes: str | None = None


@dataclass(frozen=True)
class LearningSettings(Settings):
    """The most updates, and the evaluations on held-out sequences between them."""

    updates: int
    evaluate_every: int = 100
    evaluate_sequences: int = 2000


@dataclass(frozen=True)
class GradientsSettings(Settings):
    """`follows`: the id of the learning trial that trained the network, if any did."""

    follows: str | None = None


@dataclass(frozen=True)
class PhasesSettings(Settings):
    """The phases that are measured."""

    phases: tuple[str, ...] = ("forward", "loss_and_gradients", "train_step")


@dataclass(frozen=True)
class SpeedSettings(PhasesSettings):
    """How long a session measures; see `harness.suite.SpeedSection`."""

    rounds: int = 12
    readings: int = 4
    target: float = 0.02
    time_budget_s: float = 40.0


SETTINGS_OF: Mapping[str, type[Settings]] = {
    "parity": CertificateSettings,
    "learning": LearningSettings,
    "gradients": GradientsSettings,
    "speed": SpeedSettings,
    "memory": PhasesSettings,
}
"""The settings class of each measure."""


# --- what `Trial.key` may ignore: names of fields and of settings ---------------

SEEDS = ("seed", "data_seed")
"""The fields that draw the initial values and the training data."""

SESSION = ("session",)
"""The field that says which trials are timed together."""

SETTINGS = tuple({f.name: f for k in SETTINGS_OF.values() for f in fields(k)})
"""All settings of all measures."""

QUESTION = ("measure", *SESSION, *SETTINGS)
"""The fields that say what is measured; the others say which network it is."""

FOLLOWS = ("follows",)
"""The learning trial whose weights a gradients trial uses."""

HOW_LONG = tuple(each.name for each in fields(SpeedSettings))
"""The settings that say which phases are timed, and for how long."""

HOW_TIMED = (*SEEDS, *SESSION, *HOW_LONG)
"""What may differ between two timings of the same call."""

START = ("init", "optimizer")
"""Initial values and constants: the time of an update does not depend on them."""

IMPLEMENTATION = ("implementation",)

WHO_COMPUTES = (*IMPLEMENTATION, "device")
"""An implementation, and the device it runs on."""

ARITHMETIC = ("dtype", "precision")

HOW_COMPUTED = (*WHO_COMPUTES, *ARITHMETIC)
"""Who computes a network, where, and how exactly."""

SAME_NETWORK = (*QUESTION, *SEEDS, *HOW_COMPUTED)
"""What may differ between trials that train one network."""

SAME_UPDATE = (*QUESTION, *SEEDS, *START, *WHO_COMPUTES)
"""What may differ between a learning trial and the timing of its update."""

THREADS_AND_ARITHMETIC = ("threads", *ARITHMETIC)
"""The fields of a timing's budget, without its device."""


@dataclass(frozen=True)
class Trial:
    """One measure of one (implementation, cell, task, sizes, device, precision, seed).

    Attributes:
        session: Speed trials of one session are measured taking turns.
        task: The task, or None if the input is random: certificates, speed by shape.
        readout: Of a network without a task, the time steps at which it answers.
        seed: Draws the initial values; `data_seed` draws the training data.
        settings: The settings of the measure.
    """

    measure: str
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
    readout: Literal["every", "last"] = "last"
    seed: int | None = None
    data_seed: int | None = None
    init: str = "canonical"
    optimizer: Optimizer = field(default_factory=Optimizer)
    settings: Settings = Settings()

    def __post_init__(self) -> None:
        """Give a measure whose settings are all optional its settings."""
        if type(self.settings) is Settings and self.measure in SETTINGS_OF:
            with contextlib.suppress(TypeError):  # learning has no default
                object.__setattr__(self, "settings", SETTINGS_OF[self.measure]())

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON values."""
        # A long study calls this often; a deep copy would take most of the time.
        return {
            **{name: getattr(self, name) for name in _NAMES},
            "task_options": dict(self.task_options),
            "settings": self.settings.to_json(),
            "optimizer": dict(vars(self.optimizer)),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Trial:
        """Rebuild a trial from `to_json`.

        Raises:
            SettingsError: If a setting is missing, unknown or of another type.
            TypeError, ValueError, KeyError: If another value is.
        """
        measure, given = values["measure"], values["settings"]
        try:
            kind = SETTINGS_OF.get(measure, Settings)
            if unknown := {*given} - {each.name for each in fields(kind)}:
                raise TypeError(f"this version knows no {', '.join(sorted(unknown))}")
            settings = kind(**given)
        except TypeError as error:
            raise SettingsError(f"settings of {measure}: {error}") from error
        optimizer = Optimizer(**values["optimizer"])
        found = cls(**{**values, "optimizer": optimizer, "settings": settings})
        for part in (found, optimizer):
            _check_types(part)
        options = dict(found.task_options).values()
        if {*map(type, options)} - {bool, int, float, str}:
            raise TypeError("a task option is neither a number nor text")
        return found

    def settings_as(self, kind: type[S]) -> S:
        """Return the settings, which must be of a kind.

        Raises:
            TypeError: If they are of another kind.
        """
        if not isinstance(self.settings, kind):
            raise TypeError(f"{self.label} has no {kind.__name__}")
        return self.settings

    @property
    def follows(self) -> str | None:
        """The id of the learning trial whose network a gradients trial uses."""
        found = self.settings
        return found.follows if isinstance(found, GradientsSettings) else None

    def needed(self, name: str) -> int:
        """Return a size, a length or a seed that the measure needs.

        Raises:
            ValueError: If the trial has none.
        """
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"{self.label} has no {name.replace('_', ' ')}")
        return int(value)

    @property
    def words(self) -> tuple[str, ...]:
        """The words that a filter expression may contain."""
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
        """A readable name: measure, cell, implementation, task, init, dtype, seed."""
        parts = [self.measure, self.cell, self.implementation]
        if self.task is not None:
            parts.append(f"{self.task}-{self.length}")
        elif self.time_steps is not None:
            parts.append(f"{self.batch}x{self.time_steps}x{self.hidden_size}")
        usual = ("canonical", "float32", "highest")
        shown = (self.init, self.dtype, self.precision)
        parts += [word for word in shown if word not in usual]
        if self.threads != 1:
            parts.append(f"{self.threads}-threads")
        if self.seed is not None:
            parts.append(f"s{self.seed}")
        return " ".join(parts)

    def key(self, *ignored: Collection[str]) -> str:
        """Return a hash that is the same for trials that differ in ignored names only.

        Args:
            ignored: Names of fields and of settings, such as `SEEDS`.
        """
        names = frozenset[str]().union(*ignored)
        if names not in self._keys:
            given = {n: v for n, v in self._given.items() if n not in names}
            self._keys[names] = _digest(given)
        return self._keys[names]

    @functools.cached_property
    def _given(self) -> dict[str, Any]:
        """The fields and the settings that differ from their defaults, as JSON."""
        given = _without_defaults(self)
        given.pop("settings", None)
        return given | _without_defaults(self.settings)

    @functools.cached_property
    def _keys(self) -> dict[frozenset[str], str]:
        return {}

    def identity(self, sources: Mapping[str, str]) -> str:
        """Name the trial: readable, with a hash of it and of its plugins' sources.

        A field or setting with its default value does not enter the hash, so that one
        that a later version adds changes no id. Defaults must never change.
        """
        digest = _digest({"trial": self._given, "sources": dict(sources)})
        # A file name may have 255 bytes, and temporary names are longer.
        label = re.sub(r"[^A-Za-z0-9.]+", "-", self.label)[:120]
        return f"{label}-{digest[:12]}"


_NAMES = tuple(each.name for each in fields(Trial))

CERTIFIED = ("cell", *WHO_COMPUTES, *THREADS_AND_ARITHMETIC, "biases")
"""The fields that a certificate depends on."""

UNCERTIFIED = (*(name for name in _NAMES if name not in CERTIFIED), *SETTINGS)
"""The fields and settings that a certificate does not depend on."""


@dataclass(frozen=True, order=True)
class Conditions:
    """What must be equal before two timings, or a timing and a peak, are compared.

    Attributes:
        machine: The name of the machine; "" for this one, or if it was not stored.
    """

    machine: str
    device: str
    threads: int
    dtype: str
    precision: str

    @classmethod
    def of(cls, trial: Trial, machine: str = "") -> Conditions:
        """Return the conditions of a trial."""
        return cls(machine, trial.device, trial.threads, trial.dtype, trial.precision)


def _without_defaults(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults."""
    found = {}
    for each in fields(value):
        given, default = getattr(value, each.name), each.default
        if each.default_factory is not MISSING:
            default = each.default_factory()
        if given != default:
            optimizer = isinstance(given, Optimizer)
            found[each.name] = _without_defaults(given) if optimizer else given
    return found


def _digest(value: Any) -> str:
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=dict
    )
    return hashlib.sha256(text.encode()).hexdigest()
