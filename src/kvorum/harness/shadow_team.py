"""Names in a shadow team: a second team that works on another problem, and whose words stand in the first one's place.

Its members are called as those in whose places they stand, so that only their words differ.
"""

from __future__ import annotations

SHADOW = "~"
"""What the names of a shadow team's members end in."""


def called(name: str) -> str:
    """How the others call a worker: without the mark of a shadow team."""
    return name.removesuffix(SHADOW)
