from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from harness.machine.fitness import judge
from harness.machine.gpu import Gpu, look_at_gpu
from harness.machine.load import LEAST_S, OtherLoad
from harness.machine.system import System
from harness.machine.watch import Machine, _of_work, watch_machine
from harness.reason import Fitness
from tests import helpers

pytestmark = pytest.mark.skipif(
    not Path("/proc/stat").exists(), reason="only Linux describes itself in /proc"
)

CPU = "sys/devices/system/cpu"
GROUP = "sys/fs/cgroup/user.slice/job"

QUIET = {
    "proc/stat": "cpu  100 0 100 9000 10 0 0 0 0 0\n"
    + "".join(f"cpu{n} 25 0 25 2250 2 0 0 0 0 0\n" for n in range(4))
    + "intr 1234 5\nctxt 99\n",
    "proc/vmstat": "nr_free_pages 1\npswpin 70\npswpout 80\n",
    "proc/meminfo": "MemTotal: 8 kB\nSwapTotal:  4096 kB\nSwapFree:  3072 kB\n",
    "proc/loadavg": "0.25 0.10 0.05 1/85 6378\n",
    "proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-2,3\n",
    "proc/self/cgroup": "0::/user.slice/job\n",
    "proc/cpuinfo": "cpu MHz\t\t: 2400.5\nflags\t\t: fpu hypervisor\n",
    f"{GROUP}/cpu.max": "max 100000\n",
    f"{GROUP}/cpu.stat": "usage_usec 5\nnr_throttled 7\n",
    f"{CPU}/intel_pstate/no_turbo": "1\n",
    **{f"{CPU}/cpu{n}/cpufreq/scaling_governor": "performance\n" for n in range(4)},
    **{f"{CPU}/cpu{n}/cpufreq/scaling_cur_freq": "3000000\n" for n in range(4)},
    **{f"{CPU}/cpu{n}/thermal_throttle/core_throttle_count": "2\n" for n in range(4)},
}
"""A machine of four cores with nothing on it that moves a time."""

Changes = Mapping[str, str | None]


def plant(root: Path, files: Changes) -> Path:
    """Write files below a folder; None removes one."""
    for name, text in files.items():
        file = root / name
        if text is None:
            file.unlink()
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def watch(root: Path, meanwhile: Changes | None = None) -> Machine:
    """Watch an invented machine whose files change meanwhile; its work is steady."""
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 8:  # the first warms up
            plant(root, meanwhile or {})
        time.sleep(1e-3)

    machine = watch_machine(root, duration_s=0.03, work=work)
    # The steadiness of the real clock and sleep is not part of the invented machine.
    steady = {"work_spread": 0.01, "work_interval": 0.001, "clock_wrong": False}
    return replace(machine, **steady)  # type: ignore[arg-type]


def kinds(fitness: Fitness) -> dict[str, str]:
    return {reason.kind: reason.verdict for reason in fitness.reasons}


# --- reading facts --------------------------------------------------------------------


def test_all_facts_of_a_quiet_machine_are_read_and_it_is_fit(tmp_path: Path) -> None:
    machine = watch(plant(tmp_path, QUIET))
    assert machine.not_readable == ("steal",)  # no tick has passed on this machine
    assert replace(machine, work_s=1e-3, other_load=0.0, steal=0.0) == Machine(
        clock_wrong=False,
        work_s=1e-3,
        work_spread=0.01,
        work_interval=0.001,
        cores=4,
        allowed_cores=4,
        quota_cores=4.0,
        quota_stops=0,
        load_average=0.25,
        other_load=0.0,
        steal=0.0,
        swap_used_bytes=2**20,
        swap_ins=0,
        swap_outs=0,
        governor="performance",
        boost=False,
        clock_hz=3e9,
        clock_spread=0.0,
        throttled=0,
    )
    fitness = judge(machine)
    assert (fitness.verdict, fitness.reasons) == ("fit", ())


def test_unreadable_facts_are_named_and_never_taken_as_good(tmp_path: Path) -> None:
    machine = watch(tmp_path)
    measured = {"clock_wrong", "work_s", "work_spread", "work_interval"}
    assert {*machine.not_readable} == {*vars(machine)} - measured
    fitness = judge(machine)
    assert (fitness.verdict, kinds(fitness)) == ("noisy", {"load": "noisy"})
    assert "not readable" in fitness.reasons[0].words


