"""Find out what an interpreter has installed, without importing any of it.

Run as `python -m harness.interpreters.probe QUESTION`.

The argument and the answer, the last line printed, are JSON documents:

- asked: `needs`, modules; `distributions`; `frameworks`, each with its `modules` and
  `distributions`;
- answered: the versions of Python and of `distributions`, a hash of this project's
  `sources`, what of `needs` is `missing`, and for each framework its `versions` and
  the first of its modules that is `missing`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.machine.facts import framework_versions, installed_versions
from harness.registry import first_missing

PACKAGES = ("harness", "implementations", "tasks")
"""The packages that compute a trial's numbers, beside a framework and plugins."""


def probe(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a question."""
    return {
        "python": platform.python_version(),
        "prefix": sys.prefix,
        "distributions": installed_versions(asked["distributions"]),
        "sources": hash_of_sources(),
        "missing": first_missing(asked["needs"]),
        "frameworks": {
            name: {
                "versions": framework_versions(name, framework["distributions"]),
                "missing": first_missing(framework["modules"]),
            }
            for name, framework in asked["frameworks"].items()
        },
    }


def hash_of_sources() -> str:
    """Return a hash of the modules of this project that this Python would import."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        paths = spec.submodule_search_locations if spec is not None else None
        for folder in map(Path, paths or ()):
            for file in sorted(folder.rglob("*.py")):
                name = f"{package}/{file.relative_to(folder).as_posix()}"
                digest.update(os.fsencode(name) + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps(probe(json.loads(sys.argv[1]))))
