"""The entry points with which installed distributions declare plugins.

Every process of a run asks for those of this project. `importlib.metadata.entry_points`
would read every installed distribution for each group, and each entry's
`dist.name` all that its distribution says about itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import (
    EntryPoint,
    PackageNotFoundError,
    distribution,
    distributions,
)

OWN = "rnn-harness"
"""The distribution of this project."""

KINDS = ("framework", "cell", "task", "implementation")
"""The kinds of plugins, in the order of being read."""

_GROUPS = tuple(f"rnn_harness.{kind}s" for kind in KINDS)


def declaring() -> dict[str, list[EntryPoint]]:
    """Return the entry points of each distribution that declares plugins, by name."""
    names = (d.name for d in distributions() if _of_groups(d.entry_points))
    # Asked for by name again: the first of a name on Python's path hides the others.
    found = {name: entry_points_of(name) for name in dict.fromkeys(names) if name}
    return {name: entries for name, entries in found.items() if entries}


def entry_points_of(name: str) -> list[EntryPoint]:
    """Return the entry points with which one distribution declares plugins."""
    try:
        return _of_groups(distribution(name).entry_points)
    except PackageNotFoundError:
        return []


def _of_groups(entries: Iterable[EntryPoint]) -> list[EntryPoint]:
    found = [entry for entry in entries if entry.group in _GROUPS]
    return sorted(found, key=lambda entry: _GROUPS.index(entry.group))