@pytest.mark.parametrize("text", ["", "nonsense", "cpu\n", "\x00\xff 1", ": :: 0\n"])
def test_an_invalid_value_counts_as_unreadable(tmp_path: Path, text: str) -> None:
    machine = watch(plant(tmp_path, dict.fromkeys(QUIET, text)))
    words = {machine.governor, text.strip() or None}
    assert len(words) == 1  # a word from the system is passed on
    assert machine.boost in (None, False)
    numbers = {n for n, v in vars(machine).items() if isinstance(v, int | float)}
    assert numbers <= {"clock_wrong", "work_s", "work_spread", "work_interval", "boost"}


@pytest.mark.parametrize(
    ("file", "text", "boost"),
    [
        ("intel_pstate/no_turbo", "0\n", True),
        ("intel_pstate/no_turbo", "1\n", False),
        ("cpufreq/boost", "1\n", True),
        ("cpufreq/boost", "0\n", False),
    ],
)
def test_boost_is_read_on_intel_and_amd(
    tmp_path: Path, file: str, text: str, boost: bool
) -> None:
    plant(tmp_path, {f"{CPU}/{file}": text})
    assert System(tmp_path).settings()["boost"] is boost


def test_the_clock_is_that_of_the_fastest_core_and_unknown_in_a_virtual_machine(
    tmp_path: Path,
) -> None:
    system = System(tmp_path)
    plant(tmp_path, {"proc/cpuinfo": "cpu MHz\t: 1200.5\ncpu MHz\t: 2400.5\n"})
    assert system.clock_hz() == 2400.5e6
    plant(tmp_path, {f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "2500000\n"})
    plant(tmp_path, {f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "<unknown>\n"})
    assert system.clock_hz() == 2.5e9
    shutil.rmtree(tmp_path / CPU)
    plant(tmp_path, {"proc/cpuinfo": QUIET["proc/cpuinfo"]})
    assert system.clock_hz() is None


def test_the_spread_is_that_of_the_slowest_readings() -> None:
    turn = [1.0] * 90 + [2.0] * 10
    found = _of_work([turn, turn])
    assert found["work_s"] == 1.0
    assert found["work_spread"] == pytest.approx(1.0)
    assert found["work_interval"] == 0.0


# --- the verdict ---------------------------------------------------------------------

STAT = "cpu  {} 0 100 9000 10 0 0 {} 0 0\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\n"


@pytest.mark.parametrize(
    ("before", "meanwhile", "expected"),
    [
        ({}, {"proc/vmstat": "pswpin 71\npswpout 80\n"}, {"swap": "unfit"}),
        ({}, {"proc/vmstat": "pswpin 70\npswpout 81\n"}, {"swap": "noisy"}),
        (
            {"proc/stat": STAT.format(100, 0)},
            {"proc/stat": STAT.format(100, 50).replace("9000", "9950")},
            {"steal": "noisy"},
        ),
        (
            {"proc/stat": STAT.format(100, 0)},
            {"proc/stat": STAT.format(100, 200).replace("9000", "9800")},
            {"steal": "unfit"},
        ),
        (
            {"proc/stat": STAT.format(100, 0)},
            {"proc/stat": STAT.format(900, 0)},
            {"load": "unfit"},
        ),
        ({f"{GROUP}/cpu.max": "150000 100000\n"}, {}, {"quota": "noisy"}),
        ({f"{GROUP}/cpu.max": "50000 100000\n"}, {}, {"quota": "unfit"}),
        ({f"{GROUP}/cpu.max": "400000 100000\n"}, {}, {}),
        # the limit is that of a parent group
        ({"sys/fs/cgroup/user.slice/cpu.max": "200000 100000"}, {}, {"quota": "noisy"}),
        ({}, {f"{GROUP}/cpu.stat": "nr_throttled 8\n"}, {"quota": "unfit"}),
        (
            {},
            {f"{CPU}/cpu2/thermal_throttle/core_throttle_count": "3\n"},
            {"heat": "noisy"},
        ),
        # the clock varies, as the governor allows
        (
            {f"{CPU}/cpu1/cpufreq/scaling_governor": "powersave\n"},
            {f"{CPU}/cpu{n}/cpufreq/scaling_cur_freq": "2700000\n" for n in range(4)},
            {"clock-speed": "noisy"},
        ),
        (
            {},
            {f"{CPU}/cpu{n}/cpufreq/scaling_cur_freq": "2700000\n" for n in range(4)},
            {},
        ),
        ({f"{CPU}/cpu1/cpufreq/scaling_governor": "powersave\n"}, {}, {}),
    ],
)
def test_each_disturbance_of_timings_is_a_reason(
    tmp_path: Path, before: Changes, meanwhile: Changes, expected: dict[str, str]
) -> None:
    fitness = judge(watch(plant(tmp_path, {**QUIET, **before}), meanwhile))
    assert kinds(fitness) == expected
    assert fitness.verdict == next(iter(expected.values()), "fit")
    assert all(reason.words and reason.advice for reason in fitness.reasons)


