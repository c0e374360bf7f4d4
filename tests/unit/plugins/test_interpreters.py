import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from harness.errors import MisuseError
from harness.interpreters import choose, probe
from harness.interpreters.choose import load_interpreters, user_config
from harness.registry import Registry
from harness.run.plan.fingerprint import source_hashes
from harness.trial import Trial
from tests import helpers
from tests.helpers import REGISTRY

TREE = helpers.ROOT
PACKAGES = Path(sysconfig.get_path("purelib"))
VERSION = metadata.version("rnn-harness")
PARITY = Trial("parity", "numpy-reference", "gru")

MakeVenv = Callable[..., Path]


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the user's config, which a test may write."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert user_config() == tmp_path / "config" / "rnn-harness" / "config.toml"
    user_config().parent.mkdir(parents=True)
    return user_config()


@pytest.fixture
def make_venv(tmp_path: Path) -> MakeVenv:
    """Return a function that makes a virtual environment with extra paths."""

    def make(*path: Path, name: str = "own", also: str = "") -> Path:
        venv.create(tmp_path / name, with_pip=False, symlinks=True)
        (packages,) = (tmp_path / name / "lib").glob("python*/site-packages")
        lines = [f"import site; site.addsitedir({str(p)!r})" for p in path]
        helpers.write(packages / "own.pth", "\n".join([also, *lines]))
        return tmp_path / name / "bin" / "python"

    return make


def bare_packages(folder: Path, *names: str) -> Path:
    """Return a folder with this project and only the named requirements."""
    folder.mkdir()
    for package in probe.PACKAGES:
        (folder / package).symlink_to(TREE / package)
    (info,) = PACKAGES.glob("rnn_harness-*.dist-info")
    shutil.copytree(info, folder / info.name)
    for name in names:
        (folder / name).symlink_to(PACKAGES / name)
    return folder


def script(file: Path, text: str, shebang: str = "#!/bin/sh") -> Path:
    helpers.write(file, f"{shebang}\n{text}\n").chmod(0o755)
    return file


def refusal(python: Path | str, framework: str = "numpy") -> str:
    with pytest.raises(MisuseError) as raised:
        load_interpreters({framework: str(python)}, REGISTRY)
    shown = str(raised.value)
    assert shown.startswith(f"environments.{framework}: {python} ")
    return shown.removeprefix(f"environments.{framework}: {python} ")


# --- usable environments --------------------------------------------------------------


def test_another_environment_is_described_by_its_packages(make_venv: MakeVenv) -> None:
    python = make_venv(PACKAGES)
    found = load_interpreters({"numpy": str(python)}, REGISTRY)["numpy"]
    assert found.to_json() == {
        "python": str(python),
        "version": sys.version.split()[0],
        "prefix": str(python.parent.parent),
        "versions": f"numpy {np.__version__}",
        "missing": None,
    }
    json.dumps(found.to_json())


def test_no_process_is_started_without_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("started"))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    assert load_interpreters({}, REGISTRY) == {}
    assert REGISTRY.python_of("torch") == Path(sys.executable)


def test_a_framework_runs_in_its_own_python_and_the_others_in_ours(
    make_venv: MakeVenv,
) -> None:
    python = make_venv(PACKAGES)
    registry = Registry.discover()
    registry.interpreters = load_interpreters({"numpy": str(python)}, registry)
    assert registry.python_of("numpy") == python
    assert registry.python_of("torch") == Path(sys.executable)
    assert registry.unavailable("numpy-reference") is None


def test_a_greeting_of_another_python_is_ignored(make_venv: MakeVenv) -> None:
    python = make_venv(PACKAGES, also="import sys; print('Welcome to the cluster')")
    assert load_interpreters({"numpy": str(python)}, REGISTRY)["numpy"].missing is None


def test_a_missing_framework_is_unavailable_and_stops_nothing_else(
    tmp_path: Path, make_venv: MakeVenv
) -> None:
    packages = bare_packages(tmp_path / "few", "numpy", "psutil", "pynvml.py")
    python = make_venv(packages)
    registry = Registry.discover()
    registry.interpreters = load_interpreters({"torch": str(python)}, registry)
    assert registry.unavailable("torch-native") == (
        f"unavailable: no module 'torch' in {python}; "
        f"{python} -m pip install 'rnn-harness[torch]'"
    )
    assert registry.unavailable("numpy-reference") is None


