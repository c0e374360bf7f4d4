"""How much a trial computes and keeps, in units that are the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass

SPEC_BYTES = 1_000
"""Size of the `spec.json` that every trial stores."""


@dataclass(frozen=True)
class Work:
    """What a trial computes if it uses all its updates or rounds.

    Attributes:
        time_steps: Time steps, one after the other, of all calls together.
        flops: Operations of all calls together.
        start_s: Seconds before it computes: imports, compilation.
        least_s: The fewest seconds that it takes, because short calls are repeated.
        activation_bytes: Memory that one call keeps for its backward pass.
        file_bytes: Size of the files that it stores besides `result.json`.
    """

    time_steps: float
    flops: float = 0.0
    start_s: float = 0.0
    least_s: float = 0.0
    activation_bytes: float = 0.0
    file_bytes: float = SPEC_BYTES
