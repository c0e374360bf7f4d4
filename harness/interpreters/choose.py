"""Find the interpreters that a suite and the user's `config.toml` choose.

The suite's choice comes first. A worker in such an interpreter must run the code that
runs here, so both interpreters are asked what they hold, and compared.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from harness.declarations import BUILT_IN, FrameworkDeclaration
from harness.errors import MisuseError, suggestion
from harness.files.paths import absolute_path
from harness.files.text import read_toml
from harness.registry import Interpreter, Registry

DISTRIBUTION = "rnn-harness"
PROBE_S = 60.0
"""How long an interpreter may take to answer, even from a network disk."""

_NEEDS = {"numpy": "numpy", "psutil": "psutil", "pynvml": "nvidia-ml-py"}
"""The modules that every worker imports, and the distribution of each."""


class _UnfitError(Exception):
    """Why an interpreter cannot run the workers of a framework."""


def load_interpreters(
    chosen: Mapping[str, str], registry: Registry
) -> dict[str, Interpreter]:
    """Return the interpreters that a suite and the user's config choose, by framework.

    Args:
        chosen: The paths that the suite chooses, by framework.
        registry: Knows what each framework needs.

    Raises:
        MisuseError: If a path does not exist, is not a Python, or its rnn-harness or
            plugins differ from those here.
    """
    pythons = {n: Path(p) for n, p in {**_of_user(registry), **chosen}.items()}
    if not pythons:
        return {}
    question = json.dumps(_question(registry))
    interpreters, problems = {}, []
    with ThreadPoolExecutor(len(pythons) + 1) as pool:
        # This Python is asked too, started like a worker.
        here = pool.submit(_answer, Path(sys.executable), question)
        found = {n: pool.submit(_answer, p, question) for n, p in pythons.items()}
        for name, python in pythons.items():
            try:
                there = found[name].result()
                _check_same(there, here.result(), python, registry.frameworks[name])
            except _UnfitError as error:
                problems.append(f"environments.{name}: {error}")
                continue
            interpreters[name] = Interpreter(
                python=python,
                version=there["python"],
                prefix=there["prefix"],
                **there["frameworks"][name],
            )
    if problems:
        raise MisuseError(*problems)
    return interpreters


# --- what is chosen ------------------------------------------------------------------


def resolved(
    table: Mapping[str, Any], folder: Path, known: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return an `[environments]` table with absolute paths, and what is wrong in it.

    Args:
        table: The paths by framework, which may hold `~` and `$VARIABLES`.
        folder: The folder that paths are relative to.
        known: The declared frameworks.
    """
    paths, problems, known = {}, [], tuple(known)
    for name, text in table.items():
        if name not in known:
            hint = suggestion(name, known)
            problems.append(f"environments: unknown framework '{name}'{hint}")
        if not isinstance(text, str) or not text:
            problems.append(f"environments.{name}: give the path of a Python")
            continue
        path = os.path.expandvars(text)
        if unset := re.search(r"\$\{?(\w+)", path):
            problems.append(f"environments.{name}: {text}: ${unset[1]} is not set")
        try:
            # Links are not resolved: a virtual environment is found by its own link.
            paths[name] = str(absolute_path(folder / Path(path).expanduser()))
        except RuntimeError:
            problems.append(f"environments.{name}: {text}: there is no such user")
    return paths, problems


def user_config() -> Path:
    """Return the path of the user's config file, which may not exist."""
    # A relative path would be that of a file in whatever folder one works in.
    home = _absolute("HOME") or Path("/")  # it may not be set in a container
    base = _absolute("XDG_CONFIG_HOME") or home / ".config"
    return base / DISTRIBUTION / "config.toml"


def _absolute(variable: str) -> Path | None:
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else None


