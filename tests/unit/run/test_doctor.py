from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.files.text import read_sealed
from harness.machine.fitness import fitness_of_machine, judge
from harness.machine.gpu import Gpu
from harness.machine.lock import measuring
from harness.machine.peak import Peak, Rate
from harness.machine.watch import Machine
from harness.registry import Registry
from harness.report.doctor import doctor_json, doctor_text, summary
from harness.run import doctor
from harness.run.doctor import Diagnosis, LibraryPeak, diagnose
from harness.trial import Conditions
from tests import helpers
from tests.helpers import call

GOOD = Machine(
    False, 1e-3, 0.01, 0.001, cores=2, allowed_cores=2, quota_cores=2.0, other_load=0.0
)
UNFIT = replace(GOOD, other_load=1.5)
ENVIRONMENT = {"machine": "2 cores AMD EPYC", "libraries": {"torch": "2.13.0"}}


def on_cpu(threads: int) -> Conditions:
    return Conditions("", "cpu", threads, "float32", "highest")


def library(name: str, threads: int, flop_per_s: float, copy: float) -> LibraryPeak:
    peak = Peak(Rate(flop_per_s, 512), Rate(copy, 2**28))
    versions = f"{name} 1.0"
    return LibraryPeak(name, versions, on_cpu(threads), peak)


BROKEN = LibraryPeak("mine", "mine 0.1", on_cpu(1), None, "failed: no such thing")
FOUND = Diagnosis(
    ENVIRONMENT,
    judge(GOOD),
    (
        BROKEN,
        library("torch", 1, 1.01e11, 4e10),
        library("jax", 1, 0.99e11, 4.2e10),
        library("torch", 2, 1.9e11, 4.5e10),
        library("jax", 2, 2.1e11, 4.4e10),
    ),
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Machine]]:
    """Replace the machine by the one in a list, which a test may change."""
    seen = [GOOD]
    monkeypatch.setattr(doctor, "fitness_of_machine", lambda _: judge(seen[0]))
    return seen


# --- output ---------------------------------------------------------------------------


def test_the_best_library_is_marked_for_each_device_and_number_of_threads() -> None:
    lines = doctor_text(FOUND).splitlines()
    table = lines[lines.index("cpu, 1 thread") :]
    assert [" ".join(line.split()) for line in table[:7]] == [
        "cpu, 1 thread",
        "mine 0.1 – failed: no such thing",
        "torch 1.0 101 GFLOP/s* 512 40 GB/s",
        "jax 1.0 99 GFLOP/s 512 42 GB/s*",
        "cpu, 2 threads",
        "torch 1.0 190 GFLOP/s 512 45 GB/s*",
        "jax 1.0 210 GFLOP/s* 512 44 GB/s",
    ]
    assert lines[-1] == (
        "fit · 2 cores AMD EPYC · cpu, 1 thread: 101 GFLOP/s (torch), 42 GB/s (jax) · "
        "cpu, 2 threads: 210 GFLOP/s (jax), 45 GB/s (torch)"
    )
    assert "may be low" not in doctor_text(FOUND)


def test_every_reason_has_advice_and_the_rates_have_the_verdict() -> None:
    found = replace(FOUND, fitness=judge(replace(UNFIT, steal=0.05)))
    text = doctor_text(found)
    assert "verdict    unfit: " in text
    for reason in found.fitness.reasons:
        assert f"{reason.verdict:<8} {reason.words}\n" in text
        assert f"-> {reason.advice}\n" in text
    assert "measured while the machine was unfit: may be low" in text
    assert summary(found).startswith("unfit · ")


def test_unreadable_facts_are_printed_as_unreadable() -> None:
    text = doctor_text(FOUND)
    for name in ("governor", "boost", "steal", "swap", "throttled", "clock"):
        assert f"{name} not readable" in text
    assert "quota none" in text
    gpu = Gpu(0, "A GPU", clock_hz=1.98e9, slowed_by=(), others=0)
    text = doctor_text(replace(FOUND, fitness=judge(GOOD, gpu)))
    assert "A GPU · clock 1.98 GHz · memory clock not readable" in text
    assert "held back by nothing · busy not readable · other processes 0" in text


def test_the_json_agrees_with_the_printed_findings() -> None:
    values = json.loads(json.dumps(doctor_json(FOUND), allow_nan=False))
    best = [(p["framework"], p["threads"]) for p in values["peaks"] if p["best_copy"]]
    assert best == [("jax", 1), ("torch", 2)]
    assert list(values["peaks"][0]) == [
        *("framework", "versions", "device", "threads", "dtype", "precision"),
        *("peak", "reason", "best_product", "best_copy"),
    ]
    assert values["peaks"][0]["peak"] is None
    assert values["peaks"][0]["reason"] == "failed: no such thing"
    assert values["fitness"]["verdict"] == "fit"
    assert values["summary"] == summary(FOUND)


