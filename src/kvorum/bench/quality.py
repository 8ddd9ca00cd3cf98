"""The loss of the fast mode: perplexity and likeliest tokens on a fixed text, against float32.

The text is a page of this project, kept as it is so that figures can be compared over time. It is read once in rows of
a prefill and once in rows as short as a tick of a large team, which may take other kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from kvorum.bench.result import Quality
from kvorum.errors import BadRequest

if TYPE_CHECKING:
    from kvorum.api import Engine

TOKENS = 2048
AT_ONCE = (256, 16)


@dataclass(frozen=True, slots=True)
class Score:
    """A text as the model sees it: ``nll`` in nats of every token but the first, ``likeliest`` the id that the model
    held likeliest for each, ``weights`` how they are held."""

    nll: list[float]
    likeliest: list[int]
    weights: str

    @property
    def perplexity(self) -> float:
        """The perplexity of the whole text."""
        return math.exp(math.fsum(self.nll) / len(self.nll))


def text() -> str:
    """The text that perplexity is measured on, as it ships with the package."""
    return files("kvorum.bench").joinpath("text.txt").read_text(encoding="utf-8")


def score(engine: Engine, text: str, most: int, at_once: int = 256) -> Score:
    """Read at most ``most`` tokens of ``text``, ``at_once`` in a forward. Raises BadRequest without a tokenizer."""
    import torch  # here: the process that compares scores needs none

    from kvorum import Row, View
    from kvorum.engine.text import encode

    if engine.tokenizer is None:
        raise BadRequest("A model without a tokenizer cannot be scored on a text.")
    ids = encode(engine.tokenizer, text)[:most]
    view = View(engine.block())
    nll: list[float] = []
    likeliest: list[int] = []
    for start in range(0, len(ids) - 1, at_once):
        part = ids[start : min(start + at_once, len(ids) - 1)]
        out = engine.forward([Row(view, ids=part)], every=True)
        assert out.every is not None
        logs = torch.log_softmax(out.every[0].cpu().double(), -1)
        truth = torch.tensor(ids[start + 1 : start + 1 + len(part)])
        nll += (-logs[torch.arange(len(part)), truth]).tolist()
        likeliest += logs.argmax(-1).tolist()
    return Score(nll, likeliest, str(engine.about()["weights"]))


def loss(exact: Score, fast: Score, at_once: int) -> Quality:
    """What two scores of the same text say of each other."""
    same = [a == b for a, b in zip(exact.likeliest, fast.likeliest, strict=True)]
    return Quality(
        tokens=len(same),
        at_once=at_once,
        weights=fast.weights,
        exact=exact.perplexity,
        fast=fast.perplexity,
        agreement=sum(same) / len(same),
    )
