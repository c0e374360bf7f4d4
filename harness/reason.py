"""Why a machine or a timing is doubted, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal["fit", "noisy", "unfit"]


@dataclass(frozen=True)
class Reason:
    """One reason to doubt a machine or a timing.

    Attributes:
        kind: A word for programs.
        words: What was seen.
        advice: What to do about it.
        verdict: What it makes of a machine, `noisy` or `unfit`; None for a timing.
    """

    kind: str
    words: str
    advice: str
    verdict: Verdict | None = None

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values; the verdict only where there is one."""
        return {k: v for k, v in asdict(self).items() if v is not None}