@pytest.mark.parametrize(
    "cgroup",
    [
        {
            "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/docker/1\n0::/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",  # mounted as the root
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/docker/1\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "200000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
        },
        {
            "proc/self/cgroup": "1:name=systemd:/\n0::/a\n",
            "sys/fs/cgroup/unified/a/cpu.max": "150000 100000\n",
        },
    ],
)
def test_a_container_of_one_and_a_half_cores_is_reported(
    tmp_path: Path, cgroup: Changes
) -> None:
    machine = watch(plant(tmp_path, {"proc/stat": QUIET["proc/stat"], **cgroup}))
    assert machine.quota_cores == 1.5
    (reason,) = judge(machine).reasons
    assert "1.5 cores' time of 4 cores" in reason.words
    assert "at most 1 thread, or" in reason.advice


MIB = 2**20


@pytest.mark.parametrize(
    ("cgroup", "left"),
    [
        (  # file caches count as free
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/memory.max": f"{1000 * MIB}\n",
                "sys/fs/cgroup/job/memory.current": f"{700 * MIB}\n",
                "sys/fs/cgroup/job/memory.stat": (
                    f"anon {100 * MIB}\ninactive_file {150 * MIB}\n"
                    f"active_file {50 * MIB}\n"
                ),
                "sys/fs/cgroup/job/step/memory.max": "max\n",
                "sys/fs/cgroup/job/step/memory.current": f"{700 * MIB}\n",
            },
            500,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n",
                "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": f"{400 * MIB}\n",
                "sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes": f"{300 * MIB}\n",
                "sys/fs/cgroup/memory/docker/1/memory.stat": (
                    f"inactive_file 0\ntotal_inactive_file {20 * MIB}\n"
                    f"total_active_file {10 * MIB}\n"
                ),
            },
            130,
        ),
        (  # inside a container its group is the root
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": f"{100 * MIB}\n",
                "sys/fs/cgroup/memory.current": f"{120 * MIB}\n",
            },
            0,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({}, None),
    ],
)
def test_the_free_memory_of_a_control_group_is_reported(
    tmp_path: Path, cgroup: Changes, left: int | None
) -> None:
    found = System(plant(tmp_path, cgroup)).memory_left_bytes()
    assert found == (None if left is None else left * MIB)


