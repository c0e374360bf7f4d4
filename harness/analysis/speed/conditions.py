"""The conditions of a timing, and its sizes, in words."""

from __future__ import annotations

from harness.store import TrialRecord
from harness.trial import Conditions, Trial


def conditions_of(record: TrialRecord) -> Conditions:
    """Return the conditions of a timing."""
    return Conditions.of(record.trial, machine_of(record) or "")


def title_of(of: Conditions) -> str:
    """Return the machine, if it is known, and the budget."""
    return " · ".join(word for word in (of.machine, budget_of(of)) if word)


def machine_of(record: TrialRecord) -> str | None:
    """Return the name of the machine, or None if the trial does not name it."""
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
        words += ["an answer at every step"] if trial.readout == "every" else []
    words += [f"batch {trial.batch}"] if "batch" not in left_out else []
    words += [f"hidden {trial.hidden_size}"] if "hidden_size" not in left_out else []
    words += [f"{trial.num_layers} layers"] if trial.num_layers > 1 else []
    words += [f"biases {trial.biases}"] if trial.biases != "canonical" else []
    return words


def budget_of(of: Trial | Conditions) -> str:
    """Return device, threads, dtype and precision: "cuda:0 · 1 thread · float32, TF32".

    A CPU is not named. A CPU has no TF32, so "TF32 off" is only written for a GPU.
    """
    words = [] if of.device == "cpu" else [of.device]
    words += [f"{of.threads} thread" + ("" if of.threads == 1 else "s")]
    modes = [of.dtype, _PRECISIONS.get(of.precision, of.precision)]
    if of.precision == "highest" and of.dtype == "float32" and of.device != "cpu":
        modes.append("TF32 off")
    return " · ".join([*words, ", ".join(mode for mode in modes if mode)])


_PRECISIONS = {"highest": "", "tf32": "TF32", "bf16": "bf16 autocast"}
