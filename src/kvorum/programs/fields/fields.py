"""The program fields: the leaves of a JSON schema, filled at the same time from one text.

    row 1   [ text ][ request ][ // the company that orders ⏎ "customer":   own ]
    row 2   [ text ][ request ][ // how many are ordered    ⏎ "quantity":   own ]

The text is encoded once; a row begins with what it is asked for and ends where its JSON value does. Numbers are copied
as the text writes them and read here (``harness.forms.numbers``); what the text does not say is null. A list of records
is one row; of records with many leaves it writes the first, and then all others are written at once.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kvorum.engine.engine import EngineCore
from kvorum.engine.row import Row
from kvorum.engine.text import needed
from kvorum.errors import OutOfPages
from kvorum.harness.forms.filled import FilledForm
from kvorum.harness.forms.form import Field, Form, Path, spelled
from kvorum.harness.forms.leaves import Said, Source
from kvorum.harness.forms.plain_schema import told
from kvorum.harness.forms.records import TIMES
from kvorum.harness.forms.schema_sources import schema_object
from kvorum.harness.pieces import tick
from kvorum.harness.shared_text import load_or_encode, quoted_ids, share_texts
from kvorum.kv import Block, View
from kvorum.models.tokenizer import Tokenizer
from kvorum.programs.fields.rows import FieldRow, grammar
from kvorum.programs.fields.wording import OPENING, request, shared
from kvorum.runs.annotations import PositiveInt
from kvorum.runs.parameters import Value
from kvorum.runs.program import program
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent

ROWS = 16
"""Fields that are written at once, where nobody says how many."""
ROOM = 64
"""Tokens that what a row is asked, or what stands around the text, takes as a rule."""


def row_names(workers: int | None, *, schema: str, **_: Value) -> list[str]:
    """A name for each row that may be at work at once: of the first fields, then, for records of lists, a number."""
    fields = Form(schema_object(schema)).fields()
    names = [one.name for one in fields]
    most = ROWS if workers is None else workers
    if any(one.rows is not None for one in fields):
        names += [f"row {at}" for at in range(len(names) + 1, most + 1)]
    return names[:most] or ["value"]


def check(workers: int, *, schema: str, **_: Value) -> None:
    """Raises BadRequest for a schema that cannot be filled."""
    Form(schema_object(schema))


@program(
    "fields",
    "the leaves of a JSON schema, filled at the same time from one text",
    workers=ROWS,
    exchange="independent",
    own_tasks=True,
    channels={"none": {}},
    listens=False,
    names=row_names,
    together=check,
)
async def fields(
    run: Run,
    *,
    schema: str = '{"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]}',
    sees: Literal["none", "earlier", "live"] = "none",
    confidence: bool = False,
    tokens: PositiveInt = 96,
) -> str | None:
    """Fill the form that the schema is from the task's text. The number of workers says how many fields are written at
    once, and changes no value unless fields see each other.

    Args:
        schema: The JSON schema, as JSON text. Descriptions tell the model what a field means.
        sees: Whether fields see each other: not at all; those before them, one after the other; or all, while all are
            written.
        confidence: Whether to tell the probability of each field.
        tokens: The most tokens of a field; a list of texts or records may have eight times as many.
    """
    form = Form(schema_object(schema))
    filling = Filling(run, form, Source(run.task.prompt), sees, confidence, tokens)
    for field in form.fields():
        await filling.prepare(field)  # refused before anything is encoded
    try:
        await filling.begin(told(form.schema, "description") or told(form.schema, "title"))
        await filling.fill(form.fields())
        await filling.fill(filling.demanded())
    except Spent:
        pass  # what is not filled by now stays empty
    filled = filling.filled()
    run.product = filled
    return None if filled.problems else json.dumps(filled.value, ensure_ascii=False, indent=2)


_CLOSING: WeakKeyDictionary[Tokenizer, Tensor] = WeakKeyDictionary()


def closing_tokens(engine: EngineCore) -> Tensor:
    """Bool ``[vocab]``: the tokens that begin with a quotation mark; found once for a tokenizer and a vocabulary."""
    words, vocab, tokenizer = engine.grammars.words, engine.shape.vocab, needed(engine.tokenizer)
    found = _CLOSING.get(tokenizer)
    if found is None or len(found) != vocab:
        found = torch.tensor([bytes(words.decode_bytes([token])).startswith(b'"') for token in range(vocab)])
        _CLOSING[tokenizer] = found
    return found


class Filling:
    """A form that is being filled in a run."""

    def __init__(self, run: Run, form: Form, source: Source, sees: str, confidence: bool, tokens: int) -> None:
        self.run, self.form, self.source, self.sees = run, form, source, sees
        self.tokens = tokens
        self._closing = closing_tokens(run.engine) if confidence else None
        self.at_once = 1 if sees == "earlier" else len(run.workers)
        run.dismiss_workers()
        self.rows: dict[Path, FieldRow] = {}
        self.fields: dict[Path, Field] = {}
        self.said: dict[Path, Said] = {}
        self._shared: list[Block] = []
        self._order: list[Path] = []

    async def begin(self, title: str) -> None:
        """Encode the text, and behind it the request."""
        run = self.run
        words = quoted_ids(run, request(title))
        room = len(words) + self.tokens + 2 * ROOM
        texts = await share_texts(run, {"text": shared(run.task.prompt)}, room=room)
        asked, _ = await load_or_encode(run, texts.blocks, [*words, *texts.behind, *run.encode(OPENING)], "request")
        self._shared = [*texts.blocks, asked]

    async def prepare(self, field: Field) -> None:
        """Have the grammar of a field compiled while others go on. Raises BadRequest where it cannot be used."""
        rules = grammar(field, self.source, last=self.sees == "none")
        await self.run.beside(self.run.engine.grammars.matcher, rules)

    async def fill(self, todo: list[Field]) -> None:
        """Write these fields and what follows from them, as many at once as may be and as the cache has room for."""
        waiting, live, closing, begun = deque(todo), list[FieldRow](), list[Row](), list[FieldRow]()
        self._order += [one.path for one in todo if one.path not in self._order]
        while waiting or live:
            while waiting and len(live) < self.at_once:
                await self.prepare(waiting[0])
                try:
                    begun.append(self._begin(waiting[0]))
                    live.append(begun[-1])
                except OutOfPages:
                    if not live:
                        raise
                    break  # it waits until others have ended
                waiting.popleft()
                self._show(live)
            await tick(self.run, [row.piece for row in live], closing)
            for row in begun:
                row.keep()
            closing, begun = [], []
            for row in list(live):
                row.look()
                if row.said is None:
                    continue
                live.remove(row)
                if self.sees == "none":
                    row.worker.view = View(*self._shared)  # its own block's pages return
                else:
                    closing.append(row.rest())
                waiting.extendleft(reversed(self._take(row)))

    def demanded(self) -> list[Field]:
        """Fields of which the text says nothing, and which must be there, since others of their record are."""
        problems = self.form.put_together(self.said).problems
        found = []
        for path, field in self.fields.items():
            said = self.said.get(path)
            if path in problems and said is not None and said.null and not said.misfit:
                found.append(replace(field, null=False))
        return found

    def filled(self) -> FilledForm:
        """The form as it is."""
        made = self.form.put_together(self.said)
        rows = (self.rows[path] for path in self._order if path in self.said)
        return FilledForm(
            made.value, tuple(row.filled() for row in rows), {spelled(at): why for at, why in made.problems.items()}
        )

    def _begin(self, field: Field) -> FieldRow:
        many = field.rows is not None or field.leaf.kind in ("numbers", "json")
        tokens = self.tokens * (TIMES if many else 1)
        alone = self.sees == "none"
        row = FieldRow(self.run, field, self.source, self._shared, tokens, last=alone, keeps=alone)
        if self._closing is not None:
            row.measure(self._closing)
        self.rows[field.path], self.fields[field.path] = row, field
        return row

    def _show(self, live: list[FieldRow]) -> None:
        """Let the rows see others: those before them in the schema that are done, or all."""
        for row in live if self.sees != "none" else ():
            at = self._order.index(row.field.path)
            paths = self._order[:at] + (self._order[at + 1 :] if self.sees == "live" else [])
            others = [self.rows[path].block for path in paths if path in self.rows]
            row.worker.view = View(*self._shared, *others, row.block)

    def _take(self, row: FieldRow) -> list[Field]:
        """Keep what a row has said; the fields that follow from it."""
        field, said = row.field, row.said
        assert said is not None
        self.said[field.path] = said
        self.run.note("field", worker=field.name, value=said.value, note=said.note)
        if field.rows is None or row.records is None:
            return []
        records = row.records.records
        for at, record in enumerate(records):
            self.said.update({(*field.path, at, *names): one for names, one in record.items()})
        told = [record[field.rows.column].value for record in records]
        self.fields.update({one.path: one for one in self.form.records(field, told)})
        more = self.form.below(field, told)
        place = self._order.index(field.path) + 1
        self._order[place:place] = [one.path for one in more]
        return more
