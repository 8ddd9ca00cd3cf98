"""Who writes a memory, and whose entries may be replaced or forgotten by whom."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from kvorum.errors import NotAllowed
from kvorum.store.memory.entries import KINDS, Kind
from kvorum.wording import check_known


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule with a name. ``writes``: as whom; None: nothing is written. ``over``: whose entries may be replaced and
    forgotten. ``most``: how many entries one writer may add while it works; None: any number.

    Where entries contradict, the newer takes the place of the older by ``update``, and both stay readable; two that
    were only remembered stand side by side, the newer behind the older.
    """

    name: str
    summary: str
    writes: Kind | None
    over: Collection[str]
    most: int | None = None

    def kind(self) -> Kind:
        """As whom it writes. Raises NotAllowed: nothing may be written."""
        if self.writes is None:
            raise NotAllowed(f"The memory is {self.name}: nothing is remembered, replaced or forgotten here.")
        return self.writes


POLICIES = {
    policy.name: policy
    for policy in (
        Policy("person", "the person writes, and may replace and forget everything", "person", KINDS),
        Policy("program", "the program writes, and may replace what programs and models wrote", "program", KINDS[1:]),
        Policy("model", "the model writes, and may replace what models wrote", "model", KINDS[2:], most=100),
        Policy("model-adds", "the model adds entries, and replaces none", "model", (), most=100),
        Policy("read-only", "nobody writes", None, ()),
    )
}
"""By name."""


def policy(name: str) -> Policy:
    """The policy of that name. Raises UnknownName."""
    check_known("policy", name, POLICIES)
    return POLICIES[name]
