"""Apply `--set KEY=VALUE` to the table of a suite, before the suite is checked."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import MisuseError, shortened
from harness.files.text import parse_toml
from harness.interpreters.choose import resolved

_MOST_PARTS = 8
"""The most names of a key; no key of a suite has as many."""


def sections_of(raw: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the sections of a kind that a suite has."""
    sections = raw.get(name, [])
    if not isinstance(sections, list):
        return []
    return [section for section in sections if isinstance(section, dict)]


def apply_setting(raw: dict[str, Any], setting: str) -> None:
    """Apply `learning.updates=500` to every section, `learning.0.…` to one.

    Raises:
        MisuseError: If it has another form, or names a section that is not there.
    """
    shown = f"--set {shortened(setting)}"
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise MisuseError(f"{shown}: give KEY=VALUE, e.g. learning.updates=500")
    if len(parts) > _MOST_PARTS:
        raise MisuseError(
            f"{shown}: the key has {len(parts)} parts; one has at most {_MOST_PARTS}, "
            "e.g. learning.0.task_options.symbols"
        )
    value = _value(text, shown)
    if len(parts) == 1:
        raw[parts[0]] = value
        return
    name, rest = parts[0], parts[1:]
    if name == "environments":
        _choose_interpreter(raw, ".".join(rest), value)
        return
    sections = sections_of(raw, name)
    if not sections:
        raise MisuseError(f"{shown}: the suite has no [[{shortened(name)}]] section")
    if re.fullmatch("[0-9]+", rest[0]):
        number, rest = rest[0], rest[1:]
        # A number of many digits is no number for `int`.
        if number not in map(str, range(len(sections))) or not rest:
            raise MisuseError(
                f"{shown}: [[{name}]] has sections 0 to {len(sections) - 1}; give "
                f"{name}.0.KEY=VALUE"
            )
        sections = [sections[int(number)]]
    _set(sections, rest, value, shown)


def _set(
    sections: Sequence[dict[str, Any]], rest: Sequence[str], value: Any, shown: str
) -> None:
    for section in sections:
        table: dict[str, Any] = section
        for part in rest[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise MisuseError(f"{shown}: '{shortened(part)}' holds no keys")
        table[rest[-1]] = value


def _choose_interpreter(raw: dict[str, Any], framework: str, python: Any) -> None:
    """Choose an interpreter; its path is relative to the current folder."""
    table = raw.setdefault("environments", {})
    if isinstance(table, dict):
        found = resolved({framework: python}, Path(), [framework])[0]
        table[framework] = found.get(framework, python)


def _value(text: str, shown: str) -> Any:
    """Read a TOML value; any other text is a string.

    Raises:
        MisuseError: If it is TOML that no setting needs: too long, deep or large.
    """
    try:
        found = parse_toml(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except ValueError as error:
        raise MisuseError(f"{shown}: {error}") from error
    # A text of several lines may hold other keys.
    return found["value"] if [*found] == ["value"] else text
