"""The form in which a model is told of tools and writes its calls, for the server and for programs alike.

    form = call_form(engine)
    prompt = form.conversation(messages, tools)            # what the chat template is given
    sampling = Sampling(grammar=form.grammar(tools))       # free text, and calls that are right once begun
    reader = form.reader()                                 # what the model writes, taken apart as it comes

A template that knows tools is used as it is (``template_probe``). For all others the plain form is used, which the
rules of the conversation explain to the model: each call is a JSON object between tags, each result a part of the
user's next message.

    <tool_call>
    {"name": "add", "arguments": {"a": 1, "b": 2}}
    </tool_call>
                                            <tool_response>
                                            3
                                            </tool_response>
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kvorum.engine.engine import EngineCore
from kvorum.engine.grammars import Grammars
from kvorum.engine.text import encode, render
from kvorum.errors import BadRequest
from kvorum.harness.tools.call_grammar import Words, call_grammar
from kvorum.harness.tools.call_reader import CallReader, Style
from kvorum.harness.tools.conversation import Conversation, plain_conversation, template_conversation
from kvorum.harness.tools.template_probe import Around, look
from kvorum.harness.tools.tool import Tool, harmless_tools
from kvorum.jsontypes import Json, JsonObject
from kvorum.models.tokenizer import Tokenizer
from kvorum.sampling.grammar import Grammar

PLAIN = Around(
    before='<tool_call>\n{"name": "',
    between='", "arguments": ',
    joint='}\n</tool_call>\n<tool_call>\n{"name": "',
    after="}\n</tool_call>",
)
"""The plain form."""
_MARK = "given"
_GIVEN = re.compile(r'\{\s*"given":\s*"given"\s*\}')
_OBJECT = re.compile(r'(?s)(.*?)(\{[^{}]*"name":\s*)"\Z')
_KEY = re.compile(r'"\s*,\s*"(\w+)":\s*\Z')
_TAIL = re.compile(r"[^{}]*\}")


@dataclass(frozen=True, slots=True)
class CallForm:
    """How calls are told and written. ``native``: the chat template knows tools, and this is its own way."""

    native: bool
    around: Around
    tokenizer: Tokenizer | None
    grammars: Grammars | None
    """Of the engine, for its vocabulary; None: one is made from the tokenizer when it is needed."""

    @property
    def shown(self) -> frozenset[int]:
        """Ids of special tokens that the form is written with: a reader must see their text, which decoding leaves
        out unless it is asked to show them (``decode(show=...)``, ``Worker.show``)."""
        if self.tokenizer is None:
            return frozenset()
        around = self.around
        text = "".join([around.tag, around.before, around.between, around.joint or "", around.after])
        return frozenset(self.tokenizer.all_special_ids) & frozenset(encode(self.tokenizer, text))

    def conversation(
        self, messages: Sequence[Mapping[str, Json]], tools: Sequence[Tool], *, whole: bool = True
    ) -> Conversation:
        """What the chat template is given, so that the next turn goes on rightly.

        ``messages`` are in OpenAI's form: an assistant's ``tool_calls`` with ids, and a message of the role ``tool``
        with the ``tool_call_id`` of each. Arguments may be JSON text or an object; an empty text and null are none.
        Contents may be null, a text, or a list of text parts. ``whole``: every call must have its result. What is
        spelled like a special token in the description of a tool is broken by a blank, lest it end a turn.

        Raises:
            BadRequest: a call without its result, a result without its call, or arguments that are no JSON object.
        """
        tools = harmless_tools(tools, self.tokenizer)
        if self.native:
            return template_conversation(messages, tools, self.around, whole=whole)
        return plain_conversation(messages, tools, self.around, whole=whole)

    def opening(
        self,
        messages: Sequence[Mapping[str, Json]],
        tools: Sequence[Tool],
        *,
        moment: datetime | None = None,
        switches: JsonObject | None = None,
    ) -> list[str]:
        """What stands before and behind a user's first words that come behind ``messages``: the rules with the tools,
        and what begins the assistant's turn.

        Raises:
            BadRequest: the template leaves a user's words out.
        """
        found = self.conversation([*messages, {"role": "user", "content": "<<words>>"}], tools)
        before, there, behind = self._text(found, moment, switches).partition("<<words>>")
        if not there:
            raise BadRequest("The model's chat template leaves a user's words out; take another model.")
        return [before, behind]

    def _text(self, found: Conversation, moment: datetime | None, switches: JsonObject | None) -> str:
        """A conversation as the chat template writes it; without one, paragraphs."""
        if getattr(self.tokenizer, "chat_template", None):
            return render(self.tokenizer, found.messages, moment=moment, **{**found.variables, **(switches or {})})
        return "".join(f"{message['content']}\n\n" for message in found.messages)

    def results(
        self, names: Sequence[str], *, moment: datetime | None = None, switches: JsonObject | None = None
    ) -> list[str]:
        """What stands between a turn's calls of tools of these ``names`` and their results: the text behind the calls,
        that between each two results, and that behind the last one, up to where the assistant goes on.

        A piece that ends in a quotation mark stands before a result that is written as the inside of a string of JSON.

        Raises:
            BadRequest: the template leaves results out.
        """
        calls: list[Json] = [
            {"id": f"call_{number}", "function": {"name": name, "arguments": {_MARK: _MARK}}}
            for number, name in enumerate(names)
        ]
        results: list[JsonObject] = [
            {"role": "tool", "tool_call_id": f"call_{number}", "content": f"<<result {number}>>"}
            for number in range(len(names))
        ]
        asked: list[JsonObject] = [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": calls}]
        found = self.conversation([*asked, *results], [])
        text = self._text(found, moment, switches)
        ends = [match.end() for match in _GIVEN.finditer(text)]
        after = re.escape(self.around.after).replace("\\\0", "[0-9a-zA-Z_]+").replace("\0", "[0-9a-zA-Z_]+")
        text = re.sub(rf"\A{after}", "", text[ends[-1] :]) if ends else text
        pieces: list[str] = []
        for number in range(len(names)):
            piece, there, text = text.partition(f"<<result {number}>>")
            if not there or not ends:
                raise BadRequest("The model's chat template leaves the results of tools out; take another model.")
            pieces.append(piece)
        return [*pieces, text]

    def grammar(
        self,
        tools: Sequence[Tool],
        choice: str = "auto",
        *,
        parallel: bool = True,
        answer: Grammar | None = None,
        loose: bool = False,
    ) -> Grammar | None:
        """What a turn may be: text in which a call, once begun, has a tool's name and arguments by its schema.

        ``choice``: "auto" (text, calls, or text and then calls), "required" (calls), "none" (text without a call) or a
        tool's name (one call of it). ``parallel``: a turn may have several calls, where the form has a way to write
        them. Nothing follows the last call. ``answer``: in place of free text, JSON under this grammar's schema; then a
        turn is that or calls. None: there are no tools, and so nothing to hold.

        ``loose``: the JSON of a call of one of these tools is one wherever it stands, in a code fence or none, and ends
        the turn; for models that write calls without their template's marks.

        Free text holds no special tokens but those that are part of it as text, such as the marks of a thought; for a
        thought that the template has opened use ``Grammar.after`` of what this returns.

        Raises:
            BadRequest: no tool of that name, an answer that is no JSON, or a tokenizer that grammars do not know. A
                schema that cannot be enforced is refused when the grammar is compiled.
        """
        if not tools:
            return answer
        words = Words.of(self.tokenizer, self.grammars)
        return call_grammar(self.around, self.style, tools, choice, parallel, words, answer, loose)

    def reader(
        self, ids: Callable[[], str] | None = None, tools: Sequence[Tool] = (), *, loose: bool = False
    ) -> CallReader:
        """Takes what a model writes apart as it comes. ``ids`` names the calls; None: at random, as clients expect.

        ``tools``: also read a turn that begins with the bare JSON of a call of one of these, in a code fence or none,
        as models write that were trained on another form than their template's; ``loose``: wherever it stands.
        """
        return CallReader(self.style, ids, [tool.name for tool in tools], loose=loose)

    @property
    def style(self) -> Style:
        """The form as its reader sees it."""
        around = self.around
        found, key = _OBJECT.match(around.before), _KEY.match(around.between)
        if found and key:
            closing, tail = _TAIL.match(around.after), _TAIL.match(around.joint or "")
            opening = found[1].rstrip()
            return Style(
                triggers=[mark for mark in (around.tag, opening.rstrip("[").rstrip()) if mark],
                bare=not opening,
                listed=opening.endswith("["),
                raw=False,
                between="",
                joint=around.joint[tail.end() : -len(found[2]) - 1] if around.joint and tail else None,
                after=around.after[closing.end() :] if closing else around.after,
            )
        return Style(
            triggers=[around.before.strip()],
            bare=False,
            listed=False,
            raw=True,
            between=around.between,
            joint=around.joint,
            after=around.after,
        )


def call_form(source: EngineCore | Tokenizer | None) -> CallForm:
    """The form of an engine's model, or of a tokenizer; found by rendering its chat template with a tool."""
    engine = source if isinstance(source, EngineCore) else None
    tokenizer = source.tokenizer if isinstance(source, EngineCore) else source
    found = look(tokenizer)
    return CallForm(found is not None, found or PLAIN, tokenizer, engine.grammars if engine else None)