GOOD = Machine(
    False, 1e-3, 0.01, 0.001, cores=4, allowed_cores=4, quota_cores=4.0, other_load=0.0
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"clock_wrong": True}, {"clock": "unfit"}),
        ({"work_spread": 0.06}, {"spread": "noisy"}),
        ({"work_spread": 1.01}, {"spread": "unfit"}),
        ({"work_interval": 0.021}, {"wide": "noisy"}),
        ({"other_load": 0.09}, {}),
        ({"other_load": 0.11}, {"load": "noisy"}),
        ({"other_load": 0.6}, {"load": "unfit"}),
        # a large machine has enough cores for all
        ({"other_load": 0.6, "cores": 64, "allowed_cores": 4}, {"load": "noisy"}),
        ({"other_load": 6.5, "cores": 64, "allowed_cores": 4}, {"load": "unfit"}),
        ({"steal": 0.01}, {}),
        ({"steal": 0.11, "work_spread": 0.2}, {"steal": "unfit", "spread": "noisy"}),
        # cores of other processes do not limit this one
        ({"allowed_cores": 2, "quota_cores": 2.0}, {}),
    ],
)
def test_a_verdict_is_the_worst_of_its_reasons(
    changes: dict[str, float], expected: dict[str, str]
) -> None:
    fitness = judge(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert kinds(fitness) == expected
    worst = "unfit" if "unfit" in expected.values() else "noisy" if expected else "fit"
    assert fitness.verdict == worst


@pytest.mark.parametrize(
    ("load", "words"),
    [(0.05, "nothing else runs here"), (0.5, "end other"), (None, "end other")],
)
def test_the_advice_on_unsteady_work_depends_on_what_else_runs(
    load: float | None, words: str
) -> None:
    fitness = judge(replace(GOOD, other_load=load, work_spread=0.5))
    (advice,) = [r.advice for r in fitness.reasons if r.kind == "spread"]
    assert words in advice


GPU = Gpu(0, "A GPU", 1.9e9, 2.6e9, 41.0, 70.0, (), 0.0, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"slowed_by": ("power limit",)}, {"gpu-clock": "noisy"}),
        ({"others": 2}, {"gpu-load": "noisy"}),
        ({"others": 2, "busy": 0.5}, {"gpu-load": "unfit"}),
        ({"busy": 0.5}, {"gpu-load": "unfit"}),
        ({"busy": None, "others": None}, {"gpu-load": "noisy"}),
        ({"busy": None, "slowed_by": None}, {}),
    ],
)
def test_a_throttled_or_shared_gpu_is_reported(
    changes: dict[str, object], expected: dict[str, str]
) -> None:
    assert kinds(judge(GOOD, replace(GPU, **changes))) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("gpu", [None, GPU, replace(GPU, slowed_by=None, busy=None)])
def test_a_fitness_can_be_written_as_json(gpu: Gpu | None) -> None:
    fitness = judge(replace(GOOD, steal=0.2, work_spread=0.3), gpu)
    values = json.loads(json.dumps(fitness.to_json(), allow_nan=False))
    assert values["verdict"] == "unfit"
    assert [reason["kind"] for reason in values["reasons"]] == [*kinds(fitness)]
    assert Machine(**values["machine"]) == fitness.machine
    assert (values["gpu"] is None) == (gpu is None)
    assert set(values["not_readable"]) >= {"governor", "boost", "throttled"}


# --- a GPU ---------------------------------------------------------------------------


