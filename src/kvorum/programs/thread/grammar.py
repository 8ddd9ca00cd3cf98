"""The task document as a JSON schema, and where a worker stands in it.

The grammar is the engine's (``engine.grammars``). Besides the schema it holds the model to one rule of ours: the square
brackets of a ``subtasks`` list are tokens of their own, so that what it holds can be cut out at token edges.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kvorum.engine.grammars import Grammars
from kvorum.errors import GrammarError
from kvorum.harness.tools.tool import closed_object
from kvorum.jsontypes import Json, JsonObject
from kvorum.sampling.grammar import Grammar
from kvorum.sampling.sampling import unpacked


def schema(
    levels: int, *, tools: Sequence[dict[str, Json]], width: int, chars: int, parallel: bool, root: bool = True
) -> dict[str, Json]:
    """The schema of a document (``{reasoning: [task, ...], answer}``) or, not ``root``, of one task.

    Field order is generation order: title, thought, tooluse, plan, subtasks, conclusion. ``levels`` of subtasks under
    the first tasks, at most ``width`` tasks in a list, ``chars`` characters in a text.
    """
    text: dict[str, Json] = {"type": "string", "maxLength": chars}
    defs: dict[str, Json] = {}
    for level in range(levels + 1):
        fields: dict[str, Json] = {"title": text, "thought": text}
        if tools:
            fields["tooluse"] = {"anyOf": list(tools)}
        if level:
            if parallel:
                fields["plan"] = _array(text, width)
            fields["subtasks"] = _array({"$ref": f"#/$defs/task{level - 1}"}, width)
        fields["conclusion"] = text
        defs[f"task{level}"] = closed_object(fields, ["thought", "conclusion"])
    if not root:
        return {"$ref": f"#/$defs/task{levels}", "$defs": defs}
    tasks = _array({"$ref": f"#/$defs/task{levels}"}, width)
    return {**closed_object({"reasoning": tasks, "answer": text}, ["reasoning", "answer"]), "$defs": defs}


def _array(items: JsonObject, most: int) -> JsonObject:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


class Vocabulary:
    """An engine's vocabulary as bytes: what each id adds, and text to ids without special tokens."""

    def __init__(self, grammars: Grammars) -> None:
        self._words = grammars.words
        self.pieces = [bytes(self._words.decode_bytes([token])) for token in range(grammars.vocab)]
        hiding = {True: re.compile(rb'"[^"]*[\[\]]'), False: re.compile(rb"(?s)[\[\]].|.[\[\]]")}
        self.hides_bracket = {
            in_string: torch.tensor([found.search(piece) is not None for piece in self.pieces])
            for in_string, found in hiding.items()
        }
        """Bool ``[vocab]``: ids that hold a bracket of JSON and more, when picked inside or outside a string."""

    def encode(self, text: str | bytes) -> list[int]:
        """Text to ids; what looks like a special token is plain text; brackets of JSON are tokens of their own."""
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text
        parts = re.findall(rb'"(?:[^"\\]|\\.)*"?|[\[\]]|[^"\[\]]+', data)
        ids: list[int] = []
        held = b""
        for part in [*parts, b""]:
            if part in (b"[", b"]", b""):
                ids += self.tokens(held) + self.tokens(part)
                held = b""
            else:
                held += part
        return ids

    def tokens(self, data: bytes) -> list[int]:
        """Bytes to ids as they stand; a special token that is written out becomes several plain ones."""
        ids: list[int] = []
        for token in self._words.tokenize_bytes(data) if data else []:
            piece = self.pieces[token]
            special = self._words.is_special_token(token) and len(piece) > 1
            ids += self.tokens(piece[:1]) + self.tokens(piece[1:]) if special else [int(token)]
        return ids


_vocabularies: WeakKeyDictionary[Grammars, Vocabulary] = WeakKeyDictionary()


def vocabulary(grammars: Grammars) -> Vocabulary:
    """The engine's vocabulary; made once, for a large one takes a second.

    Raises:
        BadRequest: as ``Grammars.words``.
    """
    if grammars not in _vocabularies:
        _vocabularies[grammars] = Vocabulary(grammars)
    return _vocabularies[grammars]


class DocumentGrammar:
    """Where one worker stands in its schema. It follows the log, never the live context: pruning does not rewind it.

    Raises:
        BadRequest: the schema is beyond a limit of the engine's grammars.
    """

    def __init__(self, grammars: Grammars, rules: dict[str, Json]) -> None:
        self.stuck = False
        """No token can follow: something was taken that the schema does not have, or it outgrew its limits."""
        self._words, self._ends = vocabulary(grammars), sorted(grammars.ends)
        self._matcher = grammars.matcher(Grammar.json(rules, separators=(",", ":")))

    def take(self, ids: Sequence[int]) -> None:
        """Go on over ``ids``, picked or inserted; what stands behind a whole document is the reader's to judge."""
        try:
            for token in () if self.stuck else ids:
                if not self._matcher.complete:
                    self._matcher.take([token])
        except GrammarError:
            self.stuck = True

    def allowed(self, in_string: bool, uncut: bool) -> Tensor:
        """Bool ``[vocab]``: what may come next, only an end where nothing can; see ``Reader`` for what is asked."""
        words = self._words
        mask = torch.zeros(len(words.pieces), dtype=torch.bool)
        try:
            mask = torch.from_numpy(unpacked(self._matcher.bits(), len(words.pieces)))
        except GrammarError:
            self.stuck = True
            mask[self._ends] = True
        clean = mask & ~words.hides_bracket[in_string]
        return mask if uncut or not bool(clean.any()) else clean

    def forced(self, uncut: bool) -> list[int]:
        """The ids that must come next; brackets as tokens of their own unless ``uncut``."""
        if uncut:
            return self._matcher.forced()
        ids: list[int] = []
        for token in self._matcher.forced():
            for part in re.split(rb"([\[\]])", self._words.pieces[token]):
                ids += [token] if part == self._words.pieces[token] else self._words.tokens(part)
        return ids
