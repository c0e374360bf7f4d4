"""Trials that follow from other trials: certificates, timings, memory, gradients."""

from __future__ import annotations

from dataclasses import replace

from harness.contract import Optimizer
from harness.trial import (
    CERTIFIED,
    GradientsSettings,
    PhasesSettings,
    SpeedSettings,
    Trial,
)

# The timed updates are compared with the reference afterwards. With these constants
# float32 stays within the certificate's tolerance over the updates of one turn.
TIMED_OPTIMIZER = Optimizer(learning_rate=1e-3, epsilon=1e-3, clip_norm=0.01)


def memory_trial(trial: Trial) -> Trial:
    """Return the trial that measures the peak memory of a speed trial's phases."""
    phases = PhasesSettings(trial.settings_as(SpeedSettings).phases)
    return replace(trial, measure="memory", session=None, settings=phases)


def timed_trial(trial: Trial) -> Trial:
    """Return the speed trial of a learning trial's shape: one update at a time."""
    session = (
        f"{trial.task} {trial.length} batch {trial.batch} hidden {trial.hidden_size}"
        f"x{trial.num_layers} {trial.dtype} {trial.device}"
    )
    return replace(
        trial,
        measure="speed",
        session=session,
        seed=0,
        data_seed=0,
        init="canonical",
        optimizer=replace(
            TIMED_OPTIMIZER,
            name=trial.optimizer.name,
            momentum=trial.optimizer.momentum,
        ),
        # Few rounds are enough: it only serves to choose an implementation, and as a
        # factor of time to solve, whose other factor is less certain.
        settings=SpeedSettings(
            ("train_step",), rounds=12, readings=4, target=0.05, time_budget_s=5.0
        ),
    )


def certificate_trial(trial: Trial) -> Trial:
    """Return the trial that certifies the implementation of a trial."""
    return Trial("parity", **{name: getattr(trial, name) for name in CERTIFIED})


def gradients_trial(learning: Trial, learning_id: str) -> Trial:
    """Return the gradients trial that follows a learning trial."""
    return replace(
        learning, measure="gradients", settings=GradientsSettings(learning_id)
    )
