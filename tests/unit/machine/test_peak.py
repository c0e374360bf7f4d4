from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.contract import FrameworkState
from harness.declarations import declare_framework
from harness.errors import PluginError
from harness.loading import load_probe
from harness.machine import peak as peak_module
from harness.machine.peak import Peak, Rate, bytes_beyond_caches, measure_peak
from harness.registry import Registry
from harness.run.engine.pool import WorkerPool
from harness.run.job import Answer, Limits
from harness.trial import Trial
from implementations.torch_backend.probe import CudaTimer
from tests import probe_cases as cases
from tests.helpers import REGISTRY

FLOP_PER_S = {256: 2e11, 512: 4e11, 1024: 3e11, 2048: 1e11}
BYTES_PER_S = 1e10
COPY_BYTES = 2**28


class Clock:
    """A clock that advances only while a fake probe computes."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


class Fake:
    """A probe whose calls take at least the time that follows from the given rates."""

    def __init__(self, clock: Clock, rates: dict[int, float]) -> None:
        self.clock, self.rates = clock, rates
        self.asked: list[tuple[int, str, str]] = []
        self.copied: list[int] = []

    def _taking(self, least_s: float) -> Callable[[], None]:
        slower = itertools.chain([2.0], itertools.cycle([1.5, 1.0, 3.0]))

        def call() -> None:
            self.clock.now_s += least_s * next(slower)

        return call

    def matmul(self, size: int, dtype: str, precision: str) -> Callable[[], None]:
        self.asked.append((size, dtype, precision))
        return self._taking(2 * size**3 / self.rates[size])

    def copy(self, size: int) -> Callable[[], None]:
        self.copied.append(size)
        return self._taking(2 * size / BYTES_PER_S)

    def peak_bytes(self) -> None: ...

    def reset_peak(self) -> None: ...

    def timer(self) -> None: ...

    def state(self) -> FrameworkState:
        return FrameworkState()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(peak_module, "time", clock)
    return clock


def test_the_peak_is_the_best_rate_over_sizes_and_counts_reads_and_writes(
    clock: Clock,
) -> None:
    probe = Fake(clock, FLOP_PER_S)
    found = measure_peak(probe, "float32", "highest", copy_bytes=COPY_BYTES)
    assert (found.flop.size, found.copy.size) == (512, COPY_BYTES)
    assert found.flop.per_s == pytest.approx(FLOP_PER_S[512])
    assert found.copy.per_s == pytest.approx(BYTES_PER_S)
    assert probe.copied == [COPY_BYTES]
    assert probe.asked == [(n, "float32", "highest") for n in FLOP_PER_S]
    # Four products of 0.15 s, the last one called three times, and 0.2 s of copying.
    assert clock.now_s < 3


def test_a_product_that_would_take_too_long_is_not_tried(clock: Clock) -> None:
    probe = Fake(clock, {256: 1e11, 512: 1e11, 1024: 1e11})
    measure_peak(probe, "float64", "highest", copy_bytes=2**20)
    assert [size for size, _, _ in probe.asked] == [256, 512, 1024]
    probe = Fake(clock, {256: 5e8})
    measure_peak(probe, "float32", "bf16", copy_bytes=2**20)
    assert [size for size, _, _ in probe.asked] == [256]
    probe = Fake(clock, dict.fromkeys((256, 512, 1024, 2048, 4096, 8192), 2e13))
    found = measure_peak(probe, "float32", "tf32", copy_bytes=2**20)
    assert probe.asked[-1] == (8192, "float32", "tf32")
    assert found.flop.per_s == pytest.approx(2e13)


def test_slow_small_products_do_not_end_the_search(
    clock: Clock,
) -> None:
    probe = Fake(clock, {256: 2e9, 512: 3e10, 1024: 1e11})
    found = measure_peak(probe, "float32", "highest", copy_bytes=2**20)
    assert found.flop.size == 1024


def test_a_peak_comes_back_from_json() -> None:
    peak = Peak(Rate(1.5e11, 512), Rate(4e10, 2**28))
    assert Peak.from_json(json.loads(json.dumps(peak.to_json()))) == peak


# --- how much is copied --------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "free_mib", "mib"),
    [
        (None, 64 * 1024, 256),
        ("32768K", 64 * 1024, 256),
        ("105M", 64 * 1024, 420),
        ("512M", 64 * 1024, 1024),
        ("512M", 800, 100),
        (None, 4, 1),
    ],
)
def test_a_copy_exceeds_the_caches_but_not_the_memory(
    tmp_path: Path, cache: str | None, free_mib: int, mib: int
) -> None:
    if cache is not None:
        for index, size in enumerate(("32K", cache)):
            folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{index}"
            folder.mkdir(parents=True)
            (folder / "size").write_text(f"{size}\n")
    (tmp_path / "proc").mkdir()
    text = f"MemTotal: 99999999 kB\nMemAvailable:   {free_mib * 1024} kB\n"
    (tmp_path / "proc/meminfo").write_text(text)
    assert bytes_beyond_caches(tmp_path) == mib * 2**20


def test_a_copy_fits_into_the_memory_of_a_control_group(tmp_path: Path) -> None:
    for name, text in (
        ("proc/meminfo", "MemAvailable: 99999999 kB\n"),
        ("proc/self/cgroup", "0::/\n"),
        ("sys/fs/cgroup/memory.max", f"{900 * 2**20}\n"),
        ("sys/fs/cgroup/memory.current", f"{100 * 2**20}\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert bytes_beyond_caches(tmp_path) == 100 * 2**20


def test_an_unknown_cache_gets_a_copy_larger_than_any_usual_one(
    tmp_path: Path,
) -> None:
    assert bytes_beyond_caches(tmp_path) == 256 * 2**20


# --- the probes ----------------------------------------------------------------------


def test_numpy_waits_and_refuses_precisions_that_it_lacks() -> None:
    cases.assert_waits_and_reports_nothing_about_a_gpu("numpy", "float32", "float64")
    for precision in ("tf32", "bf16"):
        cases.assert_refuses("numpy", precision)


def test_torch_waits_and_refuses_precisions_that_it_lacks() -> None:
    cases.assert_waits_and_reports_nothing_about_a_gpu("torch", "float32", "float64")
    cases.assert_refuses("torch", "tf32")
    cases.assert_multiplies("torch", "highest", "float32")
    cases.assert_multiplies("torch", "bf16", "bfloat16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_torch_reports_a_missing_gpu() -> None:
    cases.assert_reports_a_missing_gpu("torch")


def test_a_timer_gives_the_seconds_between_two_events_of_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            shown.append(f"recorded on {stream}")

        def synchronize(self) -> None:
            shown.append("waited")

        def elapsed_time(self, end: Event) -> float:
            return 250.0  # in milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"{device}'s own")
    timer = CudaTimer(torch.device("cuda:0"))
    timer.start()
    assert timer.stop() == 0.25
    assert shown == [*["recorded on cuda:0's own"] * 2, "waited"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_torch_reports_the_peak_of_a_gpu() -> None:
    cases.assert_reports_a_gpu("torch")


@pytest.mark.slow
def test_torch_reports_its_threads_and_the_graphs_given_to_dynamo() -> None:
    code = (
        "import sys, torch\n"
        "from tests import probe_cases as cases\n"
        "probe = cases.load('torch')\n"
        "torch.set_num_threads(3)\n"
        "state = probe.state()\n"
        "assert (state.builds, state.threads) == (0, 3)\n"
        "assert 'torch._dynamo.utils' not in sys.modules\n"
        "double = torch.compile(lambda x: 2 * x, backend='eager', dynamic=False)\n"
        "cases.assert_reports_builds(probe, double, torch.ones(2), torch.ones(3))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_framework_may_have_no_probe() -> None:
    assert load_probe(REGISTRY, "onnxruntime", "cpu") is None


def test_a_probe_is_checked_when_it_is_declared_and_when_it_is_loaded(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="probe must be of the form"):
        declare_framework("mine", modules=["math"], probe="probe")
    file = tmp_path / "mine.py"
    file.write_text(
        "from harness import declare_framework\n"
        "declare_framework('mine', modules=['math'], probe='mine:Probe')\n"
        "class Probe:\n"
        "    def __init__(self, device): pass\n"
        "    def matmul(self, size, dtype): pass\n"
    )
    with pytest.raises(PluginError, match="matmul") as raised:
        load_probe(Registry.discover([file]), "mine", "cpu")
    assert raised.value.plugin == "mine"


# --- asking a worker -----------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_pool_returns_the_peak_of_a_framework_or_a_reason() -> None:
    pool = WorkerPool(REGISTRY, Limits(), lambda _: None)
    try:
        trial = Trial("speed", "numpy-reference", "gru")
        found = pool.peak(trial)
        assert isinstance(found, Peak)
        assert 1e7 < found.flop.per_s < cases.FASTEST_FLOP_PER_S
        without = Trial("speed", "onnxruntime", "gru")
        assert isinstance(pool.peak(without), Answer)
        for _ in range(2):  # a worker still answers after a refusal
            refused = pool.peak(replace(trial, device="cuda:0"))
            assert isinstance(refused, Answer)
            assert (refused.outcome, refused.died) == ("refused", False)
            assert "numpy computes on the cpu" in (refused.reason or "")
    finally:
        pool.close()
