"""What an engine does in a comparison of whole jobs: keep a shared beginning, and go on from it with many endings.

All engines get the same token ids and write greedily. Reading the beginning is timed apart from what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kvorum.jsontypes import Json


@dataclass(frozen=True, slots=True)
class Prompts:
    """Token ids: the ``beginning`` that all share, and what each one goes on with."""

    beginning: Sequence[int]
    endings: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is written behind each prompt: exactly ``tokens`` of them, end tokens or not, where ``full``; else at most
    so many, ended by an end token, one of ``stops``, or as a whole of the JSON ``schema``."""

    tokens: int
    full: bool = False
    stops: Sequence[str] = ()
    schema: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class Replies:
    """How long all prompts took, and what was written behind each."""

    seconds: float
    texts: Sequence[str]


def goes_on(beginning: Sequence[int], kept: Sequence[int]) -> bool:
    """Whether a beginning is longer than what is kept, and begins with it: then the rest alone is to be read."""
    return len(beginning) > len(kept) and list(beginning[: len(kept)]) == list(kept)


class Peer(Protocol):
    """One engine, loaded."""

    name: str
    """As the tables call it, with how it shares the beginning."""

    def keep(self, beginning: Sequence[int]) -> float:
        """Read the beginning and keep it for those that follow. Returns the seconds of reading it once; of one that
        begins with what is kept, of reading the rest."""

    def write(self, prompts: Prompts, wanted: Wanted) -> Replies:
        """Write behind each prompt, in the way that this peer stands for."""

    def close(self) -> None:
        """End what was started and remove what was written."""
