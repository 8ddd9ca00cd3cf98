"""Texts that many rows read: encoded once, inside the user's turn of the chat template; each row forks behind them.

    row 1   [ documents ][ what rows begin with ][ own ]
    row 2   [ documents ][ what rows begin with ][ own ]

A text's block may be kept on disk and is loaded from there when the same text comes again, with the same bits. The
ledger is as if it had been encoded, but for the seconds, so that a budget ends where it would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvorum.engine import text
from kvorum.engine.budget import Ledger
from kvorum.engine.engine import EngineCore
from kvorum.errors import BadRequest, OutOfPages
from kvorum.kv import Block, View
from kvorum.runs.run import Run


@dataclass(frozen=True, slots=True, eq=False)
class SharedText:
    """Texts in the cache, each in a sealed block of its own, one behind the other.

    ``behind``: the ids that end the user's turn and begin the assistant's. ``tokens``: of all blocks. ``loaded``: how
    many of them were on disk.
    """

    blocks: tuple[Block, ...]
    behind: tuple[int, ...]
    tokens: int
    loaded: int = 0


def quoted_ids(run: Run, words: str) -> list[int]:
    """Ids of words from outside: what is spelled like a special token is plain text, lest a text end the turn."""
    return text.encode(run.engine.tokenizer, words, split_special=True)


def turn_ids(run: Run, rules: str = "") -> tuple[list[int], list[int]]:
    """Ids of what the chat template has before and behind a user's words, with ``rules`` before them."""
    before, behind = run.state.prompt(rules)["around"]
    plain = not getattr(run.engine.tokenizer, "chat_template", None)
    first = text.encode(run.engine.tokenizer, before, special=plain)
    return first, text.encode(run.engine.tokenizer, behind)


def document_texts(documents: Mapping[str, str], remarks: Mapping[str, str]) -> dict[str, str]:
    """What all rows read, by document; one alone stands there without its name, so that it is known by its content."""
    found = {}
    for name, words in documents.items():
        heading = f"Document: {name}\n\n" if len(documents) > 1 else ""
        remark = f"\n\n(Missing in this text: {remarks[name]}.)" if remarks.get(name) else ""
        found[name] = f"{heading}{words.rstrip()}{remark}\n\n"
    return found


def most_tokens(engine: EngineCore, wanted: int) -> tuple[int, str]:
    """How many tokens a row may see in all, where ``wanted`` are, and the words for what says so."""
    free, longest = engine.pool.free_for(wanted), engine.shape.longest
    if longest is not None and longest <= free:
        return longest, f"the {longest:,} tokens that this model can read"
    return free, f"the {free:,} tokens that are free in the cache (kv_tokens, --kv-tokens)"


async def share_texts(
    run: Run, texts: Mapping[str, str], *, rules: str = "", room: int = 0, hint: str = ""
) -> SharedText:
    """Encode ``texts`` once, or load them, one behind the other at the beginning of a user's turn; by name of block.

    ``room``: how many tokens a row will take behind them. ``hint``: what else can be done where that is too much.

    Raises:
        BadRequest: model or cache are too small for all of it; the message has the numbers. Spent: the budget is used
            up.
    """
    first, behind = turn_ids(run, rules)
    pieces = {name: quoted_ids(run, words) for name, words in texts.items()}
    check_room(run, len(first) + sum(map(len, pieces.values())), room, hint)
    blocks: list[Block] = []
    before: list[int] = []
    loaded = 0
    for name, ids in pieces.items():
        ids = [*(first if not blocks else ()), *ids]
        block, was_kept = await load_or_encode(run, blocks, ids, name)
        loaded += len(ids) if was_kept else 0
        blocks.append(block)
        before += ids
    return SharedText(tuple(blocks), tuple(behind), len(before), loaded)


