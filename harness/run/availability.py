"""Build a network of every implementation in a worker, as `list --probe` does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from harness.registry import Registry
from harness.run.engine.pool import WorkerPool
from harness.run.job import Limits
from harness.trial import Trial

PROBE_S = 300.0
"""The time limit for one network: the first import of a framework is slow."""


def build_each(registry: Registry) -> Iterator[tuple[str, str | None]]:
    """Yield each implementation and why it cannot be used here, or None."""
    with closing(
        WorkerPool(registry, Limits(timeout_s=PROBE_S), lambda _: None)
    ) as pool:
        for name, declared in registry.implementations.items():
            reason = registry.unavailable(name)
            if reason is None and declared.cells:
                reason = pool.probe(Trial("parity", name, declared.cells[0]))
            yield name, reason
