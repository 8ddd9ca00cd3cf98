"""Calls as a grammar: text that is free until a call begins, and a call that is one of a tool, by its schema.

A mark that is a token of its own in the model's vocabulary is that token in the grammar; any other is plain text, and
the text before it is what does not hold it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llguidance import LLTokenizer

from kvorum.engine.grammars import Grammars
from kvorum.engine.text import needed
from kvorum.errors import BadRequest
from kvorum.harness.tools.call_reader import Style
from kvorum.harness.tools.template_probe import ID, Around
from kvorum.harness.tools.tool import Tool
from kvorum.jsontypes import Json, JsonObject
from kvorum.models.tokenizer import Tokenizer
from kvorum.sampling.grammar import Grammar
from kvorum.wording import unknown

CHOICES = ("auto", "none", "required")
"""What a choice may be beside a tool's name."""
_JSON: dict[str, Json] = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "coerce_one_of": False,
    "lenient": False,
}
"""Blanks as ``json.dumps`` writes them and no others, and every keyword of a schema holds or is refused."""


@dataclass(frozen=True, slots=True)
class Words:
    """A vocabulary, as far as marks are concerned. ``visible``: special ids of the grammar library that are text."""

    tokenizer: Tokenizer
    library: LLTokenizer
    visible: Sequence[int]

    @staticmethod
    def of(tokenizer: Tokenizer | None, grammars: Grammars | None) -> Words:
        """Of an engine's grammars, or of a tokenizer alone. Raises BadRequest where grammars do not know it."""
        given = needed(tokenizer)
        end = given.eos_token_id
        alone = Grammars(given, 1 + max(given.get_vocab().values()), frozenset() if end is None else frozenset([end]))
        library = (grammars or alone).words
        hidden = set(given.all_special_ids)
        vocabulary = given.get_vocab().items()  # a byte of its own, as 0xFF, is no special token
        special = {at for text, at in vocabulary if len(text) > 1 and library.is_special_token(at)}
        return Words(given, library, sorted(special - hidden))

    def special(self, text: str) -> list[tuple[str, int]]:
        """The special tokens in ``text`` that it is written with, in order: how each is spelled, and its id."""
        ids = [at for at in self.library.tokenize_str(text, parse_special=True) if self.library.is_special_token(at)]
        spelled = [
            self.tokenizer.decode([at], skip_special_tokens=False, clean_up_tokenization_spaces=False) for at in ids
        ]
        return list(zip(spelled, ids, strict=True))

    def literal(self, text: str) -> str:
        """``text`` as a sequence of Lark: special tokens as such, ids of calls as what they may be."""
        parts: list[str] = []
        for spelled, at in self.special(text):
            before, _, text = text.partition(spelled)
            parts += [*_plain(before), f"<[{at}]>"]
        return " ".join([*parts, *_plain(text)])


def call_grammar(
    around: Around,
    style: Style,
    tools: Sequence[Tool],
    choice: str,
    parallel: bool,
    words: Words,
    answer: Grammar | None = None,
    loose: bool = False,
) -> Grammar:
    """See ``CallForm.grammar``."""
    if answer is not None and (answer.kind != "json" or answer.mark):
        raise BadRequest("Beside tools an answer can be held to a JSON schema alone, not to other grammars.")
    names = [tool.name for tool in tools]
    if choice not in (*CHOICES, *names):
        raise BadRequest(unknown("tool", choice, names))
    chosen = [tool for tool in tools if choice in (*CHOICES, tool.name)]
    several = parallel and around.joint is not None and choice not in names
    further = f" ({words.literal(around.joint or '')} call)*" if several else ""
    rules = [
        f"call: {' | '.join(f'call{at}' for at in range(len(chosen)))}",
        *_calls(around, chosen, words),
        f"calls: call{further} {words.literal(around.after)}",
    ]
    if answer is not None and choice == "none":
        return answer
    if answer is not None and choice == "auto":
        rules += [f"start: answer | {words.literal(around.before)} calls", f"answer: {_json(json.loads(answer.text))}"]
    elif choice in ("auto", "none"):
        begin, free = _free(around, style, words, names if loose else [])
        rules = [*free, *rules, *(_loose(tools) if loose else ())] if choice == "auto" else free
        more = f" | {begin} calls" + (" | loose" if loose else "")
        rules.insert(0, f"start: text?{more if choice == 'auto' else ''}")
    else:
        rules.insert(0, f"start: {words.literal(around.before)} calls")
    return Grammar.lark("\n".join(rules) + "\n")


