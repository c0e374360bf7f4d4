"""The program that reads one plugin's declarations; `read_apart` starts it.

Its arguments are the plugin, as `read_apart` names it, and the number of a descriptor
on which the declarations go. The plugin runs in a child, and this process ends
everything that the child has started.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from harness.declared import OF_DISTRIBUTION, found_by, to_text
from harness.machine.orphans import adopt_orphans, end_children
from harness.registry import Registry, read_entry_points


def main() -> None:
    """Read a plugin in a child, and end as the child does."""
    plugin, target = sys.argv[1], int(sys.argv[2])
    adopt_orphans()
    if reader := os.fork():
        os.close(target)
        _, status = os.waitpid(reader, 0)
        end_children()
        if os.WIFSIGNALED(status):
            os.kill(os.getpid(), os.WTERMSIG(status))
        os._exit(os.waitstatus_to_exitcode(status))
    os.set_inheritable(target, False)
    _write_declarations(plugin, target)
    os._exit(0)  # a thread of the plugin must not keep this process alive


def _write_declarations(plugin: str, target: int) -> None:
    if plugin.startswith(OF_DISTRIBUTION):
        found = read_entry_points(plugin.removeprefix(OF_DISTRIBUTION))
    else:
        found = [found_by(partial(Registry.given("[]").read_file, Path(plugin)))]
    with os.fdopen(target, "w") as stream:
        stream.write(to_text(found) + "\n")


if __name__ == "__main__":
    main()