def _of_user(registry: Registry) -> dict[str, str]:
    file = user_config()
    try:
        raw = read_toml(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise MisuseError(f"{file} cannot be read as TOML: {error}") from error
    problems = [
        f"{key}: unknown key{suggestion(key, ['environments'])}"
        for key in raw
        if key != "environments"
    ]
    table = raw.get("environments", {})
    if not isinstance(table, dict):
        problems, table = [*problems, "environments: write [environments]"], {}
    # An unknown name may belong to a plugin that this command does not read. If it is
    # similar to a known name, it is a mistake.
    known = registry.frameworks
    table = {n: p for n, p in table.items() if get_close_matches(n, known, 1, 0.75)}
    paths, wrong = resolved(table, file.parent, known)
    problems += wrong
    if problems:
        raise MisuseError(*(f"{file}: {problem}" for problem in problems))
    return paths


# --- what is there -------------------------------------------------------------------


def _question(registry: Registry) -> dict[str, Any]:
    """Return the question for a Python, in the form that `interpreters.probe` reads."""
    origins = {d.origin for d in registry.declarations if d.file is None}
    return {
        "needs": list(_NEEDS),
        "distributions": [DISTRIBUTION, *sorted(origins - {BUILT_IN})],
        "frameworks": {
            name: {"modules": f.modules, "distributions": f.distributions}
            for name, f in registry.frameworks.items()
        },
    }


def _answer(python: Path, question: str) -> dict[str, Any]:
    """Return what an interpreter holds; nothing if rnn-harness is not installed there.

    Raises:
        _UnfitError: If it does not answer.
    """
    try:
        if python.is_dir():
            inside = f"give the Python in it, as {python}/bin/python"
            raise _UnfitError(f"{python} is a folder; {inside}")
        if not python.exists():
            raise _UnfitError(f"{python} does not exist; give the path of a Python")
        code, out, err = _run(
            [str(python), "-P", "-m", "harness.interpreters.probe", question]
        )
    except subprocess.TimeoutExpired:
        raise _UnfitError(
            f"{python} did not answer within {PROBE_S:g} s; see what it waits for with "
            f"{shlex.quote(str(python))} -c 'import harness'"
        ) from None
    except OSError as error:
        raise _UnfitError(
            f"{python} cannot be started: {error.strerror}; give the path of a Python"
        ) from None
    if code != 0 and re.search(r"No module named '?harness\b", err):
        return {}
    said = [line for line in (err if code else out).splitlines() if line.strip()]
    last = said[-1].strip() if said else f"exit code {code} and no word"
    try:
        answer = json.loads(last)
    except ValueError:
        answer = None
    if code != 0 or not isinstance(answer, dict):
        raise _UnfitError(
            f"{python} is not a working Python 3.11 or later: {last[:200]}; give the "
            "path of one"
        )
    return answer


def _run(command: Sequence[str]) -> tuple[int, str, str]:
    """Return exit code, output and errors; kill all it started after `PROBE_S`."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=PROBE_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, out, err


# --- whether it is fit --------------------------------------------------------------


def _check_same(
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    python: Path,
    framework: FrameworkDeclaration,
) -> None:
    """Check that an interpreter holds the same code as this one.

    Raises:
        _UnfitError: If it does not; the message says which command helps.
    """
    pip = f"{shlex.quote(str(python))} -m pip install"
    this = _this_project(framework.extra)
    distributions = there.get("distributions", {})
    for name, version in here["distributions"].items():
        found = distributions.get(name)
        if found != version:
            target = this if name == DISTRIBUTION else f"{name}=={version}"
            has = f"no {name}" if found is None else f"{name} {found}"
            raise _UnfitError(
                f"{python} has {has}, here is {version}; run: {pip} {target}"
            )
    if there["sources"] != here["sources"]:
        raise _UnfitError(
            f"{python} has other sources of {DISTRIBUTION} than are here; run: {pip} "
            f"--force-reinstall --no-deps {this}"
        )
    missing = there["missing"]
    if missing is not None:
        raise _UnfitError(f"{python} has no {missing}; run: {pip} {_NEEDS[missing]}")


def _this_project(extra: str | None) -> str:
    """Return the argument of `pip install` for this project as installed here."""
    extras = f"[{extra}]" if extra else ""
    own = importlib.metadata.distribution(DISTRIBUTION)
    origin = json.loads(own.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        folder = unquote(urlsplit(origin["url"]).path)
        return f"-e {shlex.quote(folder + extras)}"
    where = f" @ {origin['url']}" if origin else f"=={own.version}"
    return shlex.quote(f"{DISTRIBUTION}{extras}{where}")
