"""How much a trial computes and keeps, in units that are the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass

SPEC_BYTES = 1_000
"""Size of the `spec.json` that every trial stores."""


@dataclass(frozen=True)
class Work:
    """What a trial does when it uses all the updates or rounds it may use.

    Attributes:
        time_steps: Steps that follow one another, of all calls together.
        flops: Operations of all calls together.
        start_s: Seconds before it computes: imports, compilation.
        least_s: Seconds it takes at least, since short calls are repeated.
        activation_bytes: Memory that one call keeps for its backward pass.
        file_bytes: Size of what it stores beside `result.json`.
    """

    time_steps: float
    flops: float = 0.0
    start_s: float = 0.0
    least_s: float = 0.0
    activation_bytes: float = 0.0
    file_bytes: float = SPEC_BYTES
