"""Writes `run.json` during a run: the suite, the libraries, and the time it took."""

from __future__ import annotations

import time
from typing import Any

from harness.machine.facts import describe_environment
from harness.registry import Registry
from harness.store import RunFolder
from harness.suite import Suite

_DISTRIBUTIONS = ("numpy", "scipy", "pandas", "matplotlib", "rnn-harness")


class RunInfo:
    """The values of `run.json`, including those of earlier commands in the folder.

    Args:
        run: The folder in which it is written.
        jobs: How many trials run side by side.
        more: Further values.

    Attributes:
        values: The values; changes are stored by the next `write`.
    """

    def __init__(
        self,
        run: RunFolder,
        suite: Suite,
        registry: Registry,
        device: str,
        jobs: int,
        **more: Any,
    ) -> None:
        earlier = run.info()
        earlier.pop("schema", None)

        self.values: dict[str, Any] = {
            "choices": {},
            "started_at": time.time(),
            "wall_time_s": 0.0,
            **earlier,
            "suite": suite.model_dump(mode="json"),
            "device": device,
            "jobs": jobs,
            "plugins": [file.name for file in registry.files],
            "environment": describe_environment(
                [*registry.distributions, *_DISTRIBUTIONS]
            ),
            **more,
        }
        self._run, self._start_s = run, time.monotonic()
        self._earlier_s = float(self.values["wall_time_s"])

    def write(self) -> None:
        """Replace `run.json`; its time is the time until now."""
        took_s = time.monotonic() - self._start_s
        self.values["wall_time_s"] = self._earlier_s + took_s
        self._run.write_info(self.values)
