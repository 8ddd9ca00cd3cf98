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


async def memory_blocks(
    texts: TextBlocks, memory: Memory | None, found: Recalled, *, alone: bool = False
) -> Sequence[Block]:
    """The heading and the entries found, the oldest first, so that what corrects stands behind what it corrects.

    Each has read those before it, so that alike ones are told apart; the same entries again cost nothing, and where one
    changes, those behind it are encoded again. ``alone``: each has read none of the others, for entries that come and
    go at every turn. Where more were found than there are here, that is said. Without any entry there is nothing.
    ``memory``: None where what was found is of a trace, and the memory is not to be opened.

    Raises:
        OutOfPages: no room. Spent: the budget is used up.
    """
    blocks: list[Block] = []
    for one in _shown(found):
        behind = [] if alone else blocks
        if isinstance(one, str):
            blocks.append(await texts.block(one, "memory", behind=behind))
        else:
            blocks.append(await entry_block(texts, memory, one, behind))
    return blocks


async def entry_block(texts: TextBlocks, memory: Memory | None, entry: Entry, behind: Sequence[Block] = ()) -> Block:
    """One entry as a block, kept on disk under its id; ``behind``: what it has read beside the texts' opening."""
    block = await texts.block(entry_text(entry), f"memory {entry.id}", entry.id, behind)
    if memory is None:
        return block
    try:
        memory.store.get(entry.id)
    except UnknownName:  # forgotten meanwhile by somebody else
        memory.kept.forget(entry.id)
        texts.drop(entry.id)
    return block
