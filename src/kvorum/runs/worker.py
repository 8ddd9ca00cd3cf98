"""A worker: a view with a sampler."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from torch import Tensor

from kvorum.engine.budget import Ledger
from kvorum.engine.detokenizer import Detokenizer, decode
from kvorum.engine.history import history
from kvorum.engine.row import Row
from kvorum.errors import BadRequest, GrammarError, KvorumError
from kvorum.kv import Block, Span, View
from kvorum.models.tokenizer import Tokenizer
from kvorum.runs.loops import Loop, LoopDetector
from kvorum.runs.recorder import Recorder
from kvorum.sampling.grammar import Grammar
from kvorum.sampling.matcher import Matcher
from kvorum.sampling.sampling import Draw, Pick, Sampling
from kvorum.store.events import TickRow

MAX_WORKERS = 64
"""The most workers that a run begins with or that join it."""

NAMES = ("Alice", "Bob", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi", "Ivan", "Judy", "Kim", "Leo")


def choose_names(workers: int | Sequence[str], most: int = MAX_WORKERS) -> list[str]:
    """Names for so many workers, or the given ones. Raises BadRequest for more than ``most`` and for bad names."""
    if isinstance(workers, int):
        if not 1 <= workers <= most:
            raise BadRequest(f"{workers} workers are not possible; give from 1 to {most}.")
        return [NAMES[i] if i < len(NAMES) else f"Worker{i + 1}" for i in range(workers)]
    if isinstance(workers, str | float) or not all(isinstance(name, str) for name in workers):
        raise BadRequest(f"workers={workers!r} must be a whole number or a list of names.")
    names = list(workers)
    if not 1 <= len(names) <= most:
        raise BadRequest(f"{len(names)} workers are not possible; give from 1 to {most}.")
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise BadRequest(f"Worker names must differ and not be empty: {', '.join(names)}.")
    if wrong := next((name for name in names if not name.isprintable()), None):
        raise BadRequest(f"A worker's name has no line breaks or control characters; {wrong!r} does.")
    return names


@dataclass(eq=False)
class Worker:
    """One of a run's workers: what it sees, what it is about to be fed, and what it has written.

    ``name`` is its own in the run, ``index`` numbers its draws, and ``sampling`` says how they are made.
    """

    name: str
    index: int
    sampling: Sampling
    tokenizer: Tokenizer | None
    """Turns what it picks into text; None: it has no text."""
    compile: Callable[[Grammar], Matcher]
    """Gives a matcher at the beginning of a grammar."""
    recorder: Recorder
    """Tells the trace what it sees. Not the run: a cycle would keep the blocks' pages until the collector comes."""
    active: bool = True
    """Whether the program still gives it ticks."""
    failed: KvorumError | None = None
    """Why no token could be picked for it; it is not ``active`` then."""
    pending: list[int] = field(default_factory=list)
    """Ids to feed in the next tick."""
    picked: int = 0
    """How many of the pending ids were picked by the worker itself, for the ledger."""
    known: int = 0
    """How many of the pending ids, the first ones, stand encoded in its own block: they are counted as fed with the
    next tick, and not computed."""
    ids: list[int] = field(default_factory=list)
    """All tokens that it picked, and those that its grammar forced."""
    logprobs: list[float] = field(default_factory=list)
    """Their natural-log probabilities under the model, at temperature 1 without any filter; 0 of forced ones."""
    allow: Callable[[Tensor], Tensor | None] | None = None
    """Asked before each pick: gets the logits ``[vocab]``, says which ids may be picked (bool ``[vocab]``; None: all).
    For grammars and scripted stand-ins; ``logprobs`` stay those of the model. Must depend on nothing but the logits
    and what the worker picked and was fed, so that a replay asks the same."""
    text: str = ""
    """Their text."""
    piece: str = ""
    """The text that the last of them added."""
    _matcher: Matcher | None = None
    _view: View | None = None
    _shown: list[tuple[int, int, int | None, int | None]] | None = None

    def __post_init__(self) -> None:
        self._detokenizer = Detokenizer(self.tokenizer)
        self._loops = LoopDetector()
        self._noticed: Loop | None = None

    def __repr__(self) -> str:
        return f"Worker({self.name})"

    @property
    def view(self) -> View:
        """What it sees. A change of it is recorded in the trace."""
        if self._view is None:
            raise BadRequest(f"{self.name} has no view yet; the program must set one before its first tick.")
        return self._view

    @view.setter
    def view(self, view: View) -> None:
        self._view = view
        shown = [(i.block.uid, i.lo, i.hi, i.at) if isinstance(i, Span) else (-1, 0, len(i), None) for i in view.items]
        if shown == self._shown:
            return
        self._shown = shown
        self.recorder.view(self.name, view)

    @property
    def own(self) -> Block:
        """The block that it writes to."""
        own = self.view.own
        assert own is not None
        return own

    def show(self, ids: Iterable[int]) -> None:
        """Have the text of these special tokens in ``text``, as marks of calls; that of others is left out."""
        self._detokenizer.show = frozenset(ids)

    def feed(self, ids: Sequence[int]) -> None:
        """Put known tokens behind what is pending."""
        self.pending += ids

    def reopen(self, ends: Collection[int]) -> None:
        """Take back a token of ``ends`` that it has just picked: what is fed next stands in its place."""
        if self.pending and self.pending[-1] in ends:
            self.pending.pop()
            self.picked = 0

    def row(self) -> Row:
        """Its row of the next tick."""
        return Row(self.view, ids=tuple(self.pending[self.known :]))

    @property
    def matcher(self) -> Matcher | None:
        """Where its text stands in the grammar of its sampling; None: it has none.

        Another grammar in ``sampling`` begins with the next token that is picked under it.

        Raises:
            BadRequest: the grammar cannot be used.
        """
        grammar = self.sampling.grammar
        if grammar is None:
            self._matcher = None
        elif self._matcher is None or self._matcher.grammar != grammar:
            self._matcher = self.compile(grammar)
        return self._matcher

    def restart(self) -> None:
        """Behind an end token its next text begins at the beginning of the grammar."""
        if self._matcher is not None and self._matcher.ended:
            self._matcher.restart()

    @contextmanager
    def failing(self, errors: list[KvorumError]) -> Iterator[None]:
        """Within it, that no token can be picked is the worker's failure, which is put behind ``errors``."""
        try:
            yield
        except (BadRequest, GrammarError) as error:
            self.failed, self.active = error, False
            self.pending, self.picked, self.known = [], 0, 0
            errors.append(error)

    def begin(self, sampling: Sampling | None = None) -> None:
        """Begin another text: under ``sampling``, if one is given, and with its grammar at the beginning."""
        self.sampling, self._matcher, self.failed = sampling or self.sampling, None, None
        self._loops = LoopDetector()

    @property
    def complete(self) -> bool:
        """Whether it has a grammar that nothing but an end token can follow."""
        return self.matcher is not None and self.matcher.complete

    def force(self) -> list[int]:
        """Put the tokens that its grammar leaves no choice about behind what is pending, as words of its own.

        They are fed at once, as prefill, and not picked; one by one the same tokens would come. Returns them.
        """
        ids = [] if self.matcher is None else self.matcher.forced()
        if self.matcher is not None and ids:
            self.matcher.take(ids)
            self.pending += ids
            self._write(ids, [0.0] * len(ids))
        return ids

    def _write(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        self.ids += ids
        self.logprobs += logprobs
        for token in ids:
            self._loops.add(token, self.recorder.tick_number)
        self.piece = "".join(map(self._detokenizer.step, ids))
        self.text += self.piece

    def draw(self, seed: int, view: View | None = None) -> Draw:
        """How its next token is drawn behind what is pending, by the run's ``seed`` if it has none of its own.

        ``view``: what it sees, if that is more than its own view, as in a run inside another.
        """
        own = self.sampling.seed
        fed = self.pending[self.known :]  # what is known stands in the view
        back = history(self.sampling, view or self.view, fed, self.ids, self.tokenizer)
        return Draw(self.sampling, seed if own is None else own, self.index, len(self.ids), history=back)

    def take(self, pick: Pick) -> TickRow:
        """Record a picked token, which is pending now. Returns the worker's row of the tick, as a trace has it.

        Raises:
            GrammarError: its grammar does not have the token there.
        """
        if self.matcher is not None:
            self.matcher.take([pick.id])
        fed, given = len(self.pending), self.pending[self.picked :]
        self.pending, self.picked, self.known = [pick.id], 1, 0
        self._write([pick.id], [pick.logprob])
        chance = round(pick.logprob, 4)
        row: TickRow = {"worker": self.name, "fed": fed, "token": pick.id, "text": self.piece, "logprob": chance}
        if given:
            row["given"] = "" if self.tokenizer is None else decode(self.tokenizer, given)
        return row

    @property
    def loop(self) -> Loop | None:
        """The loop in which it is, None in none: it writes the same tokens over and over (see ``runs.loops``)."""
        return self._loops.loop

    def notice_loop(self, ends: Collection[int], *, end: bool) -> None:
        """Tell the trace, once, that the last token began a loop or broke one; one of ``ends`` ends the text with it.

        ``end``: a worker that loops is not ``active`` any more.
        """
        if self.ids and self.ids[-1] in ends:
            self._loops = LoopDetector()
        ended = end and self.active and self.loop is not None
        if self.loop != self._noticed:
            self.recorder.loop(self.name, self.loop, ended=ended)
            self._noticed = self.loop
        self.active &= not ended

    def ban(self, ids: Iterable[int]) -> None:
        """Never pick any of ``ids`` from now on."""
        self.sampling = replace(self.sampling, banned=(*self.sampling.banned, *ids))


def known_cost(workers: Sequence[Worker], size: int) -> Ledger:
    """What encoding all that is ``known`` would have cost, which is counted with their next tick; ``size``: bytes of a
    token's keys and values."""
    count = sum(worker.known for worker in workers)
    return Ledger(prefill=count, kv_written=count * size)
