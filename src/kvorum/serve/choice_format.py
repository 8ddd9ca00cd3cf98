"""Choices as OpenAI's replies write them, whole and in pieces, of chat and of plain completions; their logprobs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

from kvorum.engine.decode import Token
from kvorum.engine.detokenizer import Detokenizer, decode
from kvorum.engine.engine import EngineCore
from kvorum.engine.text import encode
from kvorum.jsontypes import Json, JsonObject
from kvorum.models.token_bytes import token_bytes
from kvorum.models.tokenizer import Tokenizer
from kvorum.sampling.sampling import Pick
from kvorum.serve.call_format import call_pieces, written_calls
from kvorum.serve.engine_thread.generator import ReplyPart

LOWEST = -9999.0
"""For a token that the model holds for impossible: JSON has no minus infinity."""
_MOST = 100_000
"""Tokens whose texts are remembered."""


class LogprobFormat:
    """The field ``logprobs`` of chat and of plain completions, for one engine's tokenizer."""

    def __init__(self, engine: EngineCore) -> None:
        self._tokenizer = engine.tokenizer
        self._table = None if engine.tokenizer is None else token_bytes(engine.tokenizer)
        self._token = lru_cache(_MOST)(self._read)

    def text(self, token: int) -> str:
        """A token's own text, special ones too; a part of a character as OpenAI writes it, ``bytes:\\xf0\\x9f``."""
        return self._token(token)[0]

    def _read(self, token: int) -> tuple[str, bytes | None]:
        if self._table is None:
            text = decode(self._tokenizer, [token], special=True)
            return text, None if "\ufffd" in text else text.encode()
        raw = self._table[token]
        try:
            return raw.decode(), raw
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw), raw

    def chat(self, tokens: Sequence[Token]) -> dict[str, Json]:
        """``logprobs`` of a chat choice."""
        content: list[Json] = []
        for token in tokens:
            top = [self._one(pick.id, pick.logprob) for pick in token.top]
            content.append({**self._one(token.id, token.logprob), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _one(self, token: int, logprob: float) -> dict[str, Json]:
        text, raw = self._token(token)
        return {"token": text, "logprob": max(logprob, LOWEST), "bytes": None if raw is None else list(raw)}

    def plain(self, tokens: Sequence[Token], offsets: list[int]) -> dict[str, Json]:
        """``logprobs`` of a completion's choice; null for the first of an echoed prompt.

        ``offsets``: where each token begins (see ``TextOffsets``).
        """
        logprobs: list[Json] = []
        top: list[Json] = []
        for token in tokens:
            known = not math.isnan(token.logprob)
            logprobs.append(max(token.logprob, LOWEST) if known else None)
            top.append(self._top(token.top) if known else None)
        texts = [self.text(token.id) for token in tokens]
        return {"tokens": [*texts], "token_logprobs": logprobs, "top_logprobs": top, "text_offset": [*offsets]}

    def _top(self, picks: Sequence[Pick]) -> dict[str, float]:
        found: dict[str, float] = {}
        for pick in picks:  # the likeliest first: where two tokens have the same text, it counts
            found.setdefault(self.text(pick.id), max(pick.logprob, LOWEST))
        return found


class TextOffsets:
    """Where the tokens of one completion begin in its text, in characters.

    All parts of a character begin where it does. ``prompt``: the ids that the text goes on behind.
    """

    def __init__(self, tokenizer: Tokenizer | None, prompt: Sequence[int] = ()) -> None:
        self._tokenizer, self._length, self._words = tokenizer, 0, Detokenizer(tokenizer, prompt)

    def echoed(self, ids: Sequence[int]) -> tuple[list[int], str]:
        """The offsets of an echoed prompt's tokens, which come first, and its text."""
        added = encode(self._tokenizer, "", special=True)  # such as <bos>, which is not in the text
        words, text, offsets, leading = Detokenizer(self._tokenizer, special=True), "", [], True
        for at, token in enumerate(ids):
            offsets.append(len(text) + words.cuts(token))
            leading = leading and at < len(added) and token == added[at]
            text += "" if leading else words.step(token)
        text += words.flush()
        self._length, self._words = len(text), Detokenizer(self._tokenizer, ids)
        return offsets, text

    def next(self, tokens: Sequence[int]) -> list[int]:
        """The offsets of the reply's next tokens."""
        offsets = []
        for token in tokens:
            offsets.append(self._length + self._words.cuts(token))
            self._length += len(self._words.step(token))
        return offsets


class ChatFormat:
    """Choices of a chat completion; ``logprobs`` None: they are not asked for. ``tools``: they may be called."""

    prefix, kind, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, logprobs: LogprobFormat | None = None, *, tools: bool = False) -> None:
        self._logprobs, self._tools = logprobs, tools
        self._begun: set[int] = set()

    def whole(self, reply: ReplyPart) -> JsonObject:
        """The message: words, whole calls, and thoughts, its own or its workers'."""
        calls = written_calls(reply.calls)
        message: dict[str, Json] = {
            "role": "assistant",
            "content": reply.text or (None if calls else ""),
            "refusal": None,
        }
        if calls:
            message["tool_calls"] = calls
        if reply.reasoning:
            message["reasoning_content"] = reply.reasoning
        return {"message": message, "logprobs": self._logprobs_of(reply), "finish_reason": reply.finish}

    def pieces(self, part: ReplyPart) -> Iterator[JsonObject]:
        """Whose words they are, what was added, and why it ended."""
        if part.index not in self._begun:
            self._begun.add(part.index)
            yield _delta({"role": "assistant", "content": None if self._tools else ""})
        if part.reasoning:
            yield _delta({"reasoning_content": part.reasoning})
        logprobs = self._logprobs_of(part) if part.tokens else None
        if part.text or (logprobs is not None and not part.calls):
            yield {"delta": {"content": part.text}, "logprobs": logprobs, "finish_reason": None}
        for call in call_pieces(part.calls):
            yield {**_delta({"tool_calls": [call]}), "logprobs": logprobs}
            logprobs = None
        if part.finish is not None:
            yield {**_delta({}), "finish_reason": part.finish}

    def _logprobs_of(self, part: ReplyPart) -> JsonObject | None:
        return None if self._logprobs is None else self._logprobs.chat(part.tokens)


def _delta(delta: JsonObject) -> dict[str, Json]:
    return {"delta": delta, "logprobs": None, "finish_reason": None}


class TextFormat:
    """Choices of a plain completion, which have no place for reasoning; ``logprobs`` None: they are not asked for.

    ``choices`` of them go on behind each of the ``prompts``.
    """

    prefix, kind, chunk = "cmpl", "text_completion", "text_completion"

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        prompts: Sequence[Sequence[int]] = ((),),
        choices: int = 1,
        logprobs: LogprobFormat | None = None,
    ) -> None:
        self._tokenizer, self._prompts, self._choices, self._logprobs = tokenizer, prompts, choices, logprobs
        self._offsets: dict[int, TextOffsets] = {}  # by the reply's index

    def whole(self, reply: ReplyPart) -> JsonObject:
        """The text, behind the echoed prompt where there is one."""
        text, logprobs = "", None
        if self._logprobs is not None or reply.echoed is not None:
            places = self._places(reply.index)
            offsets, text = ([], "") if reply.echoed is None else places.echoed(reply.echoed)
            offsets += places.next(reply.tokens)
            if self._logprobs is not None:
                logprobs = self._logprobs.plain([*(reply.echoed or ()), *reply.tokens], offsets)
        return {"text": text + reply.text, "logprobs": logprobs, "finish_reason": reply.finish}

    def _places(self, index: int) -> TextOffsets:
        if index not in self._offsets:
            self._offsets[index] = TextOffsets(self._tokenizer, self._prompts[index // self._choices])
        return self._offsets[index]

    def pieces(self, part: ReplyPart) -> Iterator[JsonObject]:
        """What was added."""
        if not part.reasoning:
            piece = self.whole(part)
            if any(piece.values()) or not part.tokens:  # else it is part of a character
                yield piece


ChoiceFormat = ChatFormat | TextFormat
"""How the replies to a request are written down, without their index.

``prefix``: what the reply's id begins with. ``kind`` and ``chunk``: what it and a piece of a streamed one are called.
"""
