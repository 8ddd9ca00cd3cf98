"""Prompts in as few ticks as possible: what several of them begin with stands in one block, all rows go in together.

A row sees what other rows of its tick write into the blocks of its view, so a prompt's pieces, its end and the answers
behind it need no tick of their own each. What does not fit in a tick, or in the cache, waits for the next one. Blocks
stay open as long as they are seen, for closed short ones are read joined with their neighbours, and which those are
depends on the rows beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kvorum.engine.budget import Ledger
from kvorum.engine.row import Cost, Row
from kvorum.errors import BadRequest, OutOfPages
from kvorum.harness.decisions.option_trie import OptionTrie
from kvorum.harness.decisions.prompts import Ids, Prompt
from kvorum.harness.shared_text import keep, load_kept, load_or_encode
from kvorum.kv import Block, View
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent
from kvorum.wording import count, plural

TOGETHER = 1024
"""New tokens that share a tick, as far as prompts can be told apart."""
READ = 256
"""Rows and tokens of a tick whose logits are read, for each has a number for every token of the vocabulary."""


@dataclass(slots=True, eq=False)
class Piece:
    """Tokens that some prompts have at the same place. ``below``: what follows it; ``users``: prompts still to come."""

    ids: Ids
    above: Piece | None
    view: View
    below: dict[Ids, Piece] = field(default_factory=dict)
    block: Block | None = None
    users: int = 0

    @property
    def path(self) -> list[Piece]:
        """What stands before it, from the beginning, and itself."""
        return [*(self.above.path if self.above else ()), self]


@dataclass(slots=True, eq=False)
class Asked:
    """A prompt on its way: the pieces before its tail in the order in which they are encoded, the beginning first, and
    the trie of its answers.

    ``block``, ``rest``: where its tail stands as far as it is encoded, and what is left of it.
    """

    prompt: Prompt
    pieces: list[Piece]
    trie: OptionTrie
    rest: Ids
    block: Block | None = None

    @property
    def seen(self) -> list[Piece]:
        """The pieces in the order in which its tail sees them."""
        return [self.pieces[0], *(self.pieces[at + 1] for at in self.prompt.seen)]

    @property
    def new(self) -> list[Piece]:
        """What stands before its tail and is not encoded yet."""
        return [piece for piece in self.pieces if piece.ids and piece.block is None]


class Scorer:
    """Asks prompts behind one beginning, ``view`` and then ``first``, and gives the log-probabilities of answers.

    ``ends``: the ids that end a text. A beginning that stands behind nothing is loaded from disk where the run keeps
    texts and has it; what encoding it would have cost is counted with the first tick, of which it would be a part.
    """

    def __init__(self, run: Run, view: View, first: Ids, ends: Sequence[int]) -> None:
        self._run, self._ends = run, ends
        self._root = Piece(first, None, view)
        self._before = len(run.scope.view(view)) + len(first)
        self._most = READ  # prompts of a tick
        self._owed = Ledger()

    def _plan(self, prompts: Sequence[Prompt]) -> list[Asked]:
        """The prompts with what they share."""
        found = []
        longest = self._run.engine.shape.longest
        for prompt in prompts:
            if longest is not None and self._before + prompt.length > longest:
                self._refuse(prompt, longest)
            pieces = [self._root]
            for ids in prompt.pieces:
                pieces.append(self._below(pieces[-1], ids))
            for one in pieces:
                one.users += 1
            found.append(Asked(prompt, pieces, OptionTrie(prompt.labels, self._ends), prompt.tail))
        return found

    def _below(self, piece: Piece, ids: Ids) -> Piece:
        if ids not in piece.below:
            piece.below[ids] = Piece(ids, piece, piece.view)
        return piece.below[ids]

    def _refuse(self, prompt: Prompt, longest: int) -> None:
        question, needed = prompt.question, prompt.length
        if self._before >= longest or needed < self._before:
            raise BadRequest(
                f"The state has {plural(self._before, 'token')} and a question {count(needed)} more; this model takes "
                f"{count(longest)}: shorten the state, or take a model with a longer context."
            )
        raise BadRequest(
            f"{question} has {plural(needed, 'token')} behind a state of {count(self._before)}; this model takes "
            f"{count(longest)}: shorten the question, or take a model with a longer context."
        )

    async def score(self, prompts: Sequence[Prompt]) -> list[list[float]]:
        """The log-probabilities of each prompt's answers; only those of the first ones where the budget ends before.

        Raises:
            BadRequest: one does not fit in the model's context behind the state. OutOfPages: nor in the cache.
        """
        waiting = self._plan(prompts)[::-1]
        found: list[list[float]] = []
        while waiting and not self._run.spent:
            wave = [waiting.pop()]
            try:
                await self._begin()
                await self._long_ones(wave[0])
                while waiting and len(wave) < self._most and self._fits([*wave, waiting[-1]]):
                    wave.append(waiting.pop())
                found += await self._tick(wave)
            except Spent:  # nothing was written; fewer may fit in what is left
                self._most = len(wave) // 2
                if not self._most:
                    break
                self._run.allowance.reached = None
                waiting += reversed(wave)
                continue
            except OutOfPages as error:
                error.add_note(f"It is {wave[0].prompt.question} that finds no room behind the state.")
                raise
            for one in wave:
                self._let_go(one)
            if waiting:
                self._run.note("asked", done=len(found), of=len(prompts))
        return found

    def _let_go(self, asked: Asked) -> None:
        """Give back what no prompt to come begins with."""
        asked.block = None
        for piece in asked.pieces:
            piece.users -= 1
            if not piece.users and piece.above is not None:
                piece.block = None
                piece.above.below.pop(piece.ids, None)

    async def _long_ones(self, asked: Asked) -> None:
        """Encode by itself what would hold up others: pieces, and a tail, of more than a prefill's tokens."""
        most = self._run.engine.prefill_chunk
        long = [at for at, piece in enumerate(asked.pieces) if piece.block is None and len(piece.ids) > most]
        tail = len(asked.rest) > most
        last = len(asked.pieces) if tail else max(long, default=-1) + 1
        for piece in asked.pieces[:last]:
            if piece.ids and piece.block is None:
                piece.block = self._run.block(_name(piece))
                await self._run.prefill(self._view(piece.path), piece.ids)
        if tail:
            asked.block = self._run.block("question")
            await self._run.prefill(self._view(asked.seen).then(asked.block), asked.rest[:-1])
            asked.rest = asked.rest[-1:]

    async def _begin(self) -> None:
        """Have the beginning loaded, if it is kept; a long one is encoded by itself, as any text that is kept."""
        run, root = self._run, self._root
        if root.block is not None or not root.ids or root.view.items:
            return
        if len(root.ids) > run.engine.prefill_chunk:
            root.block, _ = await load_or_encode(run, (), root.ids, _name(root))
        elif (found := load_kept(run, (), root.ids, _name(root))) is not None:
            root.block = found
            self._owed = Ledger(prefill=len(found), kv_written=len(found) * run.engine.pool.bytes_per_token)

    def _view(self, pieces: Sequence[Piece]) -> View:
        """What stands behind the beginning once ``pieces`` do, the last one open."""
        return self._root.view.then(*(piece.block for piece in pieces if piece.block is not None))

    def _fits(self, wave: Sequence[Asked]) -> bool:
        """Whether prompts can share a tick: their tokens, what is read, and the pages that their blocks take."""
        new = {id(piece): len(piece.ids) for asked in wave for piece in asked.new}
        tails = [len(asked.rest) for asked in wave]
        branches = [len(branch.ids) for asked in wave for branch in asked.trie.branches]
        blocks = [*new.values(), *tails, *branches]
        pool, limit = self._run.engine.pool, self._run.engine.shape.max_tokens or TOGETHER
        read = len(new) + len(tails) + sum(branches)
        return sum(blocks) <= min(limit, TOGETHER) and read <= READ and sum(map(pool.pages_for, blocks)) <= pool.free

    async def _tick(self, wave: Sequence[Asked]) -> list[list[float]]:
        """One tick of whole prompts, and what it says of their answers."""
        rows: list[Row] = []
        made: list[Piece] = []
        for asked in wave:
            for piece in asked.new:
                piece.block = self._run.block(_name(piece))
                rows.append(Row(self._view(piece.path), ids=piece.ids))
                made.append(piece)
        places = []
        for asked in wave:
            places.append(len(rows))
            views = [self._view(asked.seen).then(asked.block or self._run.block("question"))]
            rows.append(Row(views[0], ids=asked.rest))
            for branch in asked.trie.branches:
                views.append(views[branch.above + 1].then(self._run.block("answer")))
                rows.append(Row(views[-1], ids=branch.ids, every=True))
        try:
            with self._run.allowance.spending(self._owed):
                reply = await self._run.forward(rows, [Cost(0)] * len(rows))
                self._run.ledger.add(self._owed)
        except BaseException:
            for piece in made:
                piece.block = None
            raise
        self._owed = Ledger()
        if self._root in made and self._root.block is not None and not self._root.view.items:
            keep(self._run, (), self._root.block)
        behind = reply.output.every or tuple(reply.output.logits[:, None])
        ends = [*places[1:], len(rows)]
        return [
            asked.trie.score(behind[at][-1], behind[at + 1 : end])
            for asked, at, end in zip(wave, places, ends, strict=True)
        ]


def _name(piece: Piece) -> str:
    return "question" if piece.above else "state"
