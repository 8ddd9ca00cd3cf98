"""AsyncReasoning as a slow loop over dense forwards, written from the published description alone.

Two streams of plain token ids and one list of all that was ever written. Every tick runs a dense forward over the
whole of it (``toy_engine.dense``): a token is at the distances at which it saw the others when it was written, and
never looks again. Tokens are drawn from the logits by the plain twin of the sampler, and whether the writer may go on
is read from the logits of Yes and No behind the question. It knows nothing of kvorum's views, blocks or programs.

Covers both layouts, a writer that sees the thoughts encoded again, and the end of a budget of ticks. Not covered: words
said meanwhile, think parts, orders other than together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import toy_engine
from kvorum import Sampling
from kvorum.sampling.reference import pick
from kvorum.sampling.sampling import Draw

PROBLEM = "What is 2+3?"
OPENING = "Notes on the way to an answer, in short paragraphs:\n\n"
SPLIT = "\n\nThe answer, as far as the notes go:\n\n"
HEADING = "The answer so far:\n\n"
TURN = "\n\n(It goes on while I take notes.) Notes on the way, in short paragraphs:\n\n"
QUESTION = (
    " Is there enough above, thoughts and answer so far, to write the next paragraph of the answer?"
    " Answer with Yes or No."
)
PROBE = ("\n\n", "Question:", QUESTION, "\n\nAnswer:")
"""What is put behind the writer's view, cut where it is encoded in pieces."""
Seen = Literal["cache", "reencode"]


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word of the above, so that Yes and No are one each, for every byte, and for the end."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    texts = [PROBLEM, OPENING, SPLIT, HEADING, TURN, *PROBE, " Yes No"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(texts, trainers.BpeTrainer(initial_alphabet=letters, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")


class Dense:
    """All tokens that were ever written, by number, and how far from each the others stood that it saw."""

    def __init__(self, llama: LlamaForCausalLM) -> None:
        self.llama = llama
        self.ids: list[int] = []
        self.distance = torch.full((0, 0), -1)

    def write(self, *rows: tuple[Sequence[list[int]], Sequence[int]]) -> Tensor:
        """One tick: tokens go behind the last stretch of what each row sees; the logits behind each row ``[rows,
        vocab]``. Of a row's own stretch a token sees what stands before it, of all others everything."""
        new = []
        for stretches, ids in rows:
            new.append(range(len(self.ids), len(self.ids) + len(ids)))
            self.ids += ids
            stretches[-1].extend(new[-1])
        grown = torch.full((len(self.ids), len(self.ids)), -1)
        grown[: len(self.distance), : len(self.distance)] = self.distance
        for (stretches, _), numbers in zip(rows, new, strict=True):
            seen = torch.tensor([number for stretch in stretches for number in stretch])
            for at, number in enumerate(numbers, len(seen) - len(numbers)):
                grown[number, seen] = at - torch.arange(len(seen))
        self.distance = grown
        return toy_engine.dense(self.llama, self.ids, grown)[[numbers[-1] for numbers in new]]

    def asked(self, stretches: Sequence[list[int]], pieces: Sequence[Sequence[int]]) -> Tensor:
        """The logits behind pieces that stand behind what is seen, of which nothing is kept."""
        aside = Dense(self.llama)
        aside.ids, aside.distance = list(self.ids), self.distance
        whole = [token for piece in pieces for token in piece]
        return aside.write(([*map(list, stretches), []], whole))[0]


@dataclass
class Stream:
    """What one of the two has written: numbers of the tokens that are in the sequence, the ids that it picked, and
    those that go in next."""

    index: int
    stretch: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)


@dataclass
class Told:
    """What the loop comes to: who had a token in each tick, the answers, and the tokens of both streams."""

    modes: list[str]
    answers: list[str]
    thoughts: list[int]
    answer: list[int]


