"""The three jobs: sixteen questions of a text, a form of twelve fields, twenty yes/no decisions about a text.

Texts are reports made from a seed, so that what is right is known. All peers get the token ids of kvorum's own prompts;
for the form a peer is told the form's schema, as people do.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvorum.bench.fanout.peer import Prompts, Wanted
from kvorum.engine import text
from kvorum.jsontypes import Json
from kvorum.models.tokenizer import Tokenizer
from kvorum.tasks.everyday.kind import json_of, object_schema, says
from kvorum.tasks.reports import Fact, report

TOKENS = 48
"""What each answer to a question has, whether the model would have ended it before or not."""
FIELD_TOKENS = 24
OBJECT_TOKENS = 512
BRIEFLY = "Answer from the text above alone, in one short sentence.\n\nQuestion: "
FILL = "Fill in this form from the text, as one JSON object."
SCHEMA = f"{FILL} Its schema is:\n"
KEYS = f"{FILL} Its keys, and what each asks for:\n"
TRUE = "Is this true of the text above? "
YES_OR_NO = "\nAnswer yes or no."


@dataclass(frozen=True, slots=True)
class Questions:
    """Sixteen questions of some 2,000 tokens."""

    text: str
    facts: Sequence[Fact]

    @classmethod
    def make(cls, seed: int, places: int = 17, count: int = 16) -> Questions:
        made = report(seed, places)
        return cls(made.text, made.chosen(count))

    def prompts(self, tokenizer: Tokenizer | None) -> Prompts:
        """The text in the user's turn, and each question behind it."""
        return _behind(tokenizer, self.text, [BRIEFLY + fact.question for fact in self.facts])

    @property
    def wanted(self) -> Wanted:
        """Answers of equal length."""
        return Wanted(TOKENS, full=True)

    def right(self, texts: Sequence[str]) -> int:
        """How many answers say what is right; of an answer that goes on, its first line."""
        first = [(answer.strip().splitlines() or [""])[0] for answer in texts]
        return sum(says(answer, fact.answer) for answer, fact in zip(first, self.facts, strict=True))


@dataclass(frozen=True, slots=True)
class Form:
    """Twelve fields of some 1,000 tokens."""

    text: str
    facts: Sequence[Fact]

    @classmethod
    def make(cls, seed: int, places: int = 9, count: int = 12) -> Form:
        made = report(seed, places)
        return cls(made.text, made.chosen(count))

    @property
    def schema(self) -> Mapping[str, Json]:
        """The form, each field with its question as description."""
        return object_schema(
            {
                fact.key: {"type": "integer" if fact.whole else "string", "description": fact.question}
                for fact in self.facts
            }
        )

    def text_tokens(self, tokenizer: Tokenizer | None) -> int:
        """How many tokens of its prompts are the text, and what stands before it."""
        return len(_behind(tokenizer, self.text, [""]).beginning)

    def one_object(self, tokenizer: Tokenizer | None) -> tuple[Prompts, Wanted]:
        """One reply with the whole object, under the schema."""
        words = SCHEMA + json.dumps(self.schema)
        prompts = _behind(tokenizer, f"{self.text}\n\n{words}", [""])
        return prompts, Wanted(OBJECT_TOKENS, schema=self.schema)

    def a_call_a_field(self, tokenizer: Tokenizer | None) -> tuple[Prompts, Wanted]:
        """A reply for each field: the form in the shared part, the row goes on behind the key.

        The form is a list of its keys here: behind a key that it has read in a schema, a model copies the schema. Each
        row begins on a line of its own, so that the model ends its value with that line; it writes all fields in one
        line otherwise.
        """
        form = "\n".join(f'"{fact.key}": {fact.question}' for fact in self.facts)
        made = _behind(tokenizer, f"{self.text}\n\n{KEYS}{form}", [""])
        begin = text.encode(tokenizer, "```json\n{")
        keys = [text.encode(tokenizer, f'\n"{fact.key}":') for fact in self.facts]
        shared = [*made.beginning, *made.endings[0], *begin]
        return Prompts(shared, keys), Wanted(FIELD_TOKENS, stops=(",\n", "\n", "}"))

    def right(self, texts: Sequence[str]) -> int:
        """How many values are right: of one object, or of a text for each field."""
        if len(texts) == 1 and len(self.facts) > 1:
            found = json_of(texts[0])
            given = found if isinstance(found, dict) else {}
            return sum(str(given.get(fact.key)).strip() == fact.answer for fact in self.facts)
        return sum(
            answer.strip().rstrip(",").strip('" ') == fact.answer
            for answer, fact in zip(texts, self.facts, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Statements:
    """Twenty statements about some 1,000 tokens: which are true?"""

    text: str
    said: Sequence[str]
    true: Sequence[bool]

    @classmethod
    def make(cls, seed: int, places: int = 9, count: int = 20) -> Statements:
        made = report(seed, places)
        draw = random.Random(f"statements/{seed}")
        true = [at % 2 == 0 for at in range(count)]
        draw.shuffle(true)
        chosen = zip(made.chosen(count), true, strict=True)
        return cls(made.text, [fact.statement if is_true else fact.denial for fact, is_true in chosen], true)

    def prompts(self, tokenizer: Tokenizer | None) -> Prompts:
        """The text in the user's turn, and each statement behind it."""
        return _behind(tokenizer, self.text, [TRUE + said + YES_OR_NO for said in self.said])

    @property
    def wanted(self) -> Wanted:
        """The first token of a reply tells."""
        return Wanted(1, full=True)

    def right(self, texts: Sequence[str]) -> int:
        """How many replies begin with the right word."""
        yes = [answer.strip().casefold().startswith("yes") for answer in texts]
        return sum(said == true for said, true in zip(yes, self.true, strict=True))


def _behind(tokenizer: Tokenizer | None, shared: str, words: Sequence[str]) -> Prompts:
    """The user's turn that begins with the shared text and goes on with one of these."""
    before, after = text.turn(tokenizer, "")
    plain = not getattr(tokenizer, "chat_template", None)
    beginning = [
        *text.encode(tokenizer, before, special=plain),
        *text.encode(tokenizer, f"{shared}\n\n", split_special=True),
    ]
    end = text.encode(tokenizer, after)
    return Prompts(beginning, [[*text.encode(tokenizer, one, split_special=True), *end] for one in words])
