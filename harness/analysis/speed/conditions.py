"""Under what a number was measured: what must be alike before two are compared."""

from __future__ import annotations

from dataclasses import dataclass

from harness.store import TrialRecord
from harness.trial import Trial


@dataclass(frozen=True, order=True)
class Conditions:
    """Machine, device, thread count and arithmetic of a timing.

    Attributes:
        machine: What the trial says of where it ran; "" where it does not.
    """

    machine: str
    device: str
    threads: int
    dtype: str
    precision: str

    @property
    def budget(self) -> str:
        """What a timing was allowed to use: "2 threads · float32, TF32"."""
        return budget(self.device, self.threads, self.dtype, self.precision)

    @property
    def title(self) -> str:
        """The machine and the budget."""
        return " · ".join(word for word in (self.machine, self.budget) if word)


def conditions(record: TrialRecord) -> Conditions:
    """Return the conditions of a trial."""
    trial = record.trial
    return Conditions(
        machine_of(record) or "",
        trial.device,
        trial.threads,
        trial.dtype,
        trial.precision,
    )


def machine_of(record: TrialRecord) -> str | None:
    """Return the machine's name, or None where the trial does not say."""
    found = record.result.get("machine")
    return None if found is None else str(found)


def sizes_of(trial: Trial, *left_out: str) -> list[str]:
    """Return the task and the sizes of a trial in words, without some of them.

    Args:
        trial: A speed trial.
        left_out: Names of fields: `time_steps`, `batch` and `hidden_size`.
    """
    long = "time_steps" not in left_out
    if trial.task:
        words = [f"{trial.task}, length {trial.length}" if long else trial.task]
        words += [f"{name} {value}" for name, value in trial.task_options.items()]
    else:
        words = [f"{trial.time_steps} time steps"] if long else []
        words.append(f"input size {trial.input_size}")
    words += [f"batch {trial.batch}"] if "batch" not in left_out else []
    words += [f"hidden {trial.hidden_size}"] if "hidden_size" not in left_out else []
    words += [f"{trial.num_layers} layers"] if trial.num_layers > 1 else []
    words += [f"biases {trial.biases}"] if trial.biases != "canonical" else []
    return words


def budget_of(trial: Trial) -> str:
    """Return what a trial was allowed to use, in words."""
    return budget(trial.device, trial.threads, trial.dtype, trial.precision)


def budget(device: str, threads: int, dtype: str, precision: str) -> str:
    """Return device, threads, dtype and precision: "cuda:0 · 1 thread · float32, TF32".

    A CPU is not named. It has no TF32, so that only on a GPU is it said to be off.
    """
    words = [] if device == "cpu" else [device]
    words += [f"{threads} thread" + ("" if threads == 1 else "s")]
    modes = [dtype, _PRECISIONS.get(precision, precision)]
    if precision == "highest" and dtype == "float32" and device != "cpu":
        modes.append("TF32 off")
    return " · ".join([*words, ", ".join(mode for mode in modes if mode)])


_PRECISIONS = {"highest": "", "tf32": "TF32", "bf16": "bf16 autocast"}