# --- the command ---------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["fit", "noisy", "unfit"])
def test_the_exit_code_is_5_if_the_machine_is_unfit(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    machine: list[Machine],
    verdict: str,
) -> None:
    load = {"fit": 0.0, "noisy": 0.2, "unfit": 1.5}[verdict]
    machine[0] = replace(GOOD, other_load=load)
    arguments = ["doctor", "--quick", "--json", "--device", "cpu"]
    code, out, err = call(arguments, monkeypatch, capsys)
    assert code == (5 if verdict == "unfit" else 0)
    values = json.loads(out)
    assert values["fitness"]["verdict"] == verdict
    assert values["peaks"] == []
    assert err == "watching the machine\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *(
            (["--threads", threads], f"--threads {threads}: '{word}' is not a count")
            for threads, word in (
                ("0", "0"),
                ("-1", "-1"),
                ("x", "x"),
                ("1,x", "x"),
                ("1,", ""),
                ("1.5", "1.5"),
                ("99999", "99999"),
            )
        ),
        (["--device", "gpu"], "unknown device 'gpu'; allowed: auto, cpu, cuda"),
        (["--device", "cuda:77"], "no device 'cuda:77' here"),
        (["--plugin", "nowhere.py", "--quick"], "no such plugin file"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    machine: list[Machine],
    arguments: list[str],
    words: str,
) -> None:
    code, _, err = call(["doctor", *arguments], monkeypatch, capsys)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_threads_are_one_and_all_cores_by_default_without_duplicates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "allowed_cores", lambda: 8)
    assert doctor.threads_of(None) == (1, 8)
    assert doctor.threads_of("4, 2,4") == (4, 2)
    monkeypatch.setattr(doctor, "allowed_cores", lambda: 1)
    assert doctor.threads_of(None) == (1,)


# --- measuring -----------------------------------------------------------------------


def only(*implementations: str, files: tuple[Path, ...] = ()) -> Registry:
    registry = Registry.discover(files)
    registry.implementations = {
        name: registry.implementations[name] for name in implementations
    }
    return registry


@pytest.mark.slow
def test_each_library_is_measured_once_and_a_broken_one_is_reported(
    tmp_path: Path, machine: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "mine.py"
    file.write_text(
        "from harness import declare_framework, declare_implementation\n"
        "declare_framework('mine', modules=['math'], probe='mine:probe')\n"
        "for name in ('mine', 'mine-too'):\n"
        "    declare_implementation(name, framework='mine', cells=['gru'],\n"
        "                           factory='mine:network')\n"
        "def network(spec, cell, device): ...\n"
        "def probe(device): raise ValueError('no such thing')\n"
    )
    names = ("onnxruntime", "mine", "mine-too", "numpy-reference")
    registry = only(*names, files=(file,))
    shown: list[str] = []
    found = diagnose(registry, ["cpu"], [1], report=shown.append, log=lambda _: None)
    assert [peak.framework for peak in found.peaks] == ["mine", "numpy"]
    broken, numpy = found.peaks
    assert broken.peak is None
    assert "no such thing" in (broken.reason or "")
    assert numpy.peak is not None
    assert numpy.versions.startswith("numpy ")
    (kept,) = read_sealed(tmp_path / "rnn-harness/peaks.json").values()
    for rate in (kept["flop_per_s"], kept["copy_bytes_per_s"]):
        assert rate["versions"] == numpy.versions
        time.strptime(rate["measured_at"], "%Y-%m-%d %H:%M:%S")
    assert shown == [
        "watching the machine",
        "measuring mine on cpu, 1 thread",
        "measuring numpy on cpu, 1 thread",
    ]


def test_a_library_that_is_not_installed_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "absent.py"
    file.write_text(
        "from harness import declare_framework, declare_implementation\n"
        "declare_framework('absent', modules=['no_such_one'], probe='absent:probe')\n"
        "declare_implementation('absent', framework='absent', cells=['gru'],\n"
        "                       factory='absent:network')\n"
    )
    registry = only("absent", "numpy-reference", files=(file,))
    found = [name for _, name in doctor._libraries(registry, "cpu")]
    assert found == ["numpy-reference"]


def test_frameworks_that_share_a_probe_are_one_library() -> None:
    registry = only("keras-jax", "jax-scan", "numpy-reference")
    found = [name for _, name in doctor._libraries(registry, "cpu")]
    assert found == ["keras-jax", "numpy-reference"]
    assert [n for _, n in doctor._libraries(registry, "cuda:0")] == ["keras-jax"]


def test_doctor_waits_for_trials_of_other_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: list[Machine]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shown: list[str] = []
    waits = threading.Event()

    def report(words: str) -> None:
        shown.append(words)
        waits.set()

    def nothing(*_: object) -> None: ...

    def ask() -> None:
        diagnose(only(), ["cpu"], [1], report=report, log=lambda _: None)

    with measuring(alone=False, waits=nothing, check=nothing):
        thread = threading.Thread(target=ask)
        thread.start()
        assert waits.wait(helpers.PATIENCE_S)
        assert shown == [
            "waiting for trials of another rnn-harness command on this machine"
        ]
    thread.join(helpers.PATIENCE_S)
    assert shown[1:] == ["watching the machine"]


def test_the_fitness_of_this_machine_can_be_read() -> None:
    fitness = fitness_of_machine(watch_s=0.1)
    assert fitness.machine.work_s > 0
    assert fitness.machine.cores is not None
    assert fitness.gpu is None
