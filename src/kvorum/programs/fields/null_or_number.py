"""Whether a field is null or a number, by all the ways in which the model would begin a number.

Rows write numbers as text, in quotation marks, for that is how they are copied best. A model would rather write 23 than
"23", and a grammar that takes the bare way from it gives its probability to whatever is left, null among that. So what
a row begins with is weighed with the bare way on the side of the number.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kvorum.engine.engine import EngineCore
from kvorum.engine.text import encode, needed
from kvorum.models.tokenizer import Tokenizer
from kvorum.runs.run import Run
from kvorum.runs.worker import Worker
from kvorum.sampling.sampling import unpacked

_STARTS: WeakKeyDictionary[Tokenizer, dict[str, list[int]]] = WeakKeyDictionary()


def number_starts(engine: EngineCore, blank: str) -> list[int]:
    """The ids that numbers begin with behind a colon and a ``blank`` or none; found once for a tokenizer."""
    known = _STARTS.setdefault(needed(engine.tokenizer), {})
    if blank not in known:
        texts = (f"{blank}{sign}{number}" for sign in ("", "-") for number in range(100))
        known[blank] = sorted({encode(engine.tokenizer, text)[0] for text in texts})
    return known[blank]


class NullOrNumber:
    """The first picks of a ``worker`` that may write null or, in quotation marks, a number."""

    def __init__(self, run: Run, worker: Worker) -> None:
        self._run, self._worker = run, worker
        self.shares: dict[int, float] = {}
        """By the index of a pick, the natural logarithm of the probability of a number at it."""

    def allowed(self, logits: Tensor, written: str) -> Tensor | None:
        """What may be picked, bool ``[vocab]``: not null where a number is likelier. None: what the grammar allows."""
        if written.strip():
            return None
        legal = self._legal(len(logits))
        null = legal & self._null(legal)
        own = logits.detach().cpu().double().log_softmax(0)
        share = float(own[(legal & ~null) | self.bare(len(logits), written)].logsumexp(0))
        self.shares[len(self._worker.ids)] = share
        return legal & ~null if share > float(own[null].logsumexp(0)) else None

    def bare(self, vocab: int, written: str) -> Tensor:
        """Bool ``[vocab]``: the tokens that a number begins with behind a colon and what is ``written``; none behind
        more than a blank."""
        found = torch.zeros(vocab, dtype=torch.bool)
        if not written.strip():
            found[number_starts(self._run.engine, "" if written else " ")] = True
        return found

    def _legal(self, vocab: int) -> Tensor:
        matcher = self._worker.matcher
        assert matcher is not None
        return torch.from_numpy(unpacked(matcher.bits(), vocab))

    def _null(self, legal: Tensor) -> Tensor:
        """The legal tokens that begin null and nothing else."""
        words = self._run.engine.grammars.words
        found = torch.zeros_like(legal)
        for token in legal.nonzero().flatten().tolist():
            found[token] = bytes(words.decode_bytes([token])).strip().startswith(b"n")
        return found