class Loop:
    """The published state machine. ``ticks``: the budget, those of the probe and of what is encoded included, less the
    ``last`` ones, in which the writer says something if it has not by then."""

    def __init__(
        self,
        llama: LlamaForCausalLM,
        words: Any,
        sampling: Sampling,
        *,
        seed: int,
        every: int,
        mutual: bool,
        seen: Seen,
    ) -> None:
        self.dense, self.words, self.sampling, self.seed = Dense(llama), words, sampling, seed
        self.every, self.mutual, self.seen = every, mutual, seen
        self.thinker, self.writer = Stream(0), Stream(1)
        self.ticks = 0
        self.told = Told([], [], self.thinker.ids, self.writer.ids)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.words(text).input_ids
        return ids

    def ends_paragraph(self, ids: list[int]) -> bool:
        text: str = self.words.decode(ids)
        return text.endswith("\n\n")

    def prefill(self, stretches: Sequence[list[int]], ids: Sequence[int]) -> list[int]:
        """Encode what is known behind what stands before; the stretch that it makes."""
        made: list[int] = []
        self.dense.write(([*stretches, made], ids))
        self.ticks += 1
        return made

    def begin(self) -> None:
        line = self.encode("\n\n")  # what the tokenizer, which has no template, puts behind a user's words
        own = self.thinker.stretch
        self.input = self.prefill([], self.encode(PROBLEM))
        self.opening = self.prefill([self.input], [*line, *self.encode(OPENING)])
        self.split = self.prefill([self.input, self.opening], self.encode(SPLIT))
        self.thinks = [self.input, self.opening, own]
        if self.mutual:
            heading = self.prefill([self.input], [*line, *self.encode(HEADING)])
            self.thinks = [self.input, heading, self.writer.stretch]
            self.thinks = [*self.thinks, self.prefill(self.thinks, self.encode(TURN)), own]
        self.writes = [self.input, self.opening, own, self.split, self.writer.stretch]
        self.live = self.writes
        for stream in (self.thinker, self.writer):
            stream.pending = self.encode("\n")

    def tick(self, mode: str) -> None:
        """A token for each stream of the mode, in one batch."""
        active = [(self.thinker, self.thinks)] * ("T" in mode) + [(self.writer, self.writes)] * ("W" in mode)
        logits = self.dense.write(*((sees, stream.pending) for stream, sees in active))
        for (stream, _), row in zip(active, logits, strict=True):
            token = pick(row, Draw(self.sampling, self.seed, stream.index, len(stream.ids))).id
            stream.ids.append(token)
            stream.pending = [token]
        self.told.modes.append(mode)
        self.ticks += 1

    def enough(self) -> bool:
        """Whether the likelier answer is Yes, behind what the writer sees of a live cache."""
        logits = self.dense.asked(self.live, [self.encode(piece) for piece in PROBE])
        self.ticks += 1
        (yes,), (no,) = self.encode(" Yes"), self.encode(" No")
        found = bool(logits[yes] > logits[no])
        self.told.answers.append("Yes" if found else "No")
        return found

    def write(self, ticks: int, last: int) -> Told:
        """Both streams until the writer has ended, or the budget has."""
        end = self.words.eos_token_id
        self.begin()
        mode = "T"
        while self.ticks < ticks - last:
            self.tick(mode)
            if "W" in mode and self.writer.ids[-1] == end:
                break
            if "T" in mode and self.thinker.ids[-1] == end:
                mode = self.turn(mode, "W", ticks - last)
            elif "T" in mode:
                if "W" in mode and self.ends_paragraph(self.writer.ids):
                    mode = "T"
                due = len(self.told.modes) % self.every == 0 or self.ends_paragraph(self.thinker.ids[-2:])
                if due and self.ticks < ticks - last:
                    mode = self.turn(mode, "TW" if self.enough() else "T", ticks - last)
        self.speak(last, end)
        return self.told

    def speak(self, last: int, end: int) -> None:
        """A writer that the budget left without a word says something."""
        ids = self.writer.ids
        if end in ids or self.words.decode(ids).strip():
            return
        while last and end not in ids:
            self.tick("W")
            last -= 1

    def turn(self, before: str, mode: str, ticks: int) -> str:
        """Where the writer begins a turn: the thoughts so far once more, without what is only picked, in a stretch of
        its own that it alone sees."""
        if self.seen != "reencode" or before != "T" or mode == "T" or self.ticks >= ticks:
            return mode
        ids = [self.dense.ids[number] for number in self.thinker.stretch]
        again = self.prefill([self.input, self.opening], ids)
        self.writes = [self.input, self.opening, again, self.split, self.writer.stretch]
        return mode