def _calls(around: Around, tools: Sequence[Tool], words: Words) -> Iterator[str]:
    """For each tool its name, what stands between, and its arguments."""
    for at, tool in enumerate(tools):
        yield f"call{at}: {words.literal(tool.name + around.between)} arguments{at}"
        yield f"arguments{at}: {_json(tool.parameters)}"


def _json(schema: JsonObject) -> str:
    return f"%json {json.dumps({'x-guidance': _JSON, **schema})}"


def _loose(tools: Sequence[Tool]) -> Iterator[str]:
    """A call without its mark, anywhere in the text, of which nothing follows: known by the name of a tool."""
    yield 'BETWEEN: /,[ \\n]{0,12}"(arguments|parameters)":[ \\n]{0,4}/'
    yield f"loose: {' | '.join(f'loose{at}' for at in range(len(tools)))}"
    for at, tool in enumerate(tools):
        yield f"loose{at}: bare{at} BETWEEN arguments{at} /[ \\n]{{0,8}}\\}}/"
        yield f"bare{at}[suffix=/{_opening([tool.name])}/]: /(?s:.*)/"


def _opening(names: Sequence[str]) -> str:
    """The beginning of a call that has no mark, as a pattern."""
    return rf'\{{\s*"name"\s*:\s*"({"|".join(map(re.escape, names))})"'


def _free(around: Around, style: Style, words: Words, loose: Sequence[str]) -> tuple[str, list[str]]:
    """Text up to the mark of a call, and the mark, as a sequence of Lark; and the rules that they need. ``loose``: the
    text does not hold the beginning of a call of these either."""
    unmarked = f" & ~/(?s:.*){_opening(loose)}(?s:.*)/" if loose else ""
    marks = {at for _, at in words.special("".join([around.before, around.joint or "", around.after]))}
    visible = [at for at in words.visible if at not in marks]
    others = f"<[{','.join(map(str, visible))}]>" if visible else ""
    text = f"text: (TEXT? {others})* TEXT | (TEXT? {others})+" if others else "text: TEXT"
    head = words.literal(around.before)
    if style.bare:
        tag = f"({words.literal(around.tag)})? " if words.special(around.tag) else ""
        name = r'\s*\{\s*"name"(?s:.*)'
        return f"{tag}{head}", [text, f"TEXT: /(?s:.+)/ & ~/{name}/{unmarked}"]
    if head.startswith("<["):
        return f"text? {head}", [text, f"TEXT: /(?s:.+)/{unmarked}"]
    mark = style.triggers[-1]
    rest = words.literal(around.before[len(mark) :])
    some = f"(TEXT? {others})* " if others else ""
    free = f"TEXT: /(?s:.+)/ & ~/(?s:.*){re.escape(mark).replace('/', chr(92) + '/')}(?s:.*)/{unmarked}"
    return f"{some}head {rest}", [text, free, f"head[suffix={json.dumps(mark)}]: /(?s:.*)/"]


def _plain(text: str) -> list[str]:
    """A literal of Lark, in which the id of a call is what it may be."""
    found: list[str] = []
    for number, part in enumerate(text.split(ID)):
        found += ["/[a-zA-Z0-9]{9}/"] if number else []
        found += [json.dumps(part, ensure_ascii=False)] if part else []
    return found
