"""What the prefix cache keeps of a prompt, and what another prompt gets of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kvorum.engine.budget import Ledger
from kvorum.kv import View


@dataclass(slots=True, eq=False)
class Entry:
    """A prompt in the cache. ``users`` are requests that look at it now; ``ready`` tells that it is encoded.

    ``first``: how many of its tokens lie at the beginning of the view's first block.
    """

    ids: npt.NDArray[np.int64]
    view: View
    ready: asyncio.Future[Tensor]
    first: int
    owner: str = ""
    users: int = 0


@dataclass(slots=True, eq=False)
class Prefix:
    """What a prompt may stand on: the first ``length`` tokens of an entry, which is kept for it until ``release``.

    ``again``: how many of these, at most, will be copied to a block of the prompt's own. ``owner``: whose prompt it is.
    """

    entry: Entry | None
    length: int
    again: int = 0
    owner: str = ""


@dataclass(slots=True, eq=False)
class Encoded:
    """A prompt in the cache: its view, the logits ``[vocab]`` behind it, how many tokens were there, the cost."""

    view: View
    logits: Tensor
    shared: int
    cost: Ledger = field(default_factory=Ledger)