def test_the_facts_of_the_driver_are_converted_to_si_units(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pynvml

    class Process:
        def __init__(self, pid: int) -> None:
            self.pid = pid

    class Use:
        gpu = 37

    def not_supported(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    answers: dict[str, Callable[..., object]] = {
        "Init": lambda: None,
        "Shutdown": lambda: None,
        "DeviceGetHandleByIndex": lambda index: index,
        "DeviceGetName": lambda handle: f"GPU {handle}",
        "DeviceGetCurrentClocksThrottleReasons": lambda _: 0x1 | 0x4 | 0x40,
        "DeviceGetPowerUsage": lambda _: 71_500,
        "DeviceGetUtilizationRates": lambda _: Use,
        "DeviceGetComputeRunningProcesses": lambda _: [Process(5), Process(6)],
        "DeviceGetClockInfo": lambda _, kind: {
            pynvml.NVML_CLOCK_SM: 1980,
            pynvml.NVML_CLOCK_MEM: 2619,
        }[kind],
        "DeviceGetTemperature": not_supported,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, f"nvml{name}", answer)
    assert look_at_gpu(1, own=[6]) == Gpu(
        1,
        "GPU 1",
        clock_hz=1.98e9,
        memory_clock_hz=2.619e9,
        temperature_c=None,
        power_w=71.5,
        slowed_by=("power limit", "heat (hardware)"),
        busy=0.37,
        others=1,
    )
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", not_supported)
    assert look_at_gpu(1) is None


# --- the load of others --------------------------------------------------------------


def tick(root: Path, ticks: int) -> None:
    plant(root, {"proc/stat": f"cpu  {ticks} 0 7 900 9 0 0 5 0 0\n"})


def test_the_time_that_others_used_is_divided_by_the_time_that_passed(
    tmp_path: Path,
) -> None:
    tick(tmp_path, 100)
    load = OtherLoad(tmp_path)
    load.begin()
    tick(tmp_path, 200)
    time.sleep(LEAST_S)
    found = load.end()
    assert load.readable
    # One second in total, minus the time of this process.
    assert 0.9 < found * load.span_s <= 1.0


def test_idle_waiting_and_stolen_time_is_no_load(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/stat": "cpu  1 1 1 100 100 1 1 100 1 1\n"})
    load = OtherLoad(tmp_path)
    load.begin()
    plant(tmp_path, {"proc/stat": "cpu  1 1 1 900 900 1 1 900 1 1\n"})
    time.sleep(LEAST_S)
    assert load.end() == 0.0


def test_the_load_of_a_short_turn_is_measured_with_the_turns_before_it(
    tmp_path: Path,
) -> None:
    """Every turn of 10 ms has one tick of 10 ms: others keep one core busy."""
    tick(tmp_path, 0)
    load = OtherLoad(tmp_path)
    spans, answers, ticks = [], [], 0
    for _ in range(25):
        load.begin()
        start_s = time.perf_counter()
        ticks += 1
        tick(tmp_path, ticks)
        time.sleep(0.01)
        answers.append(load.end())
        spans.append(time.perf_counter() - start_s)
        ticks += 50  # time between turns does not count
        tick(tmp_path, ticks)
    # One tick in the first turn alone is no evidence: a tenth of a core at most.
    assert answers[0] <= 0.01 / LEAST_S
    turns, span_s = 0, 0.0
    while span_s < LEAST_S:
        turns += 1
        span_s += spans[-turns]
    used_s = answers[-1] * load.span_s
    assert (turns - 2) * 0.01 < used_s <= (turns + 1) * 0.01


@pytest.mark.parametrize("text", [None, "", "cpu  0 0 0 0 0 0 0 0 0 0\n", "cpu 1 2\n"])
def test_load_that_cannot_be_read_is_reported_as_unreadable(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        plant(tmp_path, {"proc/stat": text})
    load = OtherLoad(tmp_path)
    assert not load.readable
    load.begin()
    assert load.end() == 0.0


OBSERVER = """\
import sys
from harness.machine.load import OtherLoad
load = OtherLoad()
print("ready", flush=True)
sys.stdin.readline()
load.begin()
print("begun", flush=True)
sys.stdin.readline()
print(load.end(), flush=True)
"""


@contextmanager
def observer() -> Iterator[subprocess.Popen[str]]:
    """Start a process that watches the load of others, such as this process."""
    process = subprocess.Popen(
        [sys.executable, "-c", OBSERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


SPIN = "import time\nwhile time.process_time() < {}: pass"


def enough(process: int) -> float:
    """Return the seconds that a process computed, or 0 while they are few."""
    times = psutil.Process(process).cpu_times()
    used_s = times.user + times.system
    return used_s if used_s > 0.3 else 0.0


@pytest.mark.parametrize("ends", [False, True])
def test_a_spinning_process_is_load_to_others_and_not_to_its_parent(
    ends: bool,
) -> None:
    """Both see the same system, so the load of other processes cancels."""
    with observer() as other:
        load = OtherLoad()
        assert ask(other) == "begun\n"
        load.begin()
        spinner = subprocess.Popen(
            [sys.executable, "-c", SPIN.format(0.3 if ends else 60)]
        )
        if ends:
            spinner.wait()
            used_s = 0.3
        else:
            used_s = helpers.wait_for(partial(enough, spinner.pid), "the spinner")
        mine, others = load.end(), float(ask(other))
        spinner.kill()
        spinner.wait()
    seen_s = (others - mine) * load.span_s
    assert 0.7 * used_s < seen_s < 1.3 * used_s + 0.1


def test_no_descendants_are_listed_for_a_process_without_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Listing the children of every thread takes longest."""
    script = (
        "from harness.machine import load as module\n"
        "module.descendants = None\n"
        "load = module.OtherLoad()\n"
        "load.begin()\n"
        "load.end()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
