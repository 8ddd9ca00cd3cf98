"""What a model sees of a memory: a line that says what follows, and a block for each entry.

The blocks are kept on disk under their entries' ids. An entry that is forgotten while it is being encoded leaves none.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvorum.errors import UnknownName
from kvorum.harness.memory.memory import Memory
from kvorum.harness.text_blocks import TextBlocks
from kvorum.kv import Block
from kvorum.store.memory.entries import Entry, Recalled
from kvorum.wording import count

HEADING = "What is remembered, the newest last:\n"
MISSING = "({number} more entries are remembered and not shown.)\n"


def entry_text(entry: Entry) -> str:
    """An entry as a model reads it."""
    return f"- {entry.text}\n"


def _shown(found: Recalled) -> list[str | Entry]:
    missing = [MISSING.format(number=count(found.missing))] if found.missing else []
    return [HEADING, *missing, *sorted(found.entries, key=lambda entry: entry.time)] if found.entries else []


def memory_words(found: Recalled) -> Sequence[str]:
    """The texts of ``memory_blocks``, in order."""
    return [one if isinstance(one, str) else entry_text(one) for one in _shown(found)]


async def memory_blocks(texts: TextBlocks, memory: Memory | None, found: Recalled) -> Sequence[Block]:
    """The heading and the entries found, the oldest first, so that what corrects stands behind what it corrects.

    Where more were found than there are here, that is said. Without any entry there is nothing. ``memory``: None where
    what was found is of a trace, and the memory is not to be opened.

    Raises:
        OutOfPages: no room. Spent: the budget is used up.
    """
    return [
        await (texts.block(one, "memory") if isinstance(one, str) else entry_block(texts, memory, one))
        for one in _shown(found)
    ]


async def entry_block(texts: TextBlocks, memory: Memory | None, entry: Entry) -> Block:
    """One entry as a block, kept on disk under its id."""
    block = await texts.block(entry_text(entry), f"memory {entry.id}", entry.id)
    if memory is None:
        return block
    try:
        memory.store.get(entry.id)
    except UnknownName:  # forgotten meanwhile by somebody else
        memory.kept.forget(entry.id)
        texts.drop(entry.id)
    return block