async def load_or_encode(
    run: Run, before: Sequence[Block], ids: Sequence[int], name: str, label: str = ""
) -> tuple[Block, bool]:
    """The sealed block of ``ids`` as they are encoded behind ``before``, and whether it was on disk.

    One that was not is kept there, under ``label`` if it has one (see ``KeptFiles``).

    Raises:
        OutOfPages: no room. Spent: the budget is used up.
    """
    known = [token for block in before for token in block.ids]
    found = load_kept(run, known, ids, name, label)
    if found is not None:
        await _count(run, len(known), len(ids))
        return found, True
    block = run.block(name)
    await encode(run, View(*before, block), ids)
    keep(run, known, block, label)
    return block.seal(), False


def check_room(run: Run, tokens: int, room: int, hint: str = "") -> None:
    """Raises BadRequest where ``tokens`` of text and ``room`` behind them are more than a row may see."""
    most, words = most_tokens(run.engine, tokens + room)
    if tokens + room > most:
        more = f", and {room:,} are needed behind it" if room else ""
        raise BadRequest(f"The text takes {tokens:,} tokens{more}: more than {words}{'; ' * bool(hint)}{hint}.")


async def encode(run: Run, view: View, ids: Sequence[int]) -> None:
    """Append known tokens to a view's open end, a tick for each ``prefill_chunk`` of them, as one long row would; the
    budget and whoever watches are asked between the ticks."""
    chunk = run.engine.prefill_chunk
    for start in range(0, len(ids), chunk):
        await run.prefill(view, ids[start : start + chunk])


def load_kept(run: Run, before: Sequence[int], ids: Sequence[int], name: str, label: str = "") -> Block | None:
    """The sealed block of ``ids`` as encoded behind ``before``, if it is on disk; nothing is counted as spent.

    Raises:
        OutOfPages: no room.
    """
    if run.state.kept is None or run.scope.nested:  # what stands before a run inside another is no part of ``before``
        return None
    try:
        return run.state.kept.load(run.engine, before, ids, run.scope.name(name), label)
    except OutOfPages as error:
        raise OutOfPages(f"{name} was encoded before, and now its {len(ids):,} tokens do not fit: {error}") from None


def load_begun(run: Run, before: Sequence[int], ids: Sequence[int], name: str) -> Block | None:
    """As ``load_kept``, but the block is open: a row writes on behind ``ids``, its beginning."""
    if run.state.kept is None or not _keeps_beginning(run, len(ids)):
        return None
    return run.state.kept.load_begun(run.engine, before, ids, run.scope.name(name))


def keep_beginning(run: Run, before: Sequence[int], block: Block, length: int) -> None:
    """Keep the first ``length`` tokens of a block on disk, as ``keep`` does all of it."""
    if run.state.kept is not None and _keeps_beginning(run, length):
        run.state.kept.save_beginning(run.engine, before, block, length)


def _keeps_beginning(run: Run, length: int) -> bool:
    """Whether what a row begins with is kept: a row's numbers do not depend on what shares its tick, as they do where
    nothing can be speculated; and with a token more it is one tick's, so that the ledger is as if it were encoded."""
    alone = run.engine.backend.lacks_speculation() is None
    return alone and length < run.engine.prefill_chunk and not run.scope.nested


def keep(run: Run, before: Sequence[int], block: Block, label: str = "") -> None:
    """Keep a block on disk that was encoded behind ``before``, if the run keeps any."""
    if run.state.kept is not None and not run.scope.nested:
        run.state.kept.save(run.engine, before, block, label)


async def _count(run: Run, before: int, tokens: int) -> None:
    """Count a loaded block as ``encode`` would have been counted. Raises Spent where that would have ended the run."""
    size, chunk = run.engine.pool.bytes_per_token, run.engine.prefill_chunk
    for start in range(0, tokens, chunk):
        count = min(chunk, tokens - start)
        read = before + start + count
        cost = Ledger(prefill=count, ticks=1, kv_read=read * size, kv_written=count * size)
        with run.allowance.spending(cost):
            run.ledger.add(cost)
