"""Check out another commit of a repository, so that Python imports its modules."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, MisuseError, suggestion
from harness.files.paths import real_path
from harness.run.signals import handled


@dataclass(frozen=True)
class Checkout:
    """A commit of a repository in a folder of its own.

    Attributes:
        root: The top folder of the working tree.
        tree: The top folder of the checkout.
        commit: The full hash.
    """

    root: Path
    tree: Path
    commit: str

    def counterpart(self, file: Path) -> Path:
        """Return the path of a file in this checkout, or of a file outside itself."""
        file = real_path(file)
        if not file.is_relative_to(self.root):
            return file
        return self.tree / file.relative_to(self.root)


@contextlib.contextmanager
def checked_out(reference: str) -> Iterator[Checkout]:
    """Check a commit out beside the working tree of the current folder.

    The checkout is removed at the end, unless this process is killed.

    Raises:
        MisuseError: If the current folder is not in a repository, or there is no such
            commit.
    """
    root = _root()
    commit = _commit(root, reference)
    folder = Path(tempfile.mkdtemp(prefix="rnn-harness-gate-")).resolve()
    tree = folder / "tree"
    try:
        done = _git(root, "worktree", "add", "--detach", str(tree), commit)
        if done.returncode:
            raise HarnessError(
                f"git cannot check {reference} out: {done.stderr.strip()}"
            )
        yield Checkout(root, tree, commit)
    finally:
        # A user may press Ctrl-C twice, and this must not be interrupted.
        with handled(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM):
            _git(root, "worktree", "remove", "--force", str(tree))
            shutil.rmtree(folder, ignore_errors=True)


def overlay(folder: Path, checkout: Checkout | None) -> Path:
    """Make a folder that begins Python's path, so that a checkout is imported.

    Python then finds the top-level modules of the working tree in the checkout: those
    of this distribution if it runs from the working tree, and those that a plugin file
    imports from its own repository. `harness` is always this one, because it measures.

    Args:
        folder: The folder to make.
        checkout: The checkout, or None to import the working tree.
    """
    folder.mkdir()
    (folder / "harness").symlink_to(_HARNESS)
    for module in counterparts(checkout) if checkout else ():
        (folder / module.name).symlink_to(module)
    return folder


def counterparts(checkout: Checkout) -> list[Path]:
    """Return the modules of a checkout that Python finds in the working tree.

    `harness` is left out, because it measures.
    """
    found = [checkout.counterpart(module) for module in _own_modules(checkout.root)]
    return [there for there in found if there.name != "harness" and there.exists()]


_HARNESS = Path(__file__).resolve().parents[1]


def _own_modules(root: Path) -> list[Path]:
    """Return the packages and modules below a folder that an import would find."""
    folders = {
        root,
        root / "src",
        *(Path(entry or ".").resolve() for entry in sys.path),
    }
    found = []
    for folder in sorted(f for f in folders if f.is_relative_to(root) and f.is_dir()):
        for path in sorted(folder.iterdir()):
            package = (path / "__init__.py").is_file()
            if (package or path.suffix == ".py") and _is_found(path.stem, path):
                found.append(path)
    return found


def _is_found(name: str, path: Path) -> bool:
    if not name.isidentifier():
        return False
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    origin = spec.origin if spec is not None else None
    return origin is not None and Path(origin).resolve() in (
        path.resolve(),
        path.resolve() / "__init__.py",
    )


def _root() -> Path:
    done = _git(Path(), "rev-parse", "--show-toplevel")
    if done.returncode:
        here = real_path(Path())
        raise MisuseError(
            f"{here} is not in a git repository; gate compares the working "
            "tree of the current folder with a commit of it, so run it inside one"
        )
    root = Path(done.stdout.strip()).resolve()
    is_this = (root / "harness" / "contract.py").exists()
    if is_this and root / "harness" != _HARNESS:
        raise MisuseError(
            f"rnn-harness is installed from {_HARNESS.parent}, not from {root}; run "
            f"`pip install -e {root}` first, so that the working tree is what is timed"
        )
    return root


def _commit(root: Path, reference: str) -> str:
    asked = f"{reference}^{{commit}}"
    arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", asked)
    done = _git(root, *arguments)
    if reference and not done.returncode:
        return done.stdout.strip()
    listed = _git(root, "for-each-ref", "--format=%(refname:short)")
    names = listed.stdout.split()
    hint = suggestion(reference, names) if names else "; it has no commit yet"
    raise MisuseError(
        f"--base {reference}: no commit of the repository {root}{hint}"
        + ("" if hint.endswith("?") else "; a branch, a tag or a hash is one")
    )


_OF_ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
"""Variables that a git hook sets, which may name another repository."""


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if k not in _OF_ANOTHER}
    # Hooks of the repository must not run in a checkout that is removed again, nor
    # the program that its configuration may name to watch it.
    settings = (f"core.hooksPath={os.devnull}", "core.fsmonitor=false")
    options = [word for setting in settings for word in ("-c", setting)]
    command = ["git", "-C", str(folder), *options]
    try:
        return subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            env=variables,
            start_new_session=True,  # Ctrl-C is for this process, which cleans up
        )
    except FileNotFoundError as error:
        raise MisuseError(
            "there is no `git` on the path; gate needs it to check out the base"
        ) from error
