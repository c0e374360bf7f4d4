"""Is a machine fit to measure on, and what can be done if it is not?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from harness.machine.gpu import Gpu, index_of, look_at_gpu
from harness.machine.watch import WATCH_S, Machine, watch_machine
from harness.reason import Fitness, Reason, Verdict

NOISY_LOAD = 0.1
"""Cores that other processes keep busy: an idle desktop stays below this."""

UNFIT_LOAD, UNFIT_LOAD_SHARE = 0.5, 0.1
"""A machine is unfit if other processes keep more than half a core and more than a
tenth of all cores busy. On a small machine a timed thread then waits for its core. On a
large one cores are free, and only memory and the clock are shared."""

NOISY_STEAL, UNFIT_STEAL = 0.01, 0.1
"""Share of time given to other virtual machines. At 10 % a median changes by more than
the 5 % that a comparison reports as a difference."""

NOISY_SPREAD, UNFIT_SPREAD = 0.05, 1.0
"""95th percentile / median - 1 of a piece of work that never changes. Above 5 % a
reading may be off by as much as the difference that is looked for. Above 100 % one
reading in twenty takes twice as long, and more readings do not help."""

WIDEST = 0.02
"""Width of the interval of that work's median. If it is wider, a session cannot reach
the width that it aims at for its own medians."""

CLOCK_SPREAD = 0.05
"""Range of the clock, as a share of its highest value: times change by as much."""

BUSY_GPU = 0.1
"""Share of time that other programs keep a GPU busy, which runs one at a time."""


@dataclass(frozen=True)
class MachineFitness(Fitness):
    """A verdict on a machine, its reasons, and everything that was seen.

    Attributes:
        machine: What was seen of the machine.
        gpu: The GPU to measure on, or None.
    """

    machine: Machine
    gpu: Gpu | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "verdict": self.verdict,
            "reasons": [reason.to_json() for reason in self.reasons],
            "not_readable": self.machine.not_readable,
            "machine": asdict(self.machine),
            "gpu": None if self.gpu is None else asdict(self.gpu),
        }


def judge(machine: Machine, gpu: Gpu | None = None) -> MachineFitness:
    """Return the verdict on what was seen of a machine: the worst of all reasons.

    Args:
        machine: What was seen of it.
        gpu: What was seen of the GPU to measure on, while it had no work.
    """
    found = [reason for rule in _RULES for reason in rule(machine)]
    if gpu is not None:
        found += _of_gpu(gpu)
    seen = {reason.verdict for reason in found}
    worst: Verdict = "unfit" if "unfit" in seen else "noisy" if seen else "fit"
    return MachineFitness(worst, tuple(found), machine, gpu)


def fitness_of_machine(device: str = "cpu", watch_s: float = WATCH_S) -> MachineFitness:
    """Return the verdict on this machine, watched while a piece of work is repeated.

    The caller holds the lock of the machine, so that nothing else measures meanwhile.

    Args:
        device: What is to be measured on, `cpu` or `cuda:N`.
        watch_s: Seconds for which the machine is watched.
    """
    gpu = None
    if device != "cpu":
        own = psutil.Process()
        pids = [own.pid, *(child.pid for child in own.children(recursive=True))]
        gpu = look_at_gpu(index_of(device), pids)
    return judge(watch_machine(duration_s=watch_s), gpu)


def _clock(machine: Machine) -> Iterator[Reason]:
    if machine.clock_wrong:
        seen = "the clock stepped, or ran at another rate than the system's raw clock"
        advice = "check the machine's clock source and time service, then measure again"
        yield Reason("clock", seen, advice, "unfit")


def _swap(machine: Machine) -> Iterator[Reason]:
    advice = "end programs that fill the memory, then measure again"
    if machine.swap_ins:
        seen = f"{machine.swap_ins} pages came back from swap during a second or two"
        yield Reason("swap", seen, advice, "unfit")
    elif machine.swap_outs:
        seen = f"{machine.swap_outs} pages were written to swap"
        yield Reason("swap", seen, advice, "noisy")


def _steal(machine: Machine) -> Iterator[Reason]:
    steal = machine.steal
    if steal is not None and steal > NOISY_STEAL:
        seen = f"the hypervisor gave {steal:.1%} of the time to other machines"
        advice = "measure at another hour, or on a machine of your own"
        verdict: Verdict = "unfit" if steal > UNFIT_STEAL else "noisy"
        yield Reason("steal", seen, advice, verdict)


def _load(machine: Machine) -> Iterator[Reason]:
    load = machine.other_load
    if load is None:
        seen = "the load of other processes is not readable here"
        yield Reason("load", seen, "make sure that no other program runs", "noisy")
    elif load > NOISY_LOAD:
        share = load / (machine.cores or 1)
        unfit = load > UNFIT_LOAD and share > UNFIT_LOAD_SHARE
        seen = f"other processes keep {load:.1f} cores busy"
        advice = "end other programs on this machine, then measure again"
        yield Reason("load", seen, advice, "unfit" if unfit else "noisy")


def _quota(machine: Machine) -> Iterator[Reason]:
    quota, cores = machine.quota_cores, machine.allowed_cores or machine.cores
    if machine.quota_stops:
        seen = "the control group used up its time and was stopped in "
        seen += f"{machine.quota_stops} periods"
        advice = "raise the container's limit of processor time, or run less in it"
        yield Reason("quota", seen, advice, "unfit")
    elif quota is not None and cores is not None and quota < cores:
        seen = f"the control group may use {quota:g} cores' time of {cores} cores"
        advice = (
            f"measure with at most {int(quota)} thread{'s' if quota >= 2 else ''}, or "
            "give the container whole cores (a cpuset) instead of a quota"
            if quota >= 1
            else "give the container a whole core: now even one thread is stopped"
        )
        yield Reason("quota", seen, advice, "noisy" if quota >= 1 else "unfit")


def _heat(machine: Machine) -> Iterator[Reason]:
    if machine.throttled:
        seen = f"heat slowed the processor {machine.throttled} times"
        advice = "let it cool, check its fan, or lower its clock"
        yield Reason("heat", seen, advice, "noisy")


def _governor(machine: Machine) -> Iterator[Reason]:
    """Doubt a clock whose speed may change and was seen to change."""
    governor, spread = machine.governor, machine.clock_spread
    if governor is None or spread is None:
        return
    if governor != "performance" and spread > CLOCK_SPREAD:
        seen = f"the clock varied by {spread:.0%} under the governor '{governor}'"
        advice = "set the governor: sudo cpupower frequency-set -g performance"
        yield Reason("clock-speed", seen, advice, "noisy")


def _spread(machine: Machine) -> Iterator[Reason]:
    spread = machine.work_spread
    if spread > NOISY_SPREAD:
        seen = "one in twenty repetitions of the same work took "
        seen += f"{spread:.0%} longer than the median"
        advice = (
            "end other programs, then measure again"
            if machine.other_load is None or machine.other_load > NOISY_LOAD
            else "nothing else runs here, so turn off boost and deep sleep of the "
            "cores; a virtual machine may share its processor with others"
        )
        verdict: Verdict = "unfit" if spread > UNFIT_SPREAD else "noisy"
        yield Reason("spread", seen, advice, verdict)


def _wide(machine: Machine) -> Iterator[Reason]:
    if machine.work_interval > WIDEST:
        wide = f"{machine.work_interval:.1%}"
        seen = f"the interval of the median time of the same work is {wide} wide"
        advice = "wait until the machine is idle, or give sessions more time"
        yield Reason("wide", seen, advice, "noisy")


_RULES = (_clock, _swap, _steal, _load, _quota, _heat, _governor, _spread, _wide)


def _of_gpu(gpu: Gpu) -> Iterator[Reason]:
    if gpu.slowed_by:
        seen = f"the clock of GPU {gpu.index} is slowed by {', '.join(gpu.slowed_by)}"
        advice = "let it cool, or lock its clock: nvidia-smi --lock-gpu-clocks"
        yield Reason("gpu-clock", seen, advice, "noisy")
    busy = gpu.busy is not None and gpu.busy > BUSY_GPU
    if gpu.others or busy:
        uses = [f"{gpu.others} other processes hold it"] if gpu.others else []
        uses += [f"it is busy {gpu.busy:.0%} of the time"] if busy else []
        seen = f"GPU {gpu.index} is not free: {' and '.join(uses)}"
        advice = "end other programs that use it, then measure again"
        yield Reason("gpu-load", seen, advice, "unfit" if busy else "noisy")
    if gpu.others is None and gpu.busy is None:
        seen = f"whether other processes use GPU {gpu.index} is not readable here"
        advice = "make sure that no other program uses it"
        yield Reason("gpu-load", seen, advice, "noisy")
