"""Grammars: what a text may be, as data that can be compared, hashed, put into a trace and sent over a wire.

A ``Grammar`` knows nothing of a tokenizer. ``engine.grammars`` compiles it for a model with llguidance
(https://github.com/guidance-ai/llguidance), and a ``Matcher`` follows a text in it. What is wrong with a grammar by
itself is said when it is made; what the library cannot do, when it is compiled, before any token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from llguidance import LLMatcher, regex_to_lark
from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from kvorum.sampling.grammar_limits import LIMITS, check_rules, check_schema, check_size

Unit: TypeAlias = Literal["words", "chars"]
"""Where a quotation may begin and end: at words, or at any character."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a text may be. Made by ``json``, ``regex``, ``choice``, ``lark``, ``gbnf`` or ``substring``.

    ``kind`` is "json" or, for all others, "lark"; ``text`` is the schema or the rules. ``separators`` stand between
    the items of JSON and between a key and its value. ``mark``: the grammar begins behind it (see ``behind``).
    """

    kind: str
    text: str
    separators: Sequence[str] = (", ", ": ")
    mark: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "separators", tuple(self.separators))
        if self.kind not in ("json", "lark") or not isinstance(self.text, str) or not isinstance(self.mark, str):
            raise BadRequest("A grammar is made by Grammar.json, regex, choice, lark, gbnf or substring.")
        if [part.strip(" \n\t") for part in self.separators] != [",", ":"] or max(map(len, self.separators)) > 4:
            raise BadRequest(f"Separators are a comma and a colon with at most 3 blanks each, not {self.separators}.")
        check_size(self.text)
        if self.kind == "json":
            check_schema(_read(self.text))
        else:
            check_rules(self.text)

    @staticmethod
    def json(schema: Mapping[str, Json] | bool, *, separators: Sequence[str] = (", ", ": ")) -> Grammar:
        """JSON under a schema (2020-12), its properties in the order in which the schema lists them.

        Between its parts stand the ``separators`` (by default those of ``json.dumps``) and no other blanks, so that a
        model cannot write blanks for ever. Every keyword holds, or the schema is refused when it is compiled.

        Raises:
            BadRequest: it is no schema, or beyond a limit.
        """
        if not isinstance(schema, Mapping | bool) or schema is False:
            raise BadRequest(f"A schema is an object that allows something, not {schema!r:.80}.")
        try:
            text = json.dumps({} if schema is True else schema, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadRequest(f"The schema is nothing that JSON can hold: {error}.") from None
        return Grammar("json", text, separators)

    @staticmethod
    def regex(pattern: str) -> Grammar:
        """The whole text matches ``pattern``: Rust's syntax, without looking around or referring back."""
        if not isinstance(pattern, str) or not pattern:
            raise BadRequest("A pattern is a text that is not empty.")
        check_size(pattern)
        return Grammar("lark", f"start: /{regex_to_lark(pattern, '')}/")

    @staticmethod
    def choice(options: Sequence[str]) -> Grammar:
        """One of ``options``, of which some may begin alike or be the beginning of others.

        Raises:
            BadRequest: there are none or too many, or one is no text or empty.
        """
        if isinstance(options, str) or not all(isinstance(option, str) and option for option in options):
            raise BadRequest("A choice takes a list of texts, none of them empty.")
        if not 1 <= len(options) <= LIMITS.options:
            raise BadRequest(f"A choice has 1 to {LIMITS.options:,} options; there are {len(options):,}.")
        return Grammar("lark", f"start: {' | '.join(json.dumps(option) for option in dict.fromkeys(options))}")

    @staticmethod
    def lark(text: str) -> Grammar:
        """Rules in the library's kind of Lark, from the rule ``start`` on; terminals are regular expressions."""
        return Grammar("lark", text)

    @staticmethod
    def gbnf(text: str) -> Grammar:
        """Rules as llama.cpp writes them, from the rule ``root`` on.

        Raises:
            BadRequest: the rules cannot be read.
        """
        check_size(text)
        try:
            return Grammar("lark", any_to_lark(text))
        except (GbnfToLarkError, RecursionError) as error:
            raise BadRequest(f"These rules are no GBNF that can be read: {error}.") from None

    @staticmethod
    def substring(
        text: str, *, by: Unit = "words", least: int = 1, most: int = 1000, before: str = "", behind: str = ""
    ) -> Grammar:
        """``least`` to ``most`` characters of ``text`` as they stand there, from word to word or from any character.

        ``before`` and ``behind`` stand around them, as quotation marks do: a model that goes on writing must close
        with what is ``behind``.

        Raises:
            BadRequest: the text is empty or beyond the limit, or shorter than ``least``.
        """
        if by not in ("words", "chars"):
            raise BadRequest(f"A quotation is cut by words or chars, not by {by!r}.")
        if not 1 <= least <= most or len(text) < least:
            raise BadRequest(f"A quotation of {least} to {most} characters cannot be cut from {len(text):,}.")
        part = json.dumps({f"substring_{by}": text})
        around = [json.dumps(mark) if mark else "" for mark in (before, behind)]
        rules = f"start: {around[0]} QUOTE {around[1]}\nPART: %regex {part}\nQUOTE: PART & /(?s:.{{{least},{most}}})/\n"
        return Grammar("lark", rules)

    def after(self, mark: str) -> Grammar:
        """The same grammar, which begins behind the first ``mark``: what stands before it, and it, are free.

        For models that think first, whose template already holds the opening tag: ``.after("</think>")``. A few blanks
        may follow the mark. No end token is allowed before the grammar is satisfied.
        """
        if not mark:
            raise BadRequest("The mark behind which a grammar begins is a text that is not empty.")
        return replace(self, mark=mark)

    def rules(self, special: int | None) -> str:
        """The grammar as llguidance reads it. ``special``: the mark's id, where it is a special token.

        Raises:
            BadRequest: the library cannot read it.
        """
        try:
            text = self.text
            if self.kind == "json":
                item, key = self.separators
                text = LLMatcher.grammar_from_json_schema(
                    text,
                    overrides={
                        "item_separator": item,
                        "key_separator": key,
                        "whitespace_flexible": False,  # no blanks but the separators'
                        "coerce_one_of": False,
                        "lenient": False,  # no keyword is taken for less than it says
                    },
                )
        except ValueError as error:
            raise BadRequest(f"The schema cannot be compiled: {error}.") from None
        if not self.mark:
            return text
        inner = json.loads(text)["grammars"][0] if self.kind == "json" else {"lark_grammar": text}
        if special is None:
            free = f"start: free BLANK @inner\nfree[suffix={json.dumps(self.mark)}]: /(?s:.*)/\n"
        else:
            free = f"start: free <[{special}]> BLANK @inner\nfree: /(?s:.*)/\n"
        outer = {"lark_grammar": free + "BLANK: /[ \\n\\r\\t]{0,4}/\n"}
        return json.dumps({"grammars": [outer, {**inner, "name": "inner"}]})


def _read(text: str) -> Json:
    try:
        found: Json = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The schema is no JSON: {error}.") from None
    return found
