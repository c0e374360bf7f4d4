"""Numbers, times, sizes and names as tables and figures write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.printing import one_line

NOTHING = "–"

UNCERTIFIED = "uncertified"
"""The mark of a number without a certificate."""


_PREFIXES = {"G": 1e9, "M": 1e6, "k": 1e3, "": 1.0}


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
    return _scaled(value, _PREFIXES)


def with_unit(value: float | None, unit: str) -> str:
    """Return a large number with three digits and its unit: "12.9 kB/s"."""
    if value is None:
        return NOTHING
    return _scaled(value, {f" {p}{unit}": size for p, size in _PREFIXES.items()})


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
    return _scaled(count, {" GiB": 2**30, " MiB": 2**20, " KiB": 2**10, " B": 1})


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
    return _scaled(value, {" s": 1.0, " ms": 1e-3, " µs": 1e-6, " ns": 1e-9})


def seeds(found: Sequence[int]) -> str:
    """Return "0, 1, 2", or "0 to 9" where more than three are consecutive."""
    ordered = sorted(found)
    if len(ordered) > 3 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(str(seed) for seed in ordered)


def few(names: Sequence[str], most: int) -> list[str]:
    """Return at most `most` names, and how many more there are."""
    more = len(names) - most
    return [*names[:most], f"{more} more"] if more > 0 else list(names)


def counts(found: Mapping[str, int]) -> str:
    """Return "2 diverged, 1 crashed"."""
    return ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in found.items()
    )


def _scaled(value: float, units: Mapping[str, float]) -> str:
    """Return a value with three digits in the unit that fits, units largest first."""
    # 999.5 and more would be written as a thousand of the smaller unit.
    fits = (unit for unit, size in units.items() if abs(value) >= 0.9995 * size)
    unit = next(fits, [*units][-1])
    scaled = value / units[unit]
    digits = 0 if abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
    text = f"{scaled:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + unit
