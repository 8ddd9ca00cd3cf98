"""What a model thinks before it answers, told apart from the answer in chat replies.

Models that think write between tags, of which the chat template may have written the first already. What stands
between them is the reply's ``reasoning_content``; a grammar holds only what comes behind them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from kvorum.serve.engine_thread.generator import Piece, ReplyPart

BEGIN, END = "<think>", "</think>"
_BLANKS = " \t\r\n"


def thinks_already(prompt: str) -> bool:
    """Whether a prompt ends where the model thinks: behind a tag that is still open."""
    return prompt.rstrip(_BLANKS).endswith(BEGIN)


class Thoughts:
    """Tells one reply's thoughts from its answer, as its text comes in parts of any length.

    ``begun``: the prompt ends in an open tag. Otherwise the reply thinks if it begins with the tag.
    """

    def __init__(self, begun: bool) -> None:
        self._held, self._where = "", "thoughts" if begun else "start"

    def step(self, text: str, *, last: bool = False) -> tuple[str, str]:
        """What is new of the thoughts and of the answer; what may be a part of a tag is held back until it is clear."""
        self._held += text
        thoughts = ""
        if self._where == "start":
            begun = self._held.lstrip(_BLANKS)
            if begun.startswith(BEGIN):
                self._where, self._held = "thoughts", begun[len(BEGIN) :].lstrip("\n")
            elif last or not BEGIN.startswith(begun):
                self._where = "answer"
            else:
                return "", ""
        if self._where == "thoughts":
            thoughts, found, rest = self._held.partition(END)
            if found:
                self._where, self._held, thoughts = "blanks", rest, thoughts.rstrip("\n")
            else:
                kept = 0 if last else _begun(self._held)
                thoughts, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
                return thoughts, ""
        if self._where == "blanks":
            self._held = self._held.lstrip(_BLANKS)
            self._where = "answer" if self._held else "blanks"
        answer, self._held = self._held, ""
        return thoughts, answer


def _begun(text: str) -> int:
    """How many characters at the end of a text may be the beginning of the end tag, or line ends before it."""
    bare = text.rstrip("\n")
    tag = next((n for n in range(len(END) - 1, 0, -1) if text.endswith(END[:n])), 0)
    if tag:
        return tag + len(text[:-tag]) - len(text[:-tag].rstrip("\n"))
    return len(text) - len(bare)


async def apart(pieces: AsyncGenerator[Piece, None], *, begun: bool) -> AsyncGenerator[Piece, None]:
    """The same pieces with thoughts as their ``reasoning``."""
    of: dict[int, Thoughts] = {}
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, ReplyPart):
                reader = of.setdefault(piece.index, Thoughts(begun))
                thoughts, answer = reader.step(piece.text, last=piece.finish is not None)
                if thoughts or answer != piece.text:
                    piece = replace(piece, text=answer, reasoning=piece.reasoning + thoughts)
            yield piece
