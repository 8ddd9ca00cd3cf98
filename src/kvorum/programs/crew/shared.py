"""Texts that workers of a crew see and none of them has written: memory and skills, encoded once."""

from __future__ import annotations

from collections.abc import Mapping

from kvorum.harness.known_texts import KnownTexts
from kvorum.harness.speaker import Quote
from kvorum.harness.text_blocks import TextBlocks
from kvorum.kv import Block, Span
from kvorum.runs.run import Run


class SharedTexts:
    """Such texts for a run. ``known``: what each worker knows, by name; the memory is the same for all."""

    def __init__(self, run: Run, known: Mapping[str, KnownTexts]) -> None:
        self.known = known
        self._run = run
        self._texts: TextBlocks | None = None

    async def before(self) -> dict[str, list[str | Quote]]:
        """What stands before the task for each worker: the catalogue of its skills, what is remembered, and the texts
        of skills that are on from the beginning.

        Raises:
            OutOfPages: no room. Spent: the budget is used up.
        """
        found: dict[str, list[str | Quote]] = {}
        for name, known in self.known.items():
            if words := known.words:
                texts = await self._begun()
                blocks = await known.blocks(texts)
                bodies = [_quote(known.text(skill), await known.body(texts, skill)) for skill in known.on]
                found[name] = [*map(_quote, words, blocks), *bodies, "\n"]
        return found

    async def more(self, name: str, tool: str, arguments: str, status: str) -> list[str | Quote]:
        """What a worker reads behind the result of a call: the text of the skill that the call has switched on."""
        known = self.known[name]
        skill = known.switched_on(tool, arguments, status)
        if not skill:
            return []
        return ["\n", _quote(known.text(skill), await known.body(await self._begun(), skill))]

    async def _begun(self) -> TextBlocks:
        if self._texts is None:
            self._texts = await TextBlocks.begin(self._run)
        return self._texts


def _quote(words: str, block: Block) -> Quote:
    return Quote(words, Span(block, 0, len(block)))