def test_a_certificate_is_keyed_by_the_versions_in_the_environment(
    tmp_path: Path, make_venv: MakeVenv
) -> None:
    packages = bare_packages(tmp_path / "other", "numpy", "psutil", "pynvml.py")
    (packages / "numpy-1.99.dist-info").mkdir()
    helpers.write(
        packages / "numpy-1.99.dist-info" / "METADATA", "Name: numpy\nVersion: 1.99\n"
    )
    registry = Registry.discover()
    here = source_hashes(registry, PARITY)
    registry.interpreters = load_interpreters(
        {"numpy": str(make_venv(packages))}, registry
    )
    there = source_hashes(registry, PARITY)
    assert here["library versions"] == f"numpy {np.__version__}"
    assert there == {**here, "library versions": "numpy 1.99"}


# --- missing interpreters -------------------------------------------------------------


def test_a_path_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == "does not exist; give the path of a Python"


def test_the_error_for_a_folder_names_the_python_in_it(make_venv: MakeVenv) -> None:
    folder = make_venv(PACKAGES).parent.parent
    assert refusal(folder) == (
        f"is a folder; give the Python in it, as {folder}/bin/python"
    )


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("#!/bin/sh\n", 0o644, "cannot be started: Permission denied; give the path"),
        ("no program\n", 0o755, "cannot be started: Exec format error; give the path"),
        (
            "#!/bin/sh\necho Hello\n",
            0o755,
            "is not a working Python 3.11 or later: Hello; give the path of one",
        ),
        (
            "#!/bin/sh\necho starting\necho 'libpython is gone' >&2\nexit 127\n",
            0o755,
            "is not a working Python 3.11 or later: libpython is gone; give",
        ),
        ("#!/bin/sh\nexit 3\n", 0o755, "3.11 or later: exit code 3 and no word"),
        ("#!/bin/sh\nkill -9 $$\n", 0o755, "3.11 or later: exit code -9 and no word"),
    ],
)
def test_a_file_that_is_not_a_python_is_reported_with_its_last_output(
    tmp_path: Path, text: str, mode: int, message: str
) -> None:
    file = helpers.write(tmp_path / "python", text)
    file.chmod(mode)
    assert message in refusal(file)


def test_a_python_that_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"
    python = script(tmp_path / "python", f"sleep 1000 &\necho $! > {child}\nwait")
    # Probed directly, as the real one may take over a second on a busy machine, and
    # again for longer if it was ended before it had a child.
    patience_s = 1
    while not (child.exists() and child.read_text(encoding="utf-8").strip()):
        monkeypatch.setattr(choose, "PROBE_S", patience_s)
        said = f"did not answer within {patience_s} s"
        with pytest.raises(choose._UnfitError, match=said):
            choose._answer(python, "{}")
        patience_s *= 4
    process = int(child.read_text(encoding="utf-8"))
    helpers.wait_for(lambda: not helpers.alive(process), "the end of the child")


# --- different environments -----------------------------------------------------------


def test_a_python_without_this_project_gets_the_command_that_installs_it(
    make_venv: MakeVenv,
) -> None:
    python = make_venv()
    assert refusal(python, "torch") == (
        f"has no rnn-harness, here is {VERSION}; run: {python} -m pip install "
        f"{choose._this_project('torch')}"
    )


@pytest.mark.parametrize(
    ("origin", "extra", "argument"),
    [
        (None, "torch", f"'rnn-harness[torch]=={VERSION}'"),
        (None, None, f"rnn-harness=={VERSION}"),
        (
            {"url": "file:///my%20tree", "dir_info": {"editable": True}},
            "jax",
            "-e '/my tree[jax]'",
        ),
        (
            {"url": "https://x.org/y.whl", "archive_info": {}},
            None,
            "'rnn-harness @ https://x.org/y.whl'",
        ),
    ],
)
def test_that_command_installs_this_project_as_it_was_installed_here(
    monkeypatch: pytest.MonkeyPatch, origin: object, extra: str | None, argument: str
) -> None:
    text = None if origin is None else json.dumps(origin)
    # The class may be that of an imported backport and not the standard library's.
    found = type(metadata.distribution("rnn-harness"))
    monkeypatch.setattr(found, "read_text", _only(text, found.read_text))
    assert choose._this_project(extra) == argument


def _only(
    text: str | None, read: Callable[..., str | None]
) -> Callable[..., str | None]:
    def direct_url(own: metadata.Distribution, name: str) -> str | None:
        return text if name == "direct_url.json" else read(own, name)

    return direct_url


