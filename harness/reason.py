"""How fit a machine is, why it or a timing is doubted, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

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

    @classmethod
    def from_json(cls, values: Mapping[str, str]) -> Reason:
        """Rebuild a reason from `to_json`, without its verdict."""
        return cls(values["kind"], values["words"], values["advice"])


@dataclass(frozen=True)
class Fitness:
    """How fit a machine is for measuring: fit, noisy or unfit, and why.

    `fit` means that nothing was seen that changes a time. `noisy` means that numbers
    can be used, together with the doubts that are printed beside them. `unfit` means
    that numbers would be wrong or meaningless.

    Attributes:
        reasons: Why the machine is not fit; empty if it is.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fitness:
        """Rebuild the verdict and its reasons from what a session stored."""
        reasons = values.get("reasons") or ()
        return cls(values["verdict"], tuple(map(Reason.from_json, reasons)))
