"""Tokens as OpenAI's replies spell them, with their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvorum.engine.decode import Token
from kvorum.sampling.sampling import Pick
from kvorum.serve.engine_thread.scoring import Scored

LOWEST = -9999.0
"""For a token that the model holds for impossible: JSON has no minus infinity."""


class Speller:
    """Writes single tokens down."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        """A token's own text, special ones too."""
        if token not in self._known:
            if len(self._known) > 100_000:
                self._known.clear()
            words = self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            self._known[token] = str(words)
        return self._known[token]

    def chat(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """``logprobs`` of a chat choice."""
        return {
            "content": [
                self._one(t.id, t.logprob) | {"top_logprobs": [self._one(p.id, p.logprob) for p in t.top]}
                for t in tokens
            ],
            "refusal": None,
        }

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        text = self(token)
        raw = None if "\ufffd" in text else list(text.encode("utf-8"))
        return {"token": text, "logprob": max(logprob, LOWEST), "bytes": raw}

    def plain(self, tokens: Sequence[Token], echoed: Scored | None = None, start: int = 0) -> dict[str, Any]:
        """``logprobs`` of a completion's choice: the echoed prompt's, then the reply's. ``start``: text before it."""
        ids = [] if echoed is None else list(echoed.ids)
        chances: list[float | None] = [] if echoed is None else [_bounded(value) for value in echoed.logprobs]
        top: list[dict[str, float] | None] = [] if echoed is None else [self._top(line) for line in echoed.top]
        ids += [token.id for token in tokens]
        chances += [_bounded(token.logprob) for token in tokens]
        top += [self._top(token.top) for token in tokens]
        texts = [self(token) for token in ids]
        offsets = []
        for text in texts:
            offsets.append(start)
            start += len(text)
        return {"tokens": texts, "token_logprobs": chances, "top_logprobs": top, "text_offset": offsets}

    def _top(self, line: Sequence[Pick] | None) -> dict[str, float] | None:
        if line is None:
            return None
        found: dict[str, float] = {}
        for choice in line:  # the likeliest first: where two tokens have the same text, it counts
            found.setdefault(self(choice.id), max(choice.logprob, LOWEST))
        return found


def _bounded(value: float | None) -> float | None:
    return None if value is None else max(value, LOWEST)
