"""Text to the model's ids: plain text, conversations, and what stands around a user's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jinja2 import TemplateError

from kvorum.errors import BadRequest
from kvorum.models.tokenizer import Tokenizer


def needed(tokenizer: Tokenizer | None) -> Tokenizer:
    """The tokenizer. Raises BadRequest where there is none."""
    if tokenizer is None:
        raise BadRequest("This engine has no tokenizer; pass one to Engine(model, tokenizer) to work with text.")
    return tokenizer


def encode(tokenizer: Tokenizer | None, text: str, *, special: bool = False, split_special: bool = False) -> list[int]:
    """Text to ids, without any added token unless ``special``.

    ``split_special``: what is spelled like a special token is plain text, as in words that come from outside.
    """
    call = needed(tokenizer)
    if split_special:
        found = call(text, add_special_tokens=special, split_special_tokens=True)
    else:  # a tokenizer of one's own need not know of it
        found = call(text, add_special_tokens=special)
    return [int(token) for token in found["input_ids"]]


def chat(tokenizer: Tokenizer | None, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """A conversation to ids, ending where the assistant's turn begins.

    Uses the tokenizer's chat template; without one the messages are plain paragraphs.
    """
    if getattr(needed(tokenizer), "chat_template", None):
        text = needed(tokenizer).apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
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
    return str(needed(tokenizer).apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def vocabulary(tokenizer: Tokenizer | None, most: int) -> dict[str, int]:
    """The tokenizer's tokens as it spells them and their ids below ``most``; no special ones."""
    if tokenizer is None:
        return {}
    special = set(tokenizer.all_special_ids)
    return {text: at for text, at in tokenizer.get_vocab().items() if at < most and at not in special}
