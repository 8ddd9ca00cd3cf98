"""Passages: the sentences of texts, and a choice among them that is written token by token.

A quotation is a whole sentence in the text's own characters, with its place: what a model writes picks among them, and
as soon as only one begins so, it is chosen, whatever its length. Sentences end at their stop, at an empty line, and
before an item of a list, a heading or a row of a table; not at a line's end alone, nor behind an abbreviation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_STOP = re.compile(
    r"""(?P<far>[。！？…]+["'”’」』）)\]]*\s*)"""
    r"""|(?P<near>[.!?]+["'”’)\]»]*\s+)"""
    r"""|\n[ \t\r]*\n\s*"""
    r"""|\n(?=\s*(?:[-*+•|#>]|\d+[.)]\s))"""
    r"""|(?<=\|)[ \t\r]*\n"""
)
_ABBREVIATED = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|No|Nr|vs|etc|cf|e\.g|i\.e|z\.B|approx|ca|bzw|Fig|Inc|Ltd|Co|Jan|Feb|Aug|Sept|Oct|Nov|Dec)"
    r"|\b\d\d?(?=\.\s+(?:[a-z]|Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez)))\.\s+"
)
_NUMBER = re.compile(r"\s*\d+[.)]\s*")


def sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence begins and ends, without the blanks around it; together they hold all that is no blank."""
    found, start = [], 0
    for stop in [*_STOP.finditer(text), None]:
        end = len(text) if stop is None else stop.end()
        if stop is not None and stop["near"]:
            word = max(text.rfind(blank, start, stop.start()) for blank in " \n(") + 1
            if _ABBREVIATED.match(text, max(word, start)) or _NUMBER.fullmatch(text, start, end):
                continue
        piece = text[start:end]
        if piece.strip():
            found.append((start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())))
        start = end
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """Characters ``start`` to ``end`` of a document."""

    document: str
    start: int
    end: int


class Passages:
    """The sentences of ``texts`` (by document; each may begin at a place of its own), to choose one of.

    It makes its own mask, where ``Grammar.substring`` has one for quotations, for three reasons. A quotation is a whole
    sentence, and that grammar cuts anywhere between words. It is chosen as soon as no other begins so, after a handful
    of tokens, where a grammar has all of it written out. And texts may be of any length: a choice among the sentences
    as a grammar would be refused for a book.

    Args:
        encode: text to ids. end: the id that ends a text, for a sentence that others begin with.
    """

    def __init__(self, texts: Mapping[str, tuple[str, int]], encode: Callable[[str], Sequence[int]], end: int) -> None:
        self._places: dict[str, list[Place]] = {}
        for name, (text, begin) in texts.items():
            for start, stop in sentences(text):
                self._places.setdefault(text[start:stop], []).append(Place(name, begin + start, begin + stop))
        spelled = {words: (*encode(words), end) for words in self._places}
        self._sorted = sorted((ids, words) for words, ids in spelled.items())

    def _begun(self, ids: Sequence[int]) -> list[tuple[tuple[int, ...], str]]:
        count, begun = len(ids), tuple(ids)
        return [one for one in self._sorted if one[0][:count] == begun]

    def allowed(self, ids: Sequence[int]) -> list[int]:
        """The ids that may come next behind ``ids``."""
        return sorted({one[0][len(ids)] for one in self._begun(ids) if len(one[0]) > len(ids)})

    def decided(self, ids: Sequence[int]) -> bool:
        """Whether only one passage begins so."""
        return len(self._begun(ids)) == 1

    def chosen(self, ids: Sequence[int]) -> tuple[str, list[Place]]:
        """The passage that ``ids`` begin, the first of them where several do, and all its places."""
        words = self._begun(ids)[0][1]
        return words, self._places[words]
