"""Values that two processes exchange: JSON, arrays and the contract's own types."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np

from harness.contract import (
    Array,
    Batch,
    Forward,
    Gradients,
    Inputs,
    LossAndGradients,
    NetworkSpec,
    Optimizer,
    Readout,
    Target,
    Updates,
)
from harness.machine.peak import Peak, Rate
from harness.messages.pipe import Message
from harness.runner.stopwatch import Taken

_TYPES = {
    each.__name__: each
    for each in (
        Batch,
        Forward,
        Gradients,
        Inputs,
        LossAndGradients,
        NetworkSpec,
        Optimizer,
        Peak,
        Rate,
        Readout,
        Taken,
        Target,
        Updates,
    )
}


@dataclasses.dataclass(frozen=True)
class ObjectId:
    """The number of an object that stays in the runner."""

    number: int


def encode(values: Mapping[str, Any]) -> Message:
    """Return values as a message; arrays are taken out of them and numbered.

    Raises:
        TypeError: If a value has a type that cannot be sent.
    """
    arrays: dict[str, Array] = {}
    try:
        return Message({name: _plain(v, arrays) for name, v in values.items()}, arrays)
    except RecursionError:
        raise TypeError("values within values without end") from None


def _plain(value: Any, arrays: dict[str, Array]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        if isinstance(value, Enum):
            return {"type": type(value).__name__, "of": value.value}
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise TypeError(f"an array of dtype {value.dtype}")
        name = str(len(arrays))
        arrays[name] = value
        return {"array": name}
    if isinstance(value, ObjectId):
        return {"number": value.number}
    if isinstance(value, tuple | list):
        return [_plain(item, arrays) for item in value]
    if isinstance(value, Mapping):
        return {"map": [[str(k), _plain(v, arrays)] for k, v in value.items()]}
    if type(value).__name__ in _TYPES:
        fields = dataclasses.fields(value)
        of = {f.name: _plain(getattr(value, f.name), arrays) for f in fields}
        return {"type": type(value).__name__, "of": of}
    raise TypeError(f"a {type(value).__name__}")


def decode(message: Message) -> dict[str, Any]:
    """Return the values of a message; lists become tuples.

    Raises:
        ValueError: If a value has a form that `encode` does not make.
    """
    try:
        return {name: _value(v, message) for name, v in message.values.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a message of a wrong form ({error!r})") from None


def _value(value: Any, message: Message) -> Any:
    if isinstance(value, list):
        return tuple(_value(item, message) for item in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return message.arrays[value["array"]]
    if "number" in value:
        return ObjectId(int(value["number"]))
    if "map" in value:
        return {str(k): _value(v, message) for k, v in value["map"]}
    made: Any = _TYPES[value["type"]]
    if isinstance(value["of"], dict):
        return made(**{name: _value(v, message) for name, v in value["of"].items()})
    return made(value["of"])
