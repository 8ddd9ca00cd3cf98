"""The rows of a form: each writes one leaf behind the shared text, under its grammar, until its value is complete."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kvorum.engine.row import Row
from kvorum.harness.forms.filled import FilledField
from kvorum.harness.forms.form import Field
from kvorum.harness.forms.leaves import (
    Said,
    Source,
    closed,
    grammar_of,
    read_value,
    rules_as_written,
    understood,
    without_null_words,
)
from kvorum.harness.forms.records import SaidRecords, closed_records, records_as_written, said_records
from kvorum.harness.pieces import Piece
from kvorum.harness.shared_text import keep_beginning, load_begun, quoted_ids
from kvorum.jsontypes import Json
from kvorum.kv import Block, View
from kvorum.programs.fields.null_or_number import NullOrNumber
from kvorum.programs.fields.wording import question
from kvorum.runs.run import Run
from kvorum.runs.worker import Worker
from kvorum.sampling.grammar import Grammar
from kvorum.sampling.sampling import unpacked


def grammar(field: Field, source: Source, *, last: bool) -> Grammar:
    """What a row may write for a field; ``last`` as for ``grammar_of``."""
    written = rules_as_written(field.leaf, source) if field.rows is None else records_as_written(field.rows, source)
    if not field.null:
        written = without_null_words(written, source)
    return Grammar.lark(grammar_of(written, null=field.null, last=last))


class FieldRow:
    """A worker that writes one field behind ``shared`` blocks, into a block of its own.

    ``said`` is what it has said, None as long as it writes ``piece``. What it is asked is kept on disk where ``keeps``
    says so, all but its last token, behind which the value is picked.

    Raises:
        OutOfPages: the cache has no room for it at its longest.
    """

    def __init__(
        self,
        run: Run,
        field: Field,
        source: Source,
        shared: Sequence[Block],
        tokens: int,
        *,
        last: bool,
        keeps: bool = False,
    ) -> None:
        self.run, self.field, self.source, self.tokens = run, field, source, tokens
        self._asked = quoted_ids(run, question(field))
        run.block(field.name).reserve(len(self._asked) + tokens)  # without room, no file is read; free again at once
        self._before = [token for block in shared for token in block.ids] if keeps else None
        begun = load_begun(run, self._before, self._asked[:-1], field.name) if self._before else None
        own = run.block(field.name) if begun is None else begun
        own.reserve(len(self._asked) + tokens - len(own))
        self.worker: Worker = run.add_worker(field.name)
        self.worker.view = View(*shared, own)
        self.said: Said | None = None
        self.records: SaidRecords | None = None
        """Of a list of records, what it has said of each."""
        self._shares: list[tuple[float, float]] = []
        self._closing: Tensor | None = None
        self.tick = 0
        self.seconds = 0.0
        self._began = time.perf_counter()
        self.worker.feed(self._asked)
        self.worker.known = len(own)
        self._loaded = begun is not None
        run.credit(own, field.name, 0)
        self._null: NullOrNumber | None = None
        if field.null and field.leaf.kind == "number":
            self._null = NullOrNumber(run, self.worker)
            self.worker.allow = self._allow
        sampling = replace(run.sampling, grammar=grammar(field, source, last=last))
        self.piece = Piece(self.worker, sampling, tokens=tokens)

    @property
    def block(self) -> Block:
        """What it writes to."""
        return self.worker.own

    def keep(self) -> None:
        """Keep what it was asked, once that is encoded, unless it was there."""
        if self._before and not self._loaded:
            keep_beginning(self.run, self._before, self.block, len(self._asked) - 1)

    def measure(self, closing: Tensor) -> None:
        """Keep the probability, among what its grammar allows, of each token that it picks from now on.

        ``closing``: bool ``[vocab]``, the tokens that begin with a quotation mark: which of them ends a text does not
        matter.
        """
        self._closing, self.worker.allow = closing, self._allow

    def _allow(self, logits: Tensor) -> Tensor | None:
        """What may be picked now; None: whatever the grammar allows."""
        if self._closing is not None:
            self._share(logits)
        elif self.piece.text.strip():  # null or not is settled: from here on it is drawn with the whole tick
            self.worker.allow = None
        return None if self._null is None else self._null.allowed(logits, self.piece.text)

    def _share(self, logits: Tensor) -> None:
        """Note which share of the model's probability the grammar leaves, and which its closing tokens have, as natural
        logarithms."""
        matcher = self.worker.matcher
        assert matcher is not None
        assert self._closing is not None
        legal = torch.from_numpy(unpacked(matcher.bits(), len(logits)))
        own = logits.detach().cpu().double().log_softmax(0)
        if self._null is not None:
            legal |= self._null.bare(len(logits), self.piece.text)
        self._shares.append((float(own[legal].logsumexp(0)), float(own[legal & self._closing].logsumexp(0))))

    @property
    def confidence(self) -> float | None:
        """The probability of what it has written, among all that its grammar allows; None where it is not kept."""
        if self._closing is None or not self._shares:
            return None
        worker = self.worker
        picked = sum(worker.logprobs)
        if self._null is not None and '"' in self.piece.text:  # it was counted as all the ways of a number
            picked += sum(share - worker.logprobs[at] for at, share in self._null.shares.items())
        if bool(self._closing[worker.ids[-1]]):
            picked += self._shares[-1][1] - worker.logprobs[-1]
        return min(1.0, math.exp(picked - sum(legal for legal, _ in self._shares)))

    def look(self) -> None:
        """Take note of what its piece has come to."""
        value, complete = read_value(self.piece.text)
        if complete:
            self._finish(self._said(value))
        elif self.piece.finish == "failed":
            self._finish(Said(null=True, misfit=True, note=f"it could not be written: {self.worker.failed}"))
        elif self.piece.finish is not None:
            value = closed_records(self.piece.text) if self.field.rows else closed(self.piece.text)
            said = self._said(value)
            note = f"it was cut off after {self.tokens} tokens"
            self._finish(replace(said, note=note, misfit=value is None))

    def _said(self, value: Json) -> Said:
        field = self.field
        if field.rows is None or not isinstance(value, list):
            return understood(field.leaf, value, self.source, null=field.null)
        self.records = said_records(field.rows, value, self.source)
        return Said(self.records.value, note=self.records.note)

    def _finish(self, said: Said) -> None:
        self.said = said
        self.tick, self.seconds = self.run.state.ticks, time.perf_counter() - self._began

    def rest(self) -> Row:
        """What of it is not in its block yet, closed with a comma, so that others can read it."""
        ids = list(self.worker.pending)
        if not self.piece.text.endswith(","):
            ids += quoted_ids(self.run, ",")
        return Row(self.worker.view, ids=ids)

    def filled(self) -> FilledField:
        """What there is to be known of it."""
        said = self.said or Said()
        worker = self.worker
        tokens = len(self._asked) + len(worker.ids)
        return FilledField(self.field.name, said.value, said.note, self.confidence, tokens, self.tick, self.seconds)
