"""Text at the edges: prompts to ids, ids to text as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from jinja2 import TemplateError

from kvorum.errors import BadRequest
from kvorum.models.tokenizer import Tokenizer

_CONTEXT = 6
"""Tokens before a new one that are decoded with it at least, so that spaces and marks come out as in running text; up
to twice as many."""


class Detokenizer:
    """Turns a growing list of ids into text, piece by piece; a character that is not complete yet waits."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []  # from some before those whose text has been returned on
        self._read, self._before = 0, ""  # how many of them it has been returned of; their text

    def step(self, token: int) -> str:
        """The text that ``token`` adds. Special tokens add none."""
        if self._tokenizer is None:
            return ""
        if self._read >= 2 * _CONTEXT:
            del self._ids[: self._read - _CONTEXT]
            self._read, self._before = _CONTEXT, self._decode(self._ids[:_CONTEXT])
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith("\ufffd") and len(self._ids) - self._read < 8:
            return ""
        piece = text[len(self._before) :]
        self._read, self._before = len(self._ids), text
        return piece

    def _decode(self, ids: Sequence[int]) -> str:
        return decode(self._tokenizer, ids)


def _needed(tokenizer: Tokenizer | None) -> Tokenizer:
    if tokenizer is None:
        raise BadRequest("This engine has no tokenizer; pass one to Engine(model, tokenizer) to work with text.")
    return tokenizer


@cache
def _backend(kind: type) -> property | None:
    """Where tokenizers of this class keep their compiled one, if decoding by it is all that their ``decode`` does.

    What transformers wraps around it takes twice as long as the decoding, for every token of every worker.
    """
    home = "transformers.tokenization_utils_tokenizers"
    found = getattr(kind, "backend_tokenizer", None)
    if not isinstance(found, property) or getattr(kind._decode, "__module__", "") != home:  # type: ignore[attr-defined]
        return None
    return found if getattr(kind.decode, "__module__", "").startswith("transformers.") else None  # type: ignore[attr-defined]


def decode(tokenizer: Tokenizer | None, ids: Sequence[int], *, special: bool = False) -> str:
    """Ids to text without latent steps, and without special tokens unless ``special``."""
    kept = [token for token in ids if token >= 0]
    fast = _backend(type(_needed(tokenizer)))
    if fast is not None and "decode" not in vars(tokenizer):
        return str(fast.__get__(tokenizer).decode(kept, skip_special_tokens=not special))
    return str(_needed(tokenizer).decode(kept, skip_special_tokens=not special, clean_up_tokenization_spaces=False))


def encode(tokenizer: Tokenizer | None, text: str, *, special: bool = False, split_special: bool = False) -> list[int]:
    """Text to ids, without any added token unless ``special``.

    ``split_special``: what is spelled like a special token is plain text, as in words that come from outside.
    """
    call = _needed(tokenizer)
    if split_special:
        found = call(text, add_special_tokens=special, split_special_tokens=True)
    else:  # a tokenizer of one's own need not know of it
        found = call(text, add_special_tokens=special)
    return [int(token) for token in found["input_ids"]]


def chat(tokenizer: Tokenizer | None, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """A conversation to ids, ending where the assistant's turn begins.

    Uses the tokenizer's chat template; without one the messages are plain paragraphs.
    """
    if getattr(_needed(tokenizer), "chat_template", None):
        text = _needed(tokenizer).apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return encode(tokenizer, text)
    return encode(tokenizer, "".join(f"{message['content']}\n\n" for message in messages), special=True)


def turn(tokenizer: Tokenizer | None, system: str | None) -> tuple[str, str]:
    """What stands before and behind a user's words in the chat template, up to where the assistant begins.

    ``system``: the rules that the conversation begins with. None: it goes on, behind an assistant's words that lack
    their end mark.
    """
    if not getattr(tokenizer, "chat_template", None):
        return (f"{system}\n\n" if system else "" if system is not None else "\n\n"), "\n\n"
    mark, earlier = "<<the user's words>>", "<<the assistant's words>>"
    if system is None:
        whole = _render(tokenizer, ("user", "Hi."), ("assistant", earlier), ("user", mark))
        before, _, behind = whole.partition(earlier)[2].rpartition(mark)
        return before, behind
    try:
        rules = [("system", system)] if system else []
        before, _, behind = _render(tokenizer, *rules, ("user", mark)).rpartition(mark)
    except TemplateError:  # a template without the system role
        before, _, behind = _render(tokenizer, ("user", mark)).rpartition(mark)
        before += f"{system}\n\n"
    return before, behind


def _render(tokenizer: Tokenizer | None, *messages: tuple[str, str]) -> str:
    turns = [{"role": role, "content": content} for role, content in messages]
    return str(_needed(tokenizer).apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def vocabulary(tokenizer: Tokenizer | None, most: int) -> dict[str, int]:
    """The tokenizer's tokens as it spells them and their ids below ``most``; no special ones."""
    if tokenizer is None:
        return {}
    special = set(tokenizer.all_special_ids)
    return {text: at for text, at in tokenizer.get_vocab().items() if at < most and at not in special}