def test_a_difference_of_one_byte_in_the_sources_is_reported(
    tmp_path: Path, make_venv: MakeVenv, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It comes before the packages of the environment.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    copy = tmp_path / "copy"
    for package in probe.PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(TREE / package, copy / package, ignore=ignored)
    same = make_venv(copy, PACKAGES)
    assert load_interpreters({"numpy": str(same)}, REGISTRY)["numpy"].python == same
    file = copy / "tasks" / "adding.py"
    file.write_bytes(file.read_bytes() + b"\n")
    assert refusal(same).startswith(
        "has other sources of rnn-harness than are here; run: "
        f"{same} -m pip install --force-reinstall --no-deps "
    )


def test_a_different_version_is_reported_with_both_versions(
    tmp_path: Path, make_venv: MakeVenv
) -> None:
    packages = bare_packages(tmp_path / "old", "numpy", "psutil", "pynvml.py")
    (info,) = packages.glob("rnn_harness-*")
    file = info / "METADATA"
    text = file.read_text(encoding="utf-8")
    helpers.write(file, text.replace(f"Version: {VERSION}", "Version: 0.0.1"))
    shown = refusal(make_venv(packages))
    assert shown.startswith(f"has rnn-harness 0.0.1, here is {VERSION}; run: ")


def test_a_plugin_that_is_installed_here_must_be_installed_there_too(
    tmp_path: Path, make_venv: MakeVenv
) -> None:
    registry = Registry.discover()
    # Pretend that this task belongs to an installed distribution.
    registry.tasks["adding"] = replace(registry.tasks["adding"], origin="pytest")
    packages = bare_packages(tmp_path / "few", "numpy", "psutil", "pynvml.py")
    python = make_venv(packages)
    target = f"pytest=={metadata.version('pytest')}"
    with pytest.raises(MisuseError, match=f"has no pytest, here is .*{target}"):
        load_interpreters({"numpy": str(python)}, registry)


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["psutil", "pynvml.py"], "has no numpy; run: {} -m pip install numpy"),
        (["numpy", "pynvml.py"], "has no psutil; run: {} -m pip install psutil"),
        (["numpy", "psutil"], "has no pynvml; run: {} -m pip install nvidia-ml-py"),
    ],
)
def test_a_missing_requirement_of_workers_is_reported(
    tmp_path: Path, make_venv: MakeVenv, there: list[str], message: str
) -> None:
    python = make_venv(bare_packages(tmp_path / "few", *there))
    assert refusal(python) == message.format(python)


def test_all_unusable_environments_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(MisuseError) as raised:
        load_interpreters(
            {"torch": str(tmp_path), "jax": "/none", "numpy": sys.executable}, REGISTRY
        )
    lines = str(raised.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "environments.torch",
        "environments.jax",
    ]


# --- the user's config ---------------------------------------------------------------


def test_the_config_of_the_user_holds_for_every_suite_and_a_suite_overrides_it(
    config: Path, make_venv: MakeVenv
) -> None:
    one, other = make_venv(PACKAGES, name="one"), make_venv(PACKAGES, name="other")
    beside = os.path.relpath(one, config.parent)
    helpers.write(config, f'[environments]\nnumpy = "{beside}"\njax = "{one}"\n')
    found = load_interpreters({"jax": str(other)}, REGISTRY)
    assert Path(found["numpy"].prefix).samefile(one.parent.parent)
    assert found["jax"].python == other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[enviroments]\n", "enviroments: unknown key; did you mean 'environments'?"),
        ("environments = 3\n", "environments: write [environments]"),
        ("[environments]\ntorch = 3\n", "environments.torch: give the path of a"),
        (
            '[environments]\npytorch = "x"\n',
            "environments: unknown framework 'pytorch'; did you mean 'torch'?",
        ),
        ("[environments\n", "cannot be read as TOML: "),
        ("\xff", "cannot be read as TOML: "),
    ],
)
def test_a_mistake_in_the_config_of_the_user_is_reported_with_its_place(
    config: Path, text: str, message: str
) -> None:
    config.write_bytes(text.encode("latin-1"))
    with pytest.raises(MisuseError) as raised:
        load_interpreters({}, REGISTRY)
    assert str(raised.value).startswith(str(config))
    assert message in str(raised.value)


def test_the_config_may_name_the_framework_of_a_plugin_that_is_not_read(
    config: Path,
) -> None:
    helpers.write(config, '[environments]\ntidal = "/opt/tidal/bin/python"\n')
    assert load_interpreters({}, REGISTRY) == {}


def test_the_probe_imports_no_framework_and_no_numpy() -> None:
    asked = choose._question(REGISTRY)
    code = (
        "import json, sys; from harness.interpreters.probe import probe; "
        f"probe(json.loads({json.dumps(asked)!r})); "
        "print([n for n in ('numpy', 'torch', 'jax', 'pydantic') if n in sys.modules])"
    )
    ended, out, _ = choose._run([sys.executable, "-P", "-c", code])
    assert (ended, out.strip()) == (0, "[]")
