"""Bodies and replies of ``/v1/ask`` and ``/v1/fields``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, StrictBool, StrictInt

from kvorum.engine.budget import Ledger
from kvorum.serve.reply_models.base import ReplyModel
from kvorum.serve.reply_models.blocks import BlockReply
from kvorum.serve.request_models.base import Count, Number, Seed, StrictRequest, Words

MOST_QUESTIONS = 200
MOST_DOCUMENTS = 64
ROWS = 16
"""Questions or fields that are written at once, at most."""


class KeptDocument(StrictRequest):
    """A document that a block holds."""

    block: str = Field(max_length=80)


DocumentName = Annotated[str, Field(min_length=1, max_length=80)]
Document = Words | KeptDocument
"""A text, or a block that holds one. Never a file's name or an address."""


class DocumentBase(StrictRequest):
    """What both have in common. ``keep``: hold what is encoded of the documents as blocks, until they are deleted."""

    model: str | None = Field(None, max_length=300)
    keep: StrictBool = False
    stream: StrictBool = False
    rows: StrictInt = Field(ROWS, ge=1, le=ROWS)
    temperature: Number = Field(0.0, ge=0, le=100)
    seed: Seed = 0
    user: str | None = Field(None, max_length=256)


class AskForm(DocumentBase):
    """Questions of documents, which are given by their names. The rest is as the program ``ask`` has it."""

    documents: Annotated[dict[DocumentName, Document], Field(max_length=MOST_DOCUMENTS)] = Field(default_factory=dict)
    questions: Annotated[list[Annotated[Words, Field(min_length=1)]], Field(min_length=1, max_length=MOST_QUESTIONS)]
    usual_tokens: ClassVar[int] = 256
    tokens: Count | None = None
    rules: Annotated[str, Field(max_length=20000)] | None = None
    quote: StrictBool = False


class FieldsForm(DocumentBase):
    """A form, which is a JSON schema, to be filled from a document. The rest is as the program ``fields`` has it."""

    document: Document
    form: dict[str, JsonValue] = Field(alias="schema")
    sees: Literal["none", "earlier", "live"] = "none"
    confidence: StrictBool = False
    usual_tokens: ClassVar[int] = 96
    tokens: Count | None = None


class DocumentUsage(ReplyModel):
    """Tokens of a request. ``cached_tokens``: of documents that a block held."""

    input_tokens: int
    input_tokens_details: dict[Literal["cached_tokens"], int]
    output_tokens: int
    total_tokens: int
    kvorum: Ledger


class AskReply(ReplyModel):
    """Answers in the order of the questions; ``documents``: the block of each, where one holds it."""

    object: Literal["answers"] = "answers"
    model: str
    answers: list[dict[str, JsonValue]]
    documents: dict[str, BlockReply]
    usage: DocumentUsage


class FieldsReply(ReplyModel):
    """The filled form; ``value`` fits the schema unless there are ``problems``, by path."""

    object: Literal["form"] = "form"
    model: str
    value: JsonValue
    fields: list[dict[str, JsonValue]]
    problems: dict[str, str]
    documents: dict[str, BlockReply]
    usage: DocumentUsage
