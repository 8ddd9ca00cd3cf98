"""How programs of one's own are named: for the command, which will not wait for torch, and for who loads them."""

from __future__ import annotations

GROUP = "kvorum.programs"
"""The group of entry points under which an installed package brings programs."""


def is_own(where: str) -> bool:
    """Whether ``where`` says a file or a module, not just a program's name."""
    return ":" in where or where.endswith(".py")
