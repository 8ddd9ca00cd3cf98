"""Numbers as a person reads them."""

from __future__ import annotations


def count(number: float) -> str:
    """1234 as "1,234"."""
    return f"{number:,.0f}"


def size(number: float) -> str:
    """Bytes: "870 kB", "12 MB", "1.23 GB"."""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if number >= unit:
            return f"{number / unit:.2f} {name}"
    return f"{number / 1e6:.0f} MB" if number >= 1e6 else f"{number / 1e3:.0f} kB"


def clock(seconds: float) -> str:
    """Seconds: "0:07", "12:34", "1:02:03"."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
