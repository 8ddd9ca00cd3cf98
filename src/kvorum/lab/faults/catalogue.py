"""The injected faults by name (``faults.yaml``): what each does, which failure it makes true, what may follow from it.

Where each makes sense is in ``scenarios.yaml``, how it is put there in the scripts; the mechanism is
``kvorum.runs.injection``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kvorum.lab import read_yaml

Label: TypeAlias = tuple[str, str]
"""A failure of a run: its mode, and whose it is; the worker is "" where it is of all together."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``mode``: the failure that a run with it has by construction. ``also``: failures that may be true then as well,
    so that finding them in such a run counts neither for nor against a detector. ``reworded``: it can be said in words
    that no detector was made for."""

    name: str
    mode: str
    what: str
    also: Sequence[str] = ()
    reworded: bool = False


FAULTS: Mapping[str, Fault] = {
    name: Fault(name, **fields) for name, fields in read_yaml(__file__, "faults.yaml").items()
}
