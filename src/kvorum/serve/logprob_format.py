"""Tokens as OpenAI's replies write them, with their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from kvorum.engine.decode import Token
from kvorum.engine.engine import EngineCore
from kvorum.engine.text import decode
from kvorum.jsontypes import Json
from kvorum.sampling.sampling import Pick
from kvorum.serve.engine_thread.scoring import Scored

LOWEST = -9999.0
"""For a token that the model holds for impossible: JSON has no minus infinity."""
_MOST = 100_000
"""Tokens whose texts are remembered."""


class LogprobFormat:
    """The field ``logprobs`` of chat and of plain completions, for one engine's tokenizer."""

    def __init__(self, engine: EngineCore) -> None:
        self._tokenizer = engine.tokenizer
        self._known: dict[int, str] = {}

    def text(self, token: int) -> str:
        """A token's own text, special ones too."""
        if token not in self._known:
            if len(self._known) > _MOST:
                self._known.clear()
            self._known[token] = decode(self._tokenizer, [token], special=True)
        return self._known[token]

    def chat(self, tokens: Sequence[Token]) -> dict[str, Json]:
        """``logprobs`` of a chat choice."""
        content: list[Json] = []
        for token in tokens:
            top = [self._one(pick.id, pick.logprob) for pick in token.top]
            content.append({**self._one(token.id, token.logprob), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _one(self, token: int, logprob: float) -> dict[str, Json]:
        text = self.text(token)
        raw = None if "\ufffd" in text else list(text.encode("utf-8"))
        return {"token": text, "logprob": max(logprob, LOWEST), "bytes": raw}

    def plain(self, tokens: Sequence[Token], echoed: Scored | None = None, start: int = 0) -> dict[str, Json]:
        """``logprobs`` of a completion's choice: the echoed prompt's, then the reply's. ``start``: text before it."""
        ids = [token.id for token in tokens]
        logprobs: list[float | None] = [token.logprob for token in tokens]
        top: list[Sequence[Pick] | None] = [token.top for token in tokens]
        if echoed is not None:
            ids, logprobs, top = [*echoed.ids, *ids], [*echoed.logprobs, *logprobs], [*echoed.top, *top]
        texts = [self.text(token) for token in ids]
        offsets = []
        for text in texts:
            offsets.append(start)
            start += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [None if value is None else max(value, LOWEST) for value in logprobs],
            "top_logprobs": [None if picks is None else self._top(picks) for picks in top],
            "text_offset": offsets,
        }

    def _top(self, picks: Sequence[Pick]) -> dict[str, float]:
        found: dict[str, float] = {}
        for pick in picks:  # the likeliest first: where two tokens have the same text, it counts
            found.setdefault(self.text(pick.id), max(pick.logprob, LOWEST))
        return found
