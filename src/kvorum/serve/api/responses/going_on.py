"""How a conversation goes on behind a stored reply: its tokens as they were, and what the chat template puts behind.

Rendered anew, a reply may be cut into other tokens than those that were written, and nothing behind would be known. So
the new turn is the old prompt, the reply's own tokens, and only then what the template writes: the end of the turn and
the new messages. As long as the cache holds it, nothing of the conversation is encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

from kvorum.engine.detokenizer import decode
from kvorum.engine.engine import EngineCore
from kvorum.engine.text import encode, render
from kvorum.errors import BadRequest
from kvorum.harness.tools.call_form import CallForm
from kvorum.harness.tools.tool import Tool
from kvorum.jsontypes import Json

Messages = Sequence[Mapping[str, Json]]


def ids_behind(
    engine: EngineCore, form: CallForm, tools: Sequence[Tool], known: Sequence[int], before: Messages, now: Messages
) -> list[int] | None:
    """The ids of the conversation ``now``, whose first messages are ``before`` and one reply or more.

    ``known``: the ids of the prompt of ``before`` and of the reply. None: where the reply ends cannot be told from
    what the template makes of it.
    """
    tokenizer = engine.tokenizer
    if not known or not getattr(tokenizer, "chat_template", None):
        return None

    def rendered(messages: Messages, whole: bool = True) -> str:
        told = form.conversation(messages, tools, whole=whole)
        return render(tokenizer, told.messages, moment=None, **told.variables)

    try:
        whole, asked = rendered(now), rendered(before)
        answered = rendered(now[: len(before) + 1], whole=False)
    except BadRequest:
        return None
    begins, shared = _alike(asked, whole), whole[: _alike(answered, whole)]
    marks = [mark for end in sorted(engine.ends) if (mark := decode(tokenizer, [end], special=True))]
    ends = max((shared.rfind(mark) for mark in marks), default=-1)
    if ends < begins:
        return None
    return [*known, *encode(tokenizer, whole[ends:])]


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
