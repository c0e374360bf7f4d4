"""How tables and figures write numbers and text from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

NOTHING = "–"

UNCERTIFIED = "uncertified"
"""The mark of a number without a certificate."""


def one_line(text: object) -> str:
    """Return text without line breaks and control characters."""
    words = "".join(c if c.isprintable() else " " for c in str(text)).split()
    return " ".join(words)


def number(value: float | None) -> str:
    """Return a score or an error with up to four digits."""
    if value is None:
        return NOTHING
    small = value != 0 and abs(value) < 1e-4
    return f"{value:.1e}" if small else f"{value:.4g}"


def verdict(doubt: str | None) -> str:
    """Return "yes", or "NO" with the reason, for a column `certified`."""
    return "yes" if doubt is None else f"NO: {one_line(doubt)}"


def marked(words: str, doubt: str | None) -> str:
    """Return words, marked as uncertified where there is a doubt."""
    return words if doubt is None else f"{words} · {UNCERTIFIED}"


def whole(value: float | None) -> str:
    """Return a count."""
    return NOTHING if value is None else f"{value:.0f}"


def short(value: float | None) -> str:
    """Return a large number with three digits: "12.9k", "4.35M"."""
    if value is None:
        return NOTHING
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999.5 and more would print as a thousand of the smaller unit.
        if abs(value) >= 0.9995 * limit:
            return f"{_three(value / limit)}{suffix}"
    return _three(value)


def percent(share: float | None) -> str:
    """Return a share: "32 %", "0.4 %"."""
    if share is None:
        return NOTHING
    value = 100 * share
    if value >= 9.95:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 0.995 else f"{value:.1g} %"


def size(count: float | None) -> str:
    """Return a number of bytes: "40.9 MiB"."""
    if count is None:
        return NOTHING
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= 0.9995 * bytes_:
            return f"{_three(count / bytes_)} {unit}"
    return f"{count:.0f} B"


def times(ratio: float | None) -> str:
    """Return a ratio with three digits: "1.02", "12.3", "123"."""
    if ratio is None:
        return NOTHING
    digits = 2 if ratio < 9.995 else 1 if ratio < 99.95 else 0
    return f"{ratio:.{digits}f}"


def seconds(value: float | None) -> str:
    """Return a duration: "5 min 12 s", "14 s", "3.20 ms"."""
    if value is None:
        return NOTHING
    if value >= 3600:
        minutes = round(value / 60)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if value >= 119.5:
        return f"{round(value) // 60} min {round(value) % 60:02d} s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= 0.9995 * size:
            return f"{_three(value / size)} {unit}"
    return f"{_three(value / 1e-9)} ns"


def seeds(found: Sequence[int]) -> str:
    """Return "0, 1, 2", or "0 to 9" where more than three are consecutive."""
    ordered = sorted(found)
    if len(ordered) > 3 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(str(seed) for seed in ordered)


def counts(found: Mapping[str, int]) -> str:
    """Return "2 diverged, 1 crashed"."""
    return ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in found.items()
    )


def _three(value: float) -> str:
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
