"""Find the files that a plugin's modules name, such as its settings; run nothing.

A file counts if a text in a module is its path, from the folder of the module or of
the plugin: `open(HERE / "settings.json")`. What a text leaves open stands for anything:
`f"{cell}.npz"`. A text that names a folder stands for all that is in it.
"""

from __future__ import annotations

import ast
import glob
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.declared_files import files_in_tree

MOST_FILES = 1000
MOST_BYTES = 256 * 2**20
"""How many files that modules name are hashed, and how many bytes of them.

Files that a declaration names are hashed whole.
"""

_MOST_LETTERS = 255
_OPEN = re.compile(r"\{[^{}]*\}|%[-+.0-9]*[a-z]|\*+")
_ENDING = re.compile(r"\.[A-Za-z]\w*")
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_OF_C = {".c", ".cc", ".cpp", ".cu", ".cuh", ".cxx", ".h", ".hip", ".hpp", ".inc"}


@dataclass
class NamedFiles:
    """The files that a plugin names.

    Attributes:
        root: The plugin's folder.
        declared: The files that its declaration names.
        folders: Whether a text in a module may name a folder.
        found: The files that its modules name.
        left_out: What is not hashed, and why, for a user to read.
    """

    root: Path
    declared: frozenset[Path]
    folders: bool
    found: dict[Path, None] = field(default_factory=dict)
    left_out: dict[str, None] = field(default_factory=dict)

    def find(self, module: Path, texts: Iterable[str]) -> list[Path]:
        """Add the files that texts in a module name; return the new ones."""
        before = len(self.found)
        for text in sorted(texts):
            for folder in dict.fromkeys((module.parent, self.root)):
                for path in _named(folder, text):
                    self._add(path, folder)
            if _ENDING.fullmatch(text) and text != module.suffix:
                self._add(module.with_suffix(text), module.parent)
        return list(self.found)[before:]

    def _add(self, path: Path, folder: Path) -> None:
        path = Path(os.path.normpath(path))
        if path == folder or not any(map(path.is_relative_to, (folder, self.root))):
            return
        if path.is_dir():
            for file in files_in_tree(path) if self.folders else ():
                if not self._add_file(file, folder):
                    return
        elif os.path.lexists(path):
            self._add_file(path, folder)

    def _add_file(self, file: Path, folder: Path) -> bool:
        """Add a file and what it includes; return whether there is room for more."""
        if file in self.found or file in self.declared or file.suffix == ".pyc":
            return True
        if len(self.found) >= MOST_FILES:
            self.left_out[f"more than {MOST_FILES} files that it names"] = None
            return False
        self.found[file] = None
        if file.suffix in _OF_C and file.is_file() and _size(file) < MOST_BYTES:
            for name in _INCLUDE.findall(file.read_bytes()):
                self._add(file.parent / os.fsdecode(name), folder)
        return True

    def hashes(self) -> list[tuple[str, str]]:
        """Return each file's path from the plugin's folder, and a hash of it."""
        left = MOST_BYTES
        hashes = []
        for file in sorted({*self.found, *self.declared}):
            name = os.path.relpath(file, self.root)
            if file in self.found:
                left -= _size(file)
            try:
                hashes.append((name, self._hash(file, name, whole=left >= 0)))
            except OSError as error:
                self._leave_out(name, str(error.strerror))
                hashes.append((name, "unreadable"))
        return sorted(hashes)

    def _hash(self, file: Path, name: str, *, whole: bool) -> str:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            self._leave_out(name, "not a regular file")
            return "not a file"
        if not whole:
            bound = f"beyond {MOST_BYTES // 2**20} MiB in all"
            self._leave_out(name, f"{bound}; declare it in files")
            return f"{found.st_size} {found.st_mtime_ns}"
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _leave_out(self, name: str, why: str) -> None:
        self.left_out[f"{name if name.isprintable() else ascii(name)} ({why})"] = None


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _named(folder: Path, text: str) -> Iterator[Path]:
    """Yield the paths in a folder that a text may name."""
    if not 0 < len(text) <= _MOST_LETTERS or not text.isprintable():
        return
    if _OPEN.search(text):
        pattern = _OPEN.sub("*", glob.escape(text).replace("[*]", "*"))
        if _ENDING.fullmatch(Path(pattern).suffix):  # not "*" or "*: *"
            yield from folder.glob(pattern.lstrip("/"))
            if pattern.startswith("*/"):  # as in "{}/settings.json".format(HERE)
                yield from folder.glob(pattern.lstrip("*/") or "*")
        return
    # Nearly every text names nothing, and to ask so costs less than to make a path. A
    # text that begins with / may follow a folder, as in HERE + "/settings.json".
    for name in dict.fromkeys((text, text.lstrip("/"))):
        if os.path.lexists(os.path.normpath(os.path.join(folder, name))):  # noqa: PTH118
            yield folder / name


def texts_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the texts in a module, with * for what is known only when it runs."""
    for node in nodes:
        try:
            text = _text(node)
        except RecursionError:  # a sum of a thousand parts; each part is a text too
            continue
        if text is not None:
            yield text


IMPORTS = ("import_module", "__import__")
"""The functions that import the module that a text names."""


def called_name(call: ast.Call) -> str | None:
    """Return the name of the function that is called, without what holds it."""
    return getattr(call.func, "attr", None) or getattr(call.func, "id", None)


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        return value if isinstance(value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) or "*" for value in node.values)
    if isinstance(node, ast.Call):  # os.path.join(HERE, "weights", "gru.npz")
        parts = [part for part in map(_text, node.args) if part is not None]
        called = called_name(node)
        if called == "rglob" and parts:
            return f"**/{parts[0]}"
        if called in IMPORTS and parts and "*" in parts[0]:  # f"kernel_{cell}"
            known = parts[0].strip("*.")
            return f"{parts[0].lstrip('.').replace('.', '/')}.py" if known else None
        return "/".join(parts) if len(parts) > 1 else None
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add | ast.Div):
        return None
    left, right = _text(node.left), _text(node.right)
    if left is None and right is None:
        return None
    if isinstance(node.op, ast.Add):
        return f"{left or '*'}{right or '*'}"
    return "/".join(part for part in (left, right) if part is not None)
