"""The hash of a plugin changes with each file that its numbers may come from."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.declarations import Declaration, declare_task
from harness.errors import PluginError
from harness.registry import Registry
from harness.run.plan import fingerprint, named_files
from harness.run.plan.certificate_cache import CertificateCache
from harness.run.plan.fingerprint import (
    forget_files,
    left_out,
    not_compared,
    source_hash,
)
from harness.run.plan.todo import planned
from harness.store import RunFolder
from harness.trial import Trial

HEAD = """
from pathlib import Path
from harness import declare_task

HERE = Path(__file__).parent
"""


@pytest.fixture(autouse=True)
def own_modules() -> Iterator[None]:
    """Restore what Python has loaded."""
    before = dict(sys.modules)
    yield
    for name in {*sys.modules} - {*before}:
        del sys.modules[name]


def write(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def plugin(folder: Path, body: str, files: str = "()", name: str = "mine") -> Path:
    """Write a plugin file whose function `make` has a body."""
    declared = f'declare_task("{name}", factory="plug:make", files={files})\n'
    function = "def make():\n" + "".join(f"    {x}\n" for x in body.splitlines())
    return write(folder / "plug.py", f"{HEAD}{declared}\n{function}    return HERE\n")


def read(file: Path) -> Declaration:
    """Return what a file declares; it runs in this process, which is faster."""
    (declared,) = Registry.given("[]").read_file(file)
    return declared


def hash_of(file: Path) -> str:
    forget_files()
    return source_hash(read(file))


def not_hashed(file: Path) -> tuple[str, ...]:
    return left_out(read(file))


# --- modules --------------------------------------------------------------------------

IMPORTS = [
    "import core",
    "from core import VALUE",
    "from .core import VALUE",
    "from . import core",
    "import importlib; importlib.import_module('core')",
    "import between",
    "from parts import deep",
    "import parts.deep",
    "exec((HERE / 'core.py').read_text())",
    "import runpy; runpy.run_path(str(HERE / 'by_path.py'))",
    "import sys; sys.path.insert(0, str(HERE / 'lib')); import helper",
]


@pytest.mark.parametrize("body", IMPORTS)
def test_of_two_plugins_each_has_the_hash_of_its_own_neighbours(
    tmp_path: Path, body: str
) -> None:
    files = []
    for name in ("old", "new"):
        folder = tmp_path / name
        files.append(plugin(folder, body, name=name))
        write(folder / "core.py", "VALUE = 1\n")
        write(folder / "between.py", "from core import VALUE\n")
        write(folder / "by_path.py", "import between\n")
        write(folder / "parts" / "__init__.py", "raise OSError('is not run')\n")
        write(folder / "parts" / "deep.py", "from . import inner\n")
        write(folder / "parts" / "inner.py", "import core\n")
        write(folder / "lib" / "helper.py", "VALUE = 1\n")

    def hashes() -> list[str]:
        forget_files()
        return [source_hash(read(file)) for file in files]

    for file in files:  # which then have the same text
        text = file.read_text()
        write(file, text.replace('"old"', "HERE.name").replace('"new"', "HERE.name"))
    before = hashes()
    assert before[0] == before[1]
    changed = "lib/helper.py" if "helper" in body else "core.py"
    write(tmp_path / "new" / changed, "VALUE = 2\n")
    new = hashes()
    assert new[0] == before[0] != new[1]
    write(tmp_path / "old" / changed, "VALUE = 2\n")
    assert hashes() == [new[1], new[1]]
    write(tmp_path / "old" / "unused.py", "VALUE = 3\n")
    assert hashes() == [new[1], new[1]]


def test_a_module_of_a_neighbour_belongs_to_a_layer_that_is_in_it(
    tmp_path: Path,
) -> None:
    """And the plugin file, which runs before."""
    text = f"{HEAD}declare_task('mine', factory='core:make')\n"
    file = write(tmp_path / "plug.py", text)
    write(tmp_path / "core.py", "from helper import make\n")
    write(tmp_path / "helper.py", "def make(): 1\n")
    hashes = [hash_of(file)]
    for changed in ("plug.py", "core.py", "helper.py"):
        write(tmp_path / changed, (tmp_path / changed).read_text() + "# more\n")
        hashes.append(hash_of(file))
    assert len({*hashes}) == 4


def test_a_compiled_neighbour_is_hashed(tmp_path: Path) -> None:
    from importlib.machinery import EXTENSION_SUFFIXES

    file = plugin(tmp_path, "import fast")
    library = write(tmp_path / f"fast{EXTENSION_SUFFIXES[0]}", b"\x7fELF 1")
    before = hash_of(file)
    write(library, b"\x7fELF 2")
    assert hash_of(file) != before


def test_a_neighbour_has_one_hash_wherever_pythons_path_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "core.py", "import helper\n")
    write(tmp_path / "helper.py", "")
    file = plugin(tmp_path, "import core")
    before = hash_of(file)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert hash_of(file) == before
    write(tmp_path / "elsewhere" / "core.py", "VALUE = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    assert hash_of(file) == before


# --- other files ----------------------------------------------------------------------

NAMES = {
    "settings.json": [
        "open('settings.json')",
        "open(HERE / 'settings.json')",
        "Path(__file__).with_name('settings.json')",
        "import os; os.path.join(os.path.dirname(__file__), 'settings.json')",
        "open(str(HERE) + '/settings.json')",
        "open(f'{HERE}/settings.json')",
        "open('settings' + '.json')",
        "open('{}/settings.json'.format(HERE))",
        "open('%s/settings.json' % HERE)",
        "open(bytes(HERE) + b'/settings.json')",
        "next(HERE.rglob('set*.json'))",
        "name = 'settings'; open(f'{name}.json')",
        "name = 'settings'; open(name + '.json')",
        "name = 'settings'; open('%s.json' % name)",
        "name = 'settings'; open('{}.json'.format(name))",
        "sorted(HERE.glob('*.json'))",
        "open('./parts/../settings.json')",
        "import between",
        "from parts import inner",
    ],
    "plug.toml": ["Path(__file__).with_suffix('.toml')"],
    "weights/gru.npz": [
        "open(HERE / 'weights' / 'gru.npz')",
        "open(HERE / 'weights/gru.npz')",
        "cell = 'gru'; open(HERE / 'weights' / f'{cell}.npz')",
        "import os; os.path.join(HERE, 'weights', 'gru.npz')",
        "HERE.joinpath('weights', 'gru.npz')",
        "folder = HERE / 'weights'; sorted(folder.iterdir())",
        "sorted(HERE.rglob('*.npz'))",
    ],
    "kernel_gru.py": [
        "import importlib; cell = 'gru'; importlib.import_module(f'kernel_{cell}')",
        "cell = 'gru'; __import__('kernel_' + cell)",
    ],
    "parts/outer.py": [
        "import importlib; n = 'outer'; importlib.import_module(f'parts.{n}')",
    ],
    "kernel.cu": ["load = print; load(name='k', sources=['kernel.cu'])"],
    "include/common.cuh": ["load = print; load(name='k', sources=['kernel.cu'])"],
    "libfast.so": ["import ctypes; ctypes.CDLL(str(HERE / 'libfast.so'))"],
}


@pytest.mark.parametrize(
    ("changed", "body"), [(name, body) for name in NAMES for body in NAMES[name]]
)
def test_a_hash_changes_with_a_file_that_the_plugin_names(
    tmp_path: Path, changed: str, body: str
) -> None:
    file = plugin(tmp_path, body)
    for name in NAMES:
        write(tmp_path / name, "1")
    write(tmp_path / "kernel.cu", '#include "include/common.cuh"\n')
    write(tmp_path / "between.py", "NAME = 'settings.json'\n")
    write(tmp_path / "parts" / "__init__.py", "")
    write(tmp_path / "parts" / "inner.py", "NAME = '../settings.json'\n")
    before = hash_of(file)
    write(tmp_path / "results.csv", "1")
    assert hash_of(file) == before
    write(tmp_path / changed, (tmp_path / changed).read_text() + "2")
    assert hash_of(file) != before
    assert not_hashed(file) == ()


def test_a_hash_changes_if_a_named_file_appears_and_not_if_the_folder_moves(
    tmp_path: Path,
) -> None:
    file = plugin(tmp_path / "a", "open(HERE / 'settings.json')")
    without = hash_of(file)
    write(tmp_path / "a" / "settings.json", "1")
    with_it = hash_of(file)
    assert with_it != without
    (tmp_path / "a").rename(tmp_path / "b")
    assert hash_of(tmp_path / "b" / "plug.py") == with_it


def test_a_link_is_followed_to_its_file(tmp_path: Path) -> None:
    file = plugin(tmp_path / "a", "open(HERE / 'settings.json'), HERE / 'data'")
    target = write(tmp_path / "elsewhere" / "settings.json", "1")
    (tmp_path / "a" / "settings.json").symlink_to(target)
    (tmp_path / "a" / "data").mkdir()
    (tmp_path / "a" / "data" / "round").symlink_to(tmp_path / "a" / "data")
    before = hash_of(file)
    write(target, "2")
    assert hash_of(file) != before


@pytest.mark.parametrize(
    "body",
    [
        "f'{1}.{2}', f'{1}', '*', '**', '%s', '{}', '{}.{}'",
        "'', '.', '..', '/', './', '../', '\\x00', 'a\\nb.json'",
        "'x' * 10**6, " + repr("y" * 3000),
        "'../other.json', '/etc/hostname'",
        "'[', '[*', '?', '**/**', '~', '[!a].json'",
        "'\\ud800.json', '\\ud800'",
    ],
)
def test_texts_that_name_nothing_in_the_folder_change_no_hash(
    tmp_path: Path, body: str
) -> None:
    file = plugin(tmp_path / "a", body)
    before = hash_of(file)
    write(tmp_path / "a" / "results.csv", "1")
    write(tmp_path / "other.json", "1")
    assert hash_of(file) == before
    assert not_hashed(file) == ()


def test_a_sum_of_thousands_of_texts_is_read(tmp_path: Path) -> None:
    body = "open('settings.json'); " + "+".join(["'a'"] * 900)
    file = plugin(tmp_path, body)
    before = hash_of(file)
    write(tmp_path / "settings.json", "1")
    assert hash_of(file) != before


# --- what is not hashed whole ---------------------------------------------------------


def test_what_is_too_much_is_said_and_seen_by_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named_files, "MOST_BYTES", 2**20)
    file = plugin(tmp_path, "open(HERE / 'a.npz'), open(HERE / 'b.npz')")
    write(tmp_path / "a.npz", b"a" * 600_000)
    big = write(tmp_path / "b.npz", b"b" * 600_000)
    before = hash_of(file)
    assert not_hashed(file) == ("b.npz (beyond 1 MiB in all; declare it in files)",)
    write(big, b"c" * 600_000)
    os.utime(big, ns=(1, 1))
    assert hash_of(file) != before
    file = plugin(tmp_path, "open(HERE / 'a.npz')", files="['b.npz']")
    before = hash_of(file)
    assert not_hashed(file) == ()
    write(big, b"d" * 600_000)
    os.utime(big, ns=(1, 1))
    assert hash_of(file) != before


def test_a_folder_with_too_many_files_is_said_and_declaring_files_ends_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named_files, "MOST_FILES", 10)
    for number in range(30):
        write(tmp_path / "data" / f"{number:02}.txt", "1")
    file = plugin(tmp_path, "HERE / 'data'")
    hash_of(file)
    assert not_hashed(file) == ("more than 10 files that it names",)
    hash_of(plugin(tmp_path, "HERE / 'data'", files="['data/2*.txt']"))
    assert not_hashed(file) == ()


def test_a_file_whose_name_is_not_text_is_hashed(tmp_path: Path) -> None:
    file = plugin(tmp_path, "open(HERE / 'own.txt')")
    odd = tmp_path / os.fsdecode(b"ok\xff.py")
    write(odd, file.read_text())
    before = hash_of(odd)
    write(tmp_path / "own.txt", b"1")
    assert hash_of(odd) != before


def test_a_pipe_is_not_read_and_a_device_is_not(tmp_path: Path) -> None:
    file = plugin(tmp_path, "HERE / 'pipe', HERE / 'zero.bin', HERE / 'gone.json'")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero.bin").symlink_to("/dev/zero")
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    hash_of(file)
    assert not_hashed(file) == (
        "gone.json (No such file or directory)",
        "pipe (not a regular file)",
        "zero.bin (not a regular file)",
    )


def test_what_is_not_hashed_is_printed_and_its_certificate_is_not_kept(
    tmp_path: Path,
) -> None:
    text = "from harness import declare_implementation\n"
    for name, data in (("good", "good.txt"), ("bad", "*.txt")):
        text += f"declare_implementation('{name}', framework='numpy', cells=['rnn'], "
        text += f"layer='{name}:layer')\n"
        write(tmp_path / f"{name}.py", f"DATA = '{data}'\n")
    file = write(tmp_path / "plug.py", text.replace(":layer')", ":layer', files=[])"))
    for name in ("good.txt", "\x1b[2J.txt", "a.txt", "b.txt"):
        os.mkfifo(tmp_path / name) if name != "good.txt" else write(tmp_path / name, "")
    registry = Registry.discover([file])
    good, bad = (Trial("parity", name, "rnn") for name in ("good", "bad"))
    why = "not a regular file"
    assert not_compared(registry, [good]) == []
    assert not_compared(registry, [bad, good, bad]) == [
        "bad: files are not compared with those of other runs, so that its "
        f"certificates are not kept: '\\x1b[2J.txt' ({why}), a.txt ({why}), "
        f"b.txt ({why})"
    ]
    cache, run = CertificateCache(registry), RunFolder.create(tmp_path / "run")
    assert cache._file(planned(bad, registry, run)) is None
    assert cache._file(planned(good, registry, run)) is not None


# --- files that a declaration names ---------------------------------------------------


def test_declared_files_are_hashed(tmp_path: Path) -> None:
    patterns = ["settings.json", "weights/*.npz", "all", "../shared.txt"]
    file = plugin(tmp_path / "a", "pass", files=repr(patterns))
    names = ["settings.json", "weights/gru.npz", "all/deep/x", "../shared.txt"]
    for name in names:
        write(tmp_path / "a" / name, "1")
    hashes = [hash_of(file)]
    for name in (*names, "weights/new.npz"):
        write(tmp_path / "a" / name, "2")
        hashes.append(hash_of(file))
    assert len({*hashes}) == 6
    write(tmp_path / "a" / "other.json", "3")
    assert hash_of(file) == hashes[-1]


@pytest.mark.parametrize("pattern", ["none.json", "*.none", "", "none/", "/no/such"])
def test_a_declared_file_that_does_not_exist_is_an_error(
    tmp_path: Path, pattern: str
) -> None:
    file = plugin(tmp_path, "pass", files=repr([pattern]))
    with pytest.raises(PluginError) as problem:
        read(file)
    says = f"mine: files names {pattern!r}, which is no file in {tmp_path}"
    assert str(problem.value) == says


def test_too_many_declared_files_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.declared_files.MOST_DECLARED", 5)
    for number in range(6):
        write(tmp_path / "data" / str(number), "")
    with pytest.raises(PluginError) as problem:
        read(plugin(tmp_path, "", files="['data']"))
    assert str(problem.value) == "mine: files names more than 5 files; name fewer"


@pytest.mark.parametrize("files", ["'settings.json'", "[1]", "None", "3"])
def test_files_is_a_list_of_paths(tmp_path: Path, files: str) -> None:
    with pytest.raises(PluginError, match="files must be a list of paths, such as "):
        read(plugin(tmp_path, "", files=files))


def test_a_package_declares_files_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "of_test_sources"
    write(package / "deep" / "tasks.py", "NAME = 'settings.json'\ndef make(): 1\n")
    write(package / "__init__.py", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    task = declare_task(
        "mine", factory="of_test_sources.deep.tasks:make", files=["data/*.npz"]
    )
    with pytest.raises(PluginError, match="names 'data/"):
        source_hash(task)
    hashes = []
    for name in ("data/a.npz", "deep/settings.json", "__init__.py"):
        write(package / name, "# 1")
        fingerprint.forget_files()
        hashes.append(source_hash(task))
    assert len({*hashes}) == 3
